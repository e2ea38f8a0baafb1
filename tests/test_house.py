"""The plan of the house holds: packages know only those below them, and nothing comes round in a circle."""

import ast
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[1] / "src" / "instruction_modelling"
FLAT = {"errors", "progress", "statistics", "quiet", "command_line"}
CORE = {"errors", "progress", "files", "rows", "chat", "tokens"}
# What each package, or module outside one, may import; a module outside a package counts as one.
MAY_IMPORT = {
    "command_line": {"errors"},
    "quiet": set(),
    "files": {"errors"},
    "rows": {"errors", "files"},
    "chat": {"errors", "files", "rows"},
    "tokens": {"errors", "files", "rows", "chat"},
    "options": {"errors", "tokens"},
    "models": {"errors", "quiet", "files", "rows"},
    "processes": {"errors", "quiet", "files"},
    "training": CORE | {"quiet", "options", "models", "processes"},
    "runs": CORE | {"quiet", "options", "models", "processes", "training"},
    "pages": {"errors", "files"},
    "sources": CORE | {"command_line", "quiet"},
    "inspection": CORE | {"pages"},
    "analysis": CORE | {"statistics", "pages", "sources", "training"},
    "generation": CORE | {"quiet", "models", "processes", "runs"},
    "comparison": CORE
    | FLAT
    | {"options", "models", "processes", "training", "runs", "pages", "analysis", "generation"},
    "sweeps": CORE | FLAT | {"options", "models", "processes", "runs", "analysis"},
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
                assert first not in ("eval", "src"), f"{path} imports {name}: the library never does"
                if first == "instruction_modelling" and rest:
                    found.setdefault(own, set()).add(rest.partition(".")[0])
    return {package: known - {package} for package, known in found.items()}


def test_packages_import_only_what_the_plan_lets_them() -> None:
    for package, known in imports().items():
        assert known <= MAY_IMPORT.get(package, set()), (
            f"{package}: {sorted(known - MAY_IMPORT.get(package, set()))}"
        )


def test_no_package_comes_round_to_itself() -> None:
    left = {package: set(known) for package, known in imports().items()}
    while left:
        lowest = [package for package, known in left.items() if not known & left.keys()]
        assert lowest, f"a circle among {sorted(left)}"
        left = {package: known for package, known in left.items() if package not in lowest}
