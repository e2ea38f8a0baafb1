"""Has lm-eval fetch the data sets of the group sft_eval into the cache, so that its tasks run without a
network afterwards.

    python -m eval.nlp.hub_data [--tasks BENCHMARK...]

Data sets come from the hub (HF_ENDPOINT names a mirror, HF_TOKEN a token where one is needed). One that
cannot be had stops no other. What is there is recorded in data/eval/hub_data.json, and eval.nlp.run_eval then
asks no hub for it. Exit code 1 if one is missing."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from eval.nlp.benchmarks import GROUPS, paper_benchmarks
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.files.stamps import read_stamp
from instruction_modelling.files.whole import write_json

RECORD = "data/eval/hub_data.json"


def datasets_cache_folder() -> str:
    """Return where the `datasets` library keeps what it fetched, by its own rules."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    return str(Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser())


def fetched(record: Path) -> set[str]:
    """Return the benchmarks whose data sets are in the cache."""
    benchmarks = (read_stamp(record) or {}).get(datasets_cache_folder())
    return set(benchmarks) if isinstance(benchmarks, list) else set()


def add_fetched(record: Path, benchmark: str) -> None:
    """Record a benchmark's data sets as being in the cache."""
    write_json(record, {datasets_cache_folder(): sorted({*fetched(record), benchmark})})


@dataclass
class HubDataOptions:
    """Data sets."""

    tasks: list[str] = field(default_factory=list)
    """Benchmarks whose data sets are fetched (default: all of the group sft_eval)."""
    record: str = RECORD
    """File that says what is there."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        names = [benchmark.key for benchmark in paper_benchmarks()]
        return [f"--tasks {name}: there is {', '.join(names)}" for name in self.tasks if name not in names]


def main() -> int:
    """Load every task, which fetches its data set, and print which could not be."""
    options = parse_options(HubDataOptions)
    import logging

    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(GROUPS))
    missing = []
    chosen = [
        benchmark for benchmark in paper_benchmarks() if not options.tasks or benchmark.key in options.tasks
    ]
    for number, benchmark in enumerate(chosen, start=1):
        try:
            tasks = manager.load(list(benchmark.tasks))["tasks"]
        # Whatever the libraries below lm-eval raise for a host that is not reached or a file that is none.
        except Exception as error:
            missing.append(benchmark.key)
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            print(
                f"{number}/{len(chosen)} {benchmark.key}: cannot be had: {reason}",
                file=sys.stderr,
                flush=True,
            )
            continue
        add_fetched(Path(options.record), benchmark.key)
        items = sum(len(task.eval_docs) for task in tasks.values())
        print(f"{number}/{len(chosen)} {benchmark.key}: {len(tasks)} tasks, {items:,} items", flush=True)
    if missing:
        print(
            f"missing: {', '.join(missing)}; the same command fetches these again and nothing that is there",
            file=sys.stderr,
        )
    return 1 if missing else 0


if __name__ == "__main__":
    run_main(main)
