"""The plan of the house holds: packages know only those below them, and nothing comes round in a circle."""

import ast
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "src" / "instruction_modelling"
SOURCES = sorted(
    path for folder in ("src", "eval", "benchmarks") for path in (LIBRARY.parents[1] / folder).rglob("*.py")
)
FLAT = {"errors", "progress", "statistics", "quiet", "command_line"}
CORE = {"errors", "progress", "files", "rows", "chat", "tokens"}
# They know nothing of the library, and all of it may know them.
KNOWN_TO_ALL = {"called", "hub", "nearest"}
# What each package, or module outside one, may import; a module outside a package counts as one.
MAY_IMPORT = {
    "__init__": {"cpu"},
    "errors": {"cpu"},
    "config_files": {"errors"},
    "command_line": {"errors", "config_files"},
    "quiet": set(),
    "files": {"errors"},
    "rows": {"errors", "files"},
    "chat": {"errors", "files", "rows"},
    "tokens": {"errors", "cpu", "progress", "files", "rows", "chat"},
    "weight_options": {"errors", "tokens"},
    "recipes": set(),
    "options": {
        *("errors", "option_rules", "optimizer_options", "recipes", "weight_options", "rows", "chat"),
        "tokens",
    },
    "inputs": {"errors", "rows", "models"},
    "arms": {"errors", "command_line", "options", "files", "rows", "sources"},
    "models": {"errors", "cpu", "quiet", "files", "rows"},
    "processes": {"errors", "quiet", "files"},
    "training": CORE | {"cpu", "quiet", "options", "models", "processes"},
    "runs": CORE | {"quiet", "options", "models", "processes", "training"},
    "pages": {"errors", "files"},
    "sources": CORE | {"command_line", "quiet"},
    "inspection": CORE | {"models", "pages"},
    "analysis": CORE | {"statistics", "pages", "sources", "training"},
    "generation": CORE | {"cpu", "quiet", "models", "processes", "runs"},
    "comparison": CORE
    | FLAT
    | {
        "arms",
        "cpu",
        "options",
        "models",
        "processes",
        "training",
        "runs",
        "pages",
        "analysis",
        "generation",
    },
    "memorisation": CORE
    | FLAT
    | {"arms", "options", "models", "processes", "training", "runs", "pages", "generation", "comparison"},
    "decision": CORE
    | FLAT
    | {"arms", "options", "models", "processes", "runs", "pages", "analysis", "generation", "comparison"},
    "study": CORE | FLAT | {"models", "processes", "runs", "pages", "analysis", "comparison", "decision"},
    "sweeps": CORE | FLAT | {"arms", "options", "models", "processes", "runs", "analysis", "sources"},
}


