"""What would stop a comparison, looked for before any model is made."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.row_sets import RowChoice, TrainAndTest
from instruction_modelling.errors import UserError
from instruction_modelling.generation.prompts import PromptLimits, PromptMaker, make_prompts
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import Conversation, read_conversations

logger = logging.getLogger(__name__)


def row_choice(options: ComparisonOptions) -> RowChoice:
    """Return the choice of rows that the options ask for, with the model's tokenizer.

    Raises:
        UserError: the tokenizer or the chat format cannot be used.
    """
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.tokens.row_encoder import row_encoder

    tokenizer = load_tokenizer(options.model_name_or_path)
    encoder = row_encoder(tokenizer, options.chat_format, options.max_seq_length)
    return RowChoice(encoder, options.row_set, options.max_bad_rows, options.columns)


def check_lengths(options: ComparisonOptions, sets: Sequence[TrainAndTest]) -> None:
    """Compare rows and prompts with what the model can take, by its configuration alone.

    Raises:
        UserError: rows are longer than the model has positions for, or no prompt of a file fits.
    """
    from instruction_modelling.models.loading import load_outline, load_tokenizer
    from instruction_modelling.models.positions import check_positions, positions_of

    outline = load_outline(options.model_name_or_path)
    positions = None
    if outline is not None:
        check_positions(outline, [files.longest for files in sets])
        positions = positions_of(outline)[0]
    maker = PromptMaker(load_tokenizer(options.model_name_or_path), options.chat_format, None)
    limits = PromptLimits(options.max_seq_length, options.max_new_tokens, positions)
    for files in sets:
        for part, path, count in (
            ("train", files.train, options.train_responses),
            ("test", files.test, options.test_responses),
        ):
            if count != 0:
                _check_prompts(maker, limits, path, count, f"--{part}_responses")


def with_evaluation(options: ComparisonOptions, sets: Sequence[TrainAndTest]) -> list[TrainAndTest]:
    """Return the files of each comparison with the rows that are measured while it trains.

    Raises:
        UserError: a test row says what one of them says: weights that were chosen by test rows look better on
            them than they are.
    """
    if not options.eval_file:
        return list(sets)
    for name, files in zip(options.eval_file, sets, strict=True):
        held = {_said(row): row for row in read_conversations(files.test).conversations}
        file = read_conversations(name, options.columns)
        shared = [row for row in file.conversations if _said(row) in held]
        if shared:
            raise UserError(
                f"--eval_file {name}: {counted(len(shared), 'row')} of it ({file.place(shared[0])} is the "
                f"first) would be tested on too, in {files.test}: weights that are chosen by test rows look "
                "better on them than they are; take rows that are neither trained nor tested on"
            )
    return [
        replace(files, evaluation=Path(name)) for name, files in zip(options.eval_file, sets, strict=True)
    ]


def _said(row: Conversation) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.text) for message in row.messages)


def _check_prompts(
    maker: PromptMaker, limits: PromptLimits, path: Path, count: int | None, flag: str
) -> None:
    """Warn of prompts of the first `count` rows (None: of all) that are too long.

    Raises:
        UserError: all of them are.
    """
    rows = [row for row in read_conversations(path).conversations if count is None or row.row < count]
    prompts, refused = make_prompts(rows, maker, limits)
    if refused and not prompts:
        raise UserError(
            f"{path}: not one prompt of {counted(len(rows), 'row')} can be answered: {refused[0].reason}: "
            f"{refused[0].detail}; change that, or ask for no responses: {flag} 0"
        )
    if refused:
        logger.warning(
            "%s: %d of %d prompts get no response, of any model (%s: %s)",
            path,
            len(refused),
            len(rows),
            refused[0].reason,
            refused[0].detail,
        )
