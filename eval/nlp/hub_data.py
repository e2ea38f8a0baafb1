"""Has lm-eval fetch the data sets of the group sft_eval into the cache, so that its tasks run without a network afterwards.

    python -m eval.nlp.hub_data [--tasks BENCHMARK...]

Data sets come from the hub (HF_ENDPOINT names a mirror, HF_TOKEN a token where one is needed). One that cannot be had stops no other.
Exit code 1 if one is missing.
"""

import sys
from dataclasses import dataclass, field

from eval.nlp.benchmarks import GROUPS, paper_benchmarks
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


@dataclass
class HubDataOptions:
    """Data sets."""

    tasks: list[str] = field(default_factory=list)
    """Benchmarks whose data sets are fetched (default: all of the group sft_eval)."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        names = [one.key for one in paper_benchmarks()]
        return [f"--tasks {name}: there is {', '.join(names)}" for name in self.tasks if name not in names]


def main() -> int:
    """Loads every task, which fetches its data set, and says which could not be."""
    options = parse_options(HubDataOptions)
    import logging

    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(GROUPS))
    missing = []
    chosen = [one for one in paper_benchmarks() if not options.tasks or one.key in options.tasks]
    for number, benchmark in enumerate(chosen, start=1):
        try:
            tasks = manager.load(list(benchmark.tasks))["tasks"]
        # Whatever the libraries below lm-eval raise for a host that is not reached or a file that is none.
        except Exception as error:
            missing.append(benchmark.key)
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            print(f"{number}/{len(chosen)} {benchmark.key}: cannot be had: {reason}", file=sys.stderr, flush=True)
            continue
        items = sum(len(task.eval_docs) for task in tasks.values())
        print(f"{number}/{len(chosen)} {benchmark.key}: {len(tasks)} tasks, {items:,} items", flush=True)
    if missing:
        print(f"missing: {', '.join(missing)}; the same command fetches these again and nothing that is there", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    run_main(main)