def imports() -> dict[str, set[str]]:
    """Return, for each package of the library, those of it that its modules import, anywhere in them."""
    found: dict[str, set[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        own = path.relative_to(LIBRARY).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                first, _, rest = name.partition(".")
                assert first not in ("eval", "src", "instruction_modelling_scripts"), (
                    f"{path} imports {name}: the library never does"
                )
                if first == "instruction_modelling" and rest:
                    found.setdefault(own, set()).add(rest.partition(".")[0])
    return {package: known - {package} for package, known in found.items()}


def test_packages_import_only_what_the_plan_lets_them() -> None:
    for package, known in imports().items():
        may = MAY_IMPORT.get(package, set()) | (KNOWN_TO_ALL if package not in KNOWN_TO_ALL else set())
        assert known <= may, f"{package}: {sorted(known - may)}"


def test_no_package_comes_round_to_itself() -> None:
    left = {package: set(known) for package, known in imports().items()}
    while left:
        lowest = [package for package, known in left.items() if not known & left.keys()]
        assert lowest, f"a circle among {sorted(left)}"
        left = {package: known for package, known in left.items() if package not in lowest}


def module_imports() -> dict[str, set[str]]:
    """Return, for each module of src and eval, those of them that it imports, other than for its types."""
    paths = {_module_name(path): path for path in SOURCES}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        known = found.setdefault(name, set())
        for node in _run_statements(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                known |= (inner & paths.keys()) or ({node.module} & paths.keys())
            elif isinstance(node, ast.Import):
                known |= {alias.name for alias in node.names} & paths.keys()
    return found


def _module_name(path: Path) -> str:
    root = LIBRARY.parents[1]
    parts = (
        path.relative_to(root / "src" if path.is_relative_to(root / "src") else root).with_suffix("").parts
    )
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _run_statements(tree: ast.AST) -> list[ast.AST]:
    """Return every node of a module other than those under `if TYPE_CHECKING`."""
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        nodes += [child, *_run_statements(child)]
    return nodes


def test_no_module_comes_round_to_itself_within_functions_either() -> None:
    left = module_imports()
    while left:
        lowest = [module for module, known in left.items() if not (known - {module}) & left.keys()]
        assert lowest, f"a circle among {sorted(left)}"
        left = {module: known for module, known in left.items() if module not in lowest}


def test_locks_are_taken_in_one_place() -> None:
    users = [path.name for path in SOURCES if "fcntl" in path.read_text(encoding="utf-8")]
    assert users == ["locks.py"]


# -- words ------------------------------------------------------------------------------------------------

# A docstring that begins with one of these names a thing; a function's says what the function does.
NOT_A_VERB = {
    "a",
    "an",
    "the",
    "what",
    "where",
    "whether",
    "which",
    "who",
    "how",
    "all",
    "every",
    "each",
    "of",
    "in",
}
NOT_A_VERB |= {
    "on",
    "for",
    "from",
    "by",
    "as",
    "at",
    "to",
    "and",
    "or",
    "its",
    "it",
    "this",
    "that",
    "these",
    "no",
}
LONGEST_MODULE, LONGEST_FUNCTION, LONGEST_SCRIPT = 420, 65, 160


def definitions(path: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    """Return the functions and classes of a module, at any depth."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def public(path: Path) -> list[ast.FunctionDef | ast.ClassDef]:
    """Return the definitions that others may use: of a module or a class, without an underscore."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    found += [
        node
        for outer in found
        if isinstance(outer, ast.ClassDef)
        for node in outer.body
        if isinstance(node, ast.FunctionDef)
    ]  # type: ignore[misc]
    return [node for node in found if not node.name.startswith("_")]


def test_every_public_function_says_what_it_does_beginning_with_a_verb() -> None:
    wrong = []
    for path in SOURCES:
        for node in public(path):
            words = (ast.get_docstring(node) or "").split()
            if not words:
                wrong.append(f"{path.name}:{node.lineno} {node.name}: no docstring")
            elif isinstance(node, ast.FunctionDef) and words[0].lower().strip(".,:;`") in NOT_A_VERB:
                wrong.append(f"{path.name}:{node.lineno} {node.name}: begins with {words[0]!r}")
    assert not wrong, "\n".join(wrong)


def test_no_two_classes_have_one_name() -> None:
    seen: dict[str, Path] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in seen, f"{node.name}: in {seen[node.name]} and in {path}"
                seen[node.name] = path


def test_modules_functions_and_scripts_are_short_enough_to_be_read() -> None:
    long = []
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").count("\n")
        limit = (
            520
            if path.name == "finetune.py"
            else LONGEST_SCRIPT
            if path.parent.name == "src"
            else LONGEST_MODULE
        )
        if lines > limit:
            long.append(f"{path}: {lines} lines (at most {limit})")
        long += [
            f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno} lines"
            for node in definitions(path)
            if isinstance(node, ast.FunctionDef)
            and node.end_lineno
            and node.end_lineno - node.lineno > LONGEST_FUNCTION
        ]
    assert not long, "\n".join(long)
