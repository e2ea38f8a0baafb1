"""Nothing a stranger made is unpickled, and no program that comes with a model or a data set is run."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("src", "eval", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if path.is_file()
)
# Pickles that a process writes into a temporary file without a name, and reads back itself.
OWN_PICKLES = {"src/instruction_modelling/analysis/overlap/results.py"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    found = next((given.value for given in call.keywords if given.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else found


def risks(path: Path) -> list[str]:
    """What of a module could run a stranger's program as it reads a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").partition(".")[0]]
        found += [f"imports {name}" for name in names if name in UNPICKLERS]
    for name, call in calls(tree):
        if name == "torch.load" and keyword(call, "weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if name.endswith(("np.load", "numpy.load")) and keyword(call, "allow_pickle") not in (None, False):
            found.append("numpy.load with pickles")
        if keyword(call, "trust_remote_code") not in (None, False):
            found.append("trust_remote_code")
        if name.endswith("yaml.load"):
            found.append("yaml.load, which is not safe_load")
        if name in ("eval", "exec"):
            found.append(name)
    return found


def test_no_module_reads_pickles_or_runs_what_comes_with_a_model() -> None:
    assert len(SOURCES) > 200
    found = {str(path.relative_to(ROOT)): said for path in SOURCES if (said := risks(path))}
    allowed = {name: ["imports pickle"] for name in OWN_PICKLES}
    # The sandbox's own runner, whose business it is.
    allowed |= {name: said for name, said in found.items() if name.startswith("eval/sandbox/")}
    assert found == allowed


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import pickle\nfrom joblib import load\ntorch.load(p)\ntorch.load(p, weights_only=False)\n"
        "torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=True)\nnp.load(p)\n"
        "M.from_pretrained(n, trust_remote_code=True)\nM.from_pretrained(n, trust_remote_code=False)\n"
        "yaml.load(t)\nyaml.safe_load(t)\nexec(t)\n"
    )
    assert risks(module) == [
        "imports pickle",
        "imports joblib",
        "torch.load without weights_only=True",
        "torch.load without weights_only=True",
        "numpy.load with pickles",
        "trust_remote_code",
        "yaml.load, which is not safe_load",
        "exec",
    ]
