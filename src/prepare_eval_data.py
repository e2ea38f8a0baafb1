"""Fetch what the benchmarks need, so that everything but a paid judge runs without a network afterwards.

    sh prepare_eval_data.sh                       # MT-Bench, AlpacaEval, and the data sets of lm-eval's tasks
    sh prepare_eval_data.sh mt_bench alpaca_eval  # sets by name, into data/eval/NAME
    sh prepare_eval_data.sh mmlu piqa gsm8k       # lm-eval's tasks from files: data/eval/NAME and the group
                                                  # sft_eval_local
    sh prepare_eval_data.sh --list                # every set: items, licence, size, address

`nlp` are the data sets of the group sft_eval on the hub; lm-eval fetches them into the cache of the
`datasets` library (HF_HOME). The others are files at their original addresses, downloaded as training sets
are: resumed, checked, recorded in DATA_DIR/downloads.lock.json, from mirrors where IM_MIRROR_... or
HF_ENDPOINT name some. HumanEval comes with its package.

Exit code 0 if every set is there, 2 if one is not; the others are then there all the same.
"""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.sources.downloads.sets import (
    DownloadOptions,
    ListOptions,
    fetch_sets,
    print_sets,
    print_states,
    until_interrupted,
)

if TYPE_CHECKING:
    from instruction_modelling.sources.downloads.published import PublishedSet

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class PrepareEvalOptions(ListOptions, DownloadOptions):
    """Preparation."""

    sets: list[str] = field(default_factory=list, metadata={"positional": "SET"})
    """Names of sets (default: mt_bench, alpaca_eval, nlp)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        from eval.catalogue import CATALOGUE

        return self.download_problems(self.sets, CATALOGUE)


def main() -> int:
    """Download, have lm-eval fetch its data sets, convert, and say what is there."""
    options = parse_options(PrepareEvalOptions)
    from eval.catalogue import CATALOGUE, DEFAULT

    if options.list:
        print_sets([CATALOGUE[name] for name in options.sets or CATALOGUE])
        return 0
    sets = [CATALOGUE[name] for name in dict.fromkeys(options.sets or DEFAULT)]
    return until_interrupted(lambda: prepare_eval_sets(sets, options))


def prepare_eval_sets(sets: "list[PublishedSet]", options: PrepareEvalOptions) -> int:
    """Fetch and convert sets; return the exit code."""
    from eval.catalogue import LOCAL_SETS, NLP

    data_dir = Path(options.data_dir)
    problems = fetch_sets(sets, options)
    rows: list[tuple[str, str, str, str]] = []
    for published in sets:
        name = published.name
        if name == NLP:
            problems |= fetch_nlp(data_dir / "eval")
        if name in problems:
            rows.append((name, "failed", "", problems[name]))
        else:
            cache = "the cache of the datasets library"
            where = cache if name == NLP else str(published.paths(data_dir)[0].parent)
            rows.append((name, "ready", f"{published.rows:,}" if published.rows else "", where))
    if any(published.name in LOCAL_SETS and published.name not in problems for published in sets):
        rows.append(make_local_tasks(data_dir / "eval"))
    return print_states(rows)


def fetch_nlp(folder: Path) -> dict[str, str]:
    """Have lm-eval fetch the data set of every task, and record it in the folder; return what went wrong, by
    set."""
    from eval.catalogue import NLP

    done = subprocess.run(
        [sys.executable, "-m", "eval.nlp.hub_data", "--record", folder.resolve() / "hub_data.json"], cwd=ROOT
    )
    return {NLP: "lm-eval could not fetch every data set (see above)"} if done.returncode else {}


def make_local_tasks(folder: Path) -> tuple[str, str, str, str]:
    """Make lm-eval's tasks of the files that are there; return a row of the summary."""
    made = folder / "local_tasks"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "eval.local_tasks",
            "--data_dir",
            folder.resolve(),
            "--output_dir",
            made.resolve(),
        ],
        cwd=ROOT,
    )
    return (
        ("local tasks", "failed", "", "see above")
        if done.returncode
        else ("local tasks", "ready", "", str(made))
    )


if __name__ == "__main__":
    run_main(main, goes_on=True)
