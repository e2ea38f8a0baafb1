"""A tuned model's answers to a few rows, once it is saved: whether they end, loop, are empty or copy."""

import logging
from pathlib import Path
from typing import Any

from instruction_modelling.called import command
from instruction_modelling.errors import UserError, is_out_of_memory
from instruction_modelling.files.whole import write_json
from instruction_modelling.generation.faults import FAULTS, count_faults, fault_warnings
from instruction_modelling.generation.respond import GenerateOptions, respond
from instruction_modelling.progress import counted

ANSWERS, COUNTS = "answers", "faults.json"
# Tokens an answer may have: what a user would read, and more than most references.
MAX_NEW_TOKENS = 256

logger = logging.getLogger(__name__)


def check_answers(folder: Path, file: str, rows: int, columns: str | None = None) -> dict[str, Any]:
    """Answer the first rows of a file with the model saved in a folder, count what is plainly wrong with the
    answers, and say it; return the counts of `faults.count_faults`.

    The answers go to answers/ in the folder, as src/generate.py writes them, the counts beside them.

    Raises:
        UserError: no row of the file makes a prompt, or the model cannot be loaded.
    """
    place = folder / ANSWERS
    options = GenerateOptions(
        model_name_or_path=str(folder),
        eval_file=file,
        output_dir=str(place),
        columns=columns,
        max_new_tokens=MAX_NEW_TOKENS,
        num_rows=rows,
        max_bad_rows=rows,
        overwrite_output=True,
    )
    counts = count_faults(respond(options)[0])
    write_json(place / COUNTS, counts)
    found = ", ".join(f"{number} {FAULTS[name]}" for name, number in counts["answers"].items() if number)
    logger.info("%s to rows of %s: %s", counted(counts["rows"], "answer"), file, found or "nothing wrong")
    for warning in fault_warnings(counts, "the answers"):
        logger.warning("%s", warning)
    return counts


def check_after_training(
    folder: Path, files: list[str], rows: int, columns: str | None, processes: int
) -> dict[str, Any] | None:
    """Check the answers of a model that was just saved, as `check_answers`; return None, having said why,
    where that is not possible. Whatever comes of it, the model is saved.

    Args:
        files: the first is answered; none for data of which there is no file.
    """
    again = f"{command('check_answers', folder)} --eval_file FILE"
    if not files:
        logger.info("answers are not checked: there is no file of rows; %s", again)
    elif processes > 1:
        logger.info("answers are not checked by several processes; afterwards: %s", again)
    else:
        try:
            return check_answers(folder, files[0], rows, columns)
        except UserError as error:
            logger.warning("the answers could not be checked: %s", error)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("the answers could not be checked beside the training: out of memory; %s", again)
    return None
