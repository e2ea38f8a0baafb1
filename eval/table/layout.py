"""Where the results of a model lie: in a folder of this project's, or in the authors' folders.

This project's: RESULTS/MODEL/nlp (lm-eval's, anywhere below the folder), humaneval_t0.1, humaneval_t0.7,
mt_bench, alpaca_eval_1, alpaca_eval_2. The authors': output/MODEL (lm-eval's), results_humaneval/MODEL_t01
and MODEL_t07, results_alpaca_eval/MODEL (AlpacaEval 2) and MODEL_v1, output_loss/MODEL_DATA, and
mt_bench_average_results.csv.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval.table.suite import JUDGED, TEMPERATURES
from instruction_modelling.errors import UserError

OUTPUT, HUMANEVAL_FOLDER, ALPACA_FOLDER, LOSS_FOLDER = (
    "output",
    "results_humaneval",
    "results_alpaca_eval",
    "output_loss",
)
MT_BENCH_CSV = "mt_bench_average_results.csv"
# Folders of this project's other parts, in which lm-eval leaves nothing.
_OWN_PARTS = ("humaneval_", "mt_bench", "alpaca_eval")


@dataclass(frozen=True)
class ResultPlaces:
    """The places of a model's results; not all need be there."""

    name: str
    folder: Path
    nlp_files: list[Path] = field(default_factory=list)
    """JSON files that may be lm-eval's."""
    humaneval: dict[float, Path] = field(default_factory=dict)
    """The folder of each temperature."""
    judged: dict[str, Path] = field(default_factory=dict)
    """The folder of each judged benchmark."""
    losses: dict[str, Path] = field(default_factory=dict)
    """The folder of the losses on each file, by the file's name."""
    mt_bench_csv: Path | None = None
    unread: list[str] = field(default_factory=list)
    """What lies there and has no place in the table, in words."""


def model_layouts(folders: Sequence[Path]) -> list[ResultPlaces]:
    """Return the layouts of the models in some folders: each is a model's, or holds the authors' folders.

    Raises:
        UserError: a folder is not there.
    """
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise UserError(f"there is no folder {', '.join(missing)}")
    layouts = []
    for folder in folders:
        names = [] if (folder / "nlp").is_dir() else _authors_models(folder)
        layouts += [_authors_layout(folder, name) for name in names] or [model_layout(folder)]
    return layouts


def model_layout(folder: Path) -> ResultPlaces:
    """Return the layout of a model's folder: this project's, or the one in the authors' `output`."""
    whole = folder.resolve()
    if whole.parent.name == OUTPUT and not (folder / "nlp").is_dir():
        return _authors_layout(whole.parent.parent, whole.name)
    known = {f"humaneval_t{temperature}" for temperature in TEMPERATURES} | set(JUDGED) | {"alpaca_eval"}
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and path.name.startswith(_OWN_PARTS) and path.name not in known
    )
    return ResultPlaces(
        whole.name,
        folder,
        _json_files(folder),
        {temperature: folder / f"humaneval_t{temperature}" for temperature in TEMPERATURES},
        {name: folder / name for name in JUDGED},
        unread=[f"{folder / name}: is of another setting or of a part, and in no column" for name in others],
    )


def _json_files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.glob("**/*.json"))
        if not any(part.startswith(_OWN_PARTS) for part in path.relative_to(folder).parts[:-1])
    ]


def _authors_models(root: Path) -> list[str]:
    """Return the names of the models that have results in the authors' folders below `root`."""
    names: dict[str, None] = {}
    for path in sorted((root / OUTPUT).glob("*/")):
        names.setdefault(path.name)
    for temperature in TEMPERATURES:
        for path in sorted((root / HUMANEVAL_FOLDER).glob(f"*{_ending(temperature)}/")):
            names.setdefault(path.name.removesuffix(_ending(temperature)))
    for path in sorted((root / ALPACA_FOLDER).glob("*/")):
        names.setdefault(path.name.removesuffix("_v1"))
    return list(names)


def _ending(temperature: float) -> str:
    return f"_t{str(temperature).replace('.', '')}"


def _authors_layout(root: Path, name: str) -> ResultPlaces:
    folder, alpaca = root / OUTPUT / name, root / ALPACA_FOLDER
    judged = {"mt_bench": folder / "mt_bench", "alpaca_eval_2": alpaca / name}
    judged["alpaca_eval_1"] = alpaca / f"{name}_v1"
    for benchmark in ("alpaca_eval_1", "alpaca_eval_2"):
        # This project's script, given the authors' --save_dir, makes a folder of each benchmark in it.
        if (alpaca / name / benchmark).is_dir():
            judged[benchmark] = alpaca / name / benchmark
    losses = {path.name[len(name) + 1 :]: path for path in sorted((root / LOSS_FOLDER).glob(f"{name}_*/"))}
    return ResultPlaces(
        name,
        folder,
        _json_files(folder) if folder.is_dir() else [],
        {value: root / HUMANEVAL_FOLDER / f"{name}{_ending(value)}" for value in TEMPERATURES},
        judged,
        losses,
        root / MT_BENCH_CSV,
    )
