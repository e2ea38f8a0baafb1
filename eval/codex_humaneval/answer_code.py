"""What code in a chat answer defines and needs, told from its syntax tree; nothing of it is run here."""

import ast
import builtins
from collections.abc import Iterable, Iterator, Sequence

from eval.codex_humaneval.problems import tree_or_wrong_line

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom)
# Names and attributes by which a program reads input, ends itself or runs its own tests.
_NOT_FOR_A_FUNCTION = {"input", "exit", "quit", "sys.exit", "os._exit", "sys.stdin", "unittest.main"}
_NOT_FOR_A_FUNCTION |= {"doctest.testmod", "pytest.main"}


def tree_of(code: str) -> ast.Module | None:
    """Return the syntax tree of a program, None where the text is none."""
    tree = tree_or_wrong_line(code)
    return tree if isinstance(tree, ast.Module) else None


def defines(tree: ast.Module, name: str) -> bool:
    """Return whether a program defines a function of that name with a body, or gives the name to one."""
    return any(name in _bound(node) and not _is_stub(node) for node in _statements(tree.body))


def returns_outside(tree: ast.Module) -> bool:
    """Return whether a program is a function's body: it returns, or yields, outside of any function."""
    return any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in _outside(tree.body))


def function_alone(code: str, name: str) -> str:
    """Return a program that defines the function `name`, without what does not belong to the function.

    These statements are left out: those that call the function to show or test it, read input or end the
    program; expressions that do nothing (a word behind the code is one); definitions of `name` without a
    body; and imports from `__future__`, which cannot stand behind a prompt.
    """
    tree = _parsed(code)
    shown = _examples(tree, name)
    dropped = [
        node
        for node in tree.body
        if node in shown
        or _does_nothing(node)
        or (name in _bound(node) and _is_stub(node))
        or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    kept = [node for node in tree.body if node not in dropped]
    lines = {number for node in dropped for number in _lines(node)}
    if any(number in lines for node in kept for number in _lines(node)):
        return ast.unparse(ast.Module(kept, []))
    return "\n".join(line for number, line in enumerate(code.split("\n"), 1) if number not in lines)


def lacking_definitions(code: str, known: set[str], elsewhere: Sequence[str]) -> str:
    """Return the definitions that code needs and lacks, taken from other programs, as a program.

    Args:
        code: a program.
        known: names that are there without it.
        elsewhere: programs that may define what it lacks; the last that does counts.
    """
    taken: dict[tuple[int, int], str] = {}
    wanted = [_parsed(code)]
    known = known | set(dir(builtins)) | names_bound(wanted[0])
    programs = [(number, source.split("\n"), _parsed(source)) for number, source in enumerate(elsewhere)]
    while wanted:
        for name in sorted(_used(wanted.pop()) - known):
            for number, lines, tree in reversed(programs):
                found = [node for node in tree.body if name in _bound(node) and not _is_stub(node)]
                if found:
                    of_node = _lines(found[-1])
                    # In the order of the answer: a constant may be made of another.
                    taken[number, of_node[0]] = "\n".join(lines[line - 1] for line in of_node)
                    wanted.append(ast.Module([found[-1]], []))
                    known |= names_bound(wanted[-1])
                    break
    return "\n\n".join(taken[place] for place in sorted(taken))


def names_bound(tree: ast.Module) -> set[str]:
    """Return every name that a program binds anywhere: functions, arguments, variables, imports."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITIONS):
            bound |= _bound(node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return bound


def names_of_module(tree: ast.Module) -> set[str]:
    """Return the names that a program binds outside of its functions."""
    return {name for node in tree.body for name in _bound(node)}


def imports_within(tree: ast.Module) -> str:
    """Return the imports at the head of a program's functions, as a program."""
    return "\n".join(
        ast.unparse(node)
        for function in tree.body
        if isinstance(function, _FUNCTIONS)
        for node in function.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    )


def _parsed(code: str) -> ast.Module:
    return tree_of(code) or ast.Module([], [])


# -- what statements are ----------------------------------------------------------------------------------


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those under `if` and `try` too."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for inner in (node.body, getattr(node, "orelse", [])):
                yield from _statements(inner)


def _outside(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield all nodes that are in no function or class."""
    # Not by recursion: a sum of a thousand numbers is a thousand nodes deep.
    left = [*nodes]
    while left:
        node = left.pop()
        if not isinstance(node, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield node
            left += ast.iter_child_nodes(node)


def _lines(node: ast.stmt) -> range:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return range(first, (node.end_lineno or node.lineno) + 1)


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement of a module gives a meaning to."""
    if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {
        inner.id
        for inner in _outside([node])
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
    }


def _used(node: ast.AST) -> set[str]:
    """Return the names that are used anywhere within a node."""
    return {
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)
    }


def _used_of_module(node: ast.stmt) -> set[str]:
    """Return the names of the module that a statement uses: a function's own variables are none of them."""
    own = names_bound(ast.Module([node], [])) if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) else set()
    return _used(node) - own


def _is_stub(node: ast.stmt) -> bool:
    """Return whether a statement is a function without a body: a docstring, pass, `...` or a
    NotImplementedError alone."""
    return isinstance(node, _FUNCTIONS) and all(
        isinstance(inner, ast.Pass)
        or (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant))
        or (isinstance(inner, ast.Raise) and "NotImplementedError" in _used(inner))
        for inner in node.body
    )


def _does_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and not any(
        isinstance(inner, (ast.Call, ast.Await, ast.NamedExpr)) for inner in ast.walk(node)
    )


def _examples(tree: ast.Module, name: str) -> list[ast.stmt]:
    """Return the statements that call the function, also through other functions or by what such a statement
    set, or that read input or end the program; none that gives a meaning to what the function needs."""
    needed = _needed(tree, name)
    about = {name}
    examples: list[ast.stmt] = []
    grown = True
    while grown:
        grown = False
        for node in tree.body:
            touches = bool(_used_of_module(node) & about) or not _NOT_FOR_A_FUNCTION.isdisjoint(_dotted(node))
            if not touches or node in examples or isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                grown = grown or node.name not in about
                about.add(node.name)
            elif not _gives_meaning(node, needed):
                grown = True
                examples.append(node)
                about |= _bound(node)
    return examples


def _needed(tree: ast.Module, name: str) -> set[str]:
    """Return the names that a function needs, directly or through what it needs, and its own."""
    needed, grown = {name}, True
    while grown:
        used = {inner for node in tree.body if needed & _bound(node) for inner in _used_of_module(node)}
        grown = not used <= needed
        needed |= used
    return needed


def _gives_meaning(node: ast.stmt, needed: set[str]) -> bool:
    """Return whether a statement assigns one of the names, or an attribute or item of one."""
    if needed & _bound(node):
        return True
    if not isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(needed & _used(target) for target in targets)


def _dotted(node: ast.AST) -> set[str]:
    """Return the names used within a node, and the attributes of names as `name.attribute`."""
    attributes = {
        f"{inner.value.id}.{inner.attr}"
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name)
    }
    return _used(node) | attributes
