"""A model's responses to the instructions of a file.

    python src/generate.py --model_name_or_path output/it --eval_file data/sample/brief_answers_test.jsonl \\
        --output_dir output/it/eval/test

A row's prompt is everything before its last assistant message, rendered and encoded as in training; that
message is the reference. A row that ends with another role is a prompt as a whole and has no reference. A
response ends at the chat format's end token or one of the model's own; nothing else of the model's generation
config is used.

Writes responses.jsonl, a line per row, and generation.json, how they were made. A stopped run goes on where
it was when the same command is given again. Runs on the GPU if there is one, else on the CPU. """

import logging
import sys
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.generation.respond import GenerateOptions, respond
from instruction_modelling.generation.responses import RESPONSES
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.progress import duration
from instruction_modelling.quiet import silence_libraries

logger = logging.getLogger("generate")


def main() -> int:
    """Read the options, answer the rows, and say in a few words what was made."""
    options = parse_options(GenerateOptions, also_check=missing_inputs)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    silence_libraries()
    try:
        responses, seconds = respond(options)
    except KeyboardInterrupt:
        logger.info(
            "stopped; the answers so far are kept in %s: the same command goes on from there",
            options.output_dir,
        )
        return 130
    tokens = sum(response.tokens or 0 for response in responses)
    logger.info(
        "%d responses in %s: %d ended by themselves, %.1f tokens on average, %s",
        len(responses),
        Path(options.output_dir) / RESPONSES,
        sum(bool(response.finished) for response in responses),
        tokens / max(1, len(responses)),
        duration(seconds),
    )
    return 0


if __name__ == "__main__":
    run_main(main, goes_on=True)
