"""Fetches what the benchmarks need, so that everything but a paid judge runs without a network afterwards.

    sh prepare_eval_data.sh                       # MT-Bench, AlpacaEval, and the data sets of lm-eval's tasks
    sh prepare_eval_data.sh mt_bench alpaca_eval  # sets by name, into data/eval/NAME sh prepare_eval_data.sh
    mmlu piqa gsm8k       # lm-eval's tasks from files: data/eval/NAME and the group sft_eval_local sh
    prepare_eval_data.sh --list                # every set: items, licence, size, address

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
    print_summary,
)

if TYPE_CHECKING:
    from instruction_modelling.sources.downloads.catalogue import DataSet

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class PrepareEvalOptions(ListOptions, DownloadOptions):
    """Preparation."""

    sets: list[str] = field(default_factory=list, metadata={"positional": "SET"})
    """Names of sets (default: mt_bench, alpaca_eval, nlp)."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        from eval.catalogue import CATALOGUE

        problems = [
            f"{name}: no such set; there are {', '.join(CATALOGUE)} (--list tells more)"
            for name in self.sets
            if name not in CATALOGUE
        ]
        return problems + self.download_problems()


def main() -> int:
    """Downloads, has lm-eval fetch its data sets, converts, and says what is there."""
    options = parse_options(PrepareEvalOptions)
    from eval.catalogue import CATALOGUE, DEFAULT

    if options.list:
        print_sets([CATALOGUE[name] for name in options.sets or CATALOGUE])
        return 0
    try:
        return prepare([CATALOGUE[name] for name in dict.fromkeys(options.sets or DEFAULT)], options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def prepare(wanted: "list[DataSet]", options: PrepareEvalOptions) -> int:
    """Fetches and converts sets; the exit code."""
    from eval.catalogue import LOCAL_SETS, NLP
    from instruction_modelling.sources.downloads.catalogue import path_of

    data_dir = Path(options.data_dir)
    problems = fetch_sets(wanted, options)
    rows: list[tuple[str, str, str, str]] = []
    for one in wanted:
        if one.name == NLP:
            problems |= fetch_nlp(data_dir / "eval")
        if one.name in problems:
            rows.append((one.name, "failed", "", problems[one.name]))
        else:
            where = (
                "the cache of the datasets library"
                if one.name == NLP
                else str(path_of(one, one.files[0], data_dir).parent)
            )
            rows.append((one.name, "ready", f"{one.rows:,}" if one.rows else "", where))
    if any(one.name in LOCAL_SETS and one.name not in problems for one in wanted):
        rows.append(convert(data_dir / "eval"))
    return print_summary(rows)


def fetch_nlp(folder: Path) -> dict[str, str]:
    """Has lm-eval fetch the data set of every task, and record it in the folder; what went wrong, by set."""
    from eval.catalogue import NLP

    done = subprocess.run(
        [sys.executable, "-m", "eval.nlp.hub_data", "--record", folder.resolve() / "hub_data.json"], cwd=ROOT
    )
    return {NLP: "lm-eval could not fetch every data set (see above)"} if done.returncode else {}


def convert(folder: Path) -> tuple[str, str, str, str]:
    """Makes lm-eval's tasks of the files that are there."""
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
    run_main(main)
