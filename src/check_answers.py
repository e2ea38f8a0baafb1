"""Have a tuned model answer a few rows, and count what is plainly wrong with the answers, whatever was
asked: that they do not end, loop, are empty, or write the instruction again.

    python src/check_answers.py output/im --eval_file data/sample/brief_answers_test.jsonl

Writes answers/ in the run's folder: the answers (responses.jsonl) and the counts (faults.json). Exit code 3
where there is something to warn of."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.quiet import silence_libraries


@dataclass
class CheckOptions:
    """Options."""

    run: str = field(metadata={"positional": "RUN"})
    """The run's folder, with the saved model."""
    eval_file: str = field(metadata={"input": "rows", "also": ("train_file",)})
    """Rows to answer, in any file and shape that training takes."""
    rows: int = 16
    """How many of its first rows."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [] if self.rows >= 1 else [f"--rows {self.rows}: must be 1 or more"]
        if not Path(self.run).is_dir():
            problems.append(f"{self.run}: there is no such folder")
        return problems


def main() -> int:
    """Read the options, check the answers, and say what was found."""
    options = parse_options(CheckOptions, also_check=missing_inputs)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    silence_libraries()
    from instruction_modelling.generation.check import ANSWERS, check_answers
    from instruction_modelling.generation.faults import fault_warnings

    folder = Path(options.run)
    counts = check_answers(folder, options.eval_file, options.rows, options.columns)
    print(f"written to {folder / ANSWERS}: responses.jsonl, faults.json")
    return 3 if fault_warnings(counts, "the answers") else 0


if __name__ == "__main__":
    run_main(main)
