"""Every option of the benchmark."""

from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED_MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"


@dataclass
class BenchmarkOptions:
    """Benchmark."""

    quick: bool = False
    """A tiny random model, few rows and short turns: whether everything runs and roughly where it stands, in
    under three minutes."""
    only: list[str] = field(default_factory=list)
    """Rows to measure, by the beginning of their names: training scoring (default: all)."""
    peers: list[str] = field(default_factory=list)
    """Peers to measure, by the beginning of their names: TRL "plain loop, 1" (default: all)."""
    at_once: int | None = None
    """Processes at a time, ours always one of them; each holds a model with its optimiser (default: 3; with
    --quick all)."""
    pairs: int | None = None
    """Turns that each contender takes after one to warm up (default: 5; 3 with --quick)."""
    data: str | None = None
    """Folder with alpagasus_3k_dolly.jsonl (short rows) and lima_data.jsonl (long rows), as
    prepare_train_data.sh makes them (default: data/sample, whose brief and long answers stand in)."""
    model_name_or_path: str | None = None
    """Folder of the model (default: models/SmolLM2-135M-Instruct, which src/fetch_model.py fetches)."""
    output_dir: str = "results/benchmark"
    """Where results.json, table.md, ratios.png and the contenders' logs go."""
    examples_per_step: int | None = None
    """Examples of an update, a multiple of 8 (default: 8)."""
    max_seq_length: int = 2048
    """Tokens of a row at most; longer rows are left out for everyone."""
    lora_rank: int = 16
    """Rank of everyone's adapters in the rows with LoRA."""
    threads: int = 1
    """Threads of torch in each process."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [
            f"--{name} {getattr(self, name)}: must be 1 or more"
            for name in ("pairs", "lora_rank", "threads")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.at_once is not None and self.at_once < 2:
            problems.append(f"--at_once {self.at_once}: must be 2 or more: ours and another")
        if self.examples_per_step is not None and (self.examples_per_step < 8 or self.examples_per_step % 8):
            problems.append(f"--examples_per_step {self.examples_per_step}: must be 8 or a multiple of it")
        if self.data is not None and not Path(self.data).is_dir():
            problems.append(f"--data {self.data}: there is no such folder")
        if not self.quick and not Path(self.model()).is_dir():
            problems.append(
                f"{self.model()}: no model there; fetch it (python src/fetch_model.py) or give --quick"
            )
        return problems

    def turns(self) -> int:
        """Return how many turns each contender takes that count."""
        return self.pairs or (3 if self.quick else 5)

    def at_once_or_default(self) -> int:
        """Return how many processes there are at a time."""
        return self.at_once or (99 if self.quick else 3)

    def runs(self) -> int:
        """Return how often each contender runs from a fresh start, beyond the first that warms up."""
        return 0 if self.quick and not self.pairs else self.turns()

    def examples(self) -> int:
        """Return how many examples an update has."""
        return self.examples_per_step or 8

    def model(self) -> str:
        """Return the folder of the model; with --quick it is made when the rows are prepared."""
        if self.model_name_or_path:
            return self.model_name_or_path
        return str(Path(self.output_dir) / "tiny-model" if self.quick else EMBEDDED_MODEL)

    def files(self) -> dict[str, Path]:
        """Return the files of short and of long rows: {"short": ..., "long": ...}."""
        folder = Path(self.data or ROOT / "data" / "sample")
        names = {
            "short": ("alpagasus_3k_dolly.jsonl", "brief_answers_train.jsonl"),
            "long": ("lima_data.jsonl", "long_answers_train.jsonl"),
        }
        return {
            kind: next((folder / name for name in of_kind if (folder / name).exists()), folder / of_kind[0])
            for kind, of_kind in names.items()
        }
