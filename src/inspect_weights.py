"""See what every token of a training file is and weighs, before training on it.

    python src/inspect_weights.py --train_file F.jsonl --tokenizer_name T --use_lm_loss
    python src/inspect_weights.py --train_file F.jsonl --tokenizer_name T --html page.html

Takes every option of src/finetune.py, needs no model, and shows: a few rows token by token, in colour on a
terminal (NO_COLOR switches it off); tokens, tokens with a loss and the share of the loss of each span kind,
under IT (loss on the response) and IM (loss on the instruction too) side by side; lengths; and warnings.

The share of the loss of a kind is the sum of its tokens' coefficients over the sum of all, the whole file as
one step: under --loss_normalization example a token's coefficient is w/n of its row, so every row counts the
same; under token and sum it is w. It is the kind's share of the loss if every token had the same NLL.

The first token of a row is predicted by nothing: it is shown with the weight of its kind, but counts in no
total of tokens with a loss and in no share. With --use_lm_modelling every token weighs 1, and the totals are
over the blocks.

Rows that cannot be used are shown as dropped, with the reason. If they are more than --max_bad_rows,
everything is written all the same, and the exit code is 2.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.options import FinetuneOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.inspection.inspection import Inspection
    from instruction_modelling.tokens.row_encoder import RowEncoder


@dataclass
class InspectionOptions:
    """Inspection."""

    num_examples: int = 2
    """Rows to show token by token, the first ones of the file."""
    html: str | None = None
    """Write a page with the totals and these rows to this file: one HTML file, for any browser."""
    output_file: str | None = None
    """Write a JSON line for every row to this file: row, id, text, dropped, and id, start, end, kind and
    weight of each token (start and end are characters of the text)."""
    summary_file: str | None = None
    """Write the totals, lengths, warnings and shares of the loss to this file, as JSON."""
    write_clean: str | None = None
    """Write the rows that can be used to this file: JSON Lines of messages, with tools, ids and weights."""


@dataclass
class InspectOptions(FinetuneOptions, InspectionOptions):
    """Every option of src/inspect_weights.py."""

    model_name_or_path: str | None = None  # type: ignore[assignment]
    """Folder or hub name of the model, whose tokenizer is used where --tokenizer_name is not given."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = super().check()
        if not (self.tokenizer_name or self.model_name_or_path):
            problems.append("give --tokenizer_name (or --model_name_or_path): weights are given to tokens")
        if self.num_examples < 0:
            problems.append(f"--num_examples {self.num_examples}: must be 0 or more")
        taken = {Path(self.train_file).resolve(): "--train_file"} if self.train_file else {}
        for name in ("html", "output_file", "summary_file", "write_clean"):
            value = getattr(self, name)
            if value is None:
                continue
            other = taken.setdefault(Path(value).resolve(), f"--{name}")
            if other != f"--{name}":
                problems.append(f"--{name} {value}: is the file of {other} too; choose another name")
        return problems


# Here only its default is another; in --help the flag stays in the group that declares it.
del InspectOptions.__annotations__["model_name_or_path"]


def main() -> int:
    """Inspect the file, write and print what was asked for, and refuse it where too many rows are bad."""
    options = parse_options(InspectOptions)
    settings = options.with_recipe()

    from instruction_modelling.rows.conversations import check_bad_rows

    inspection, tokenizer, encoder = inspect(settings)
    show(options, inspection, tokenizer, encoder)
    check_bad_rows(inspection.file, options.max_bad_rows, inspection.data.refused)
    return 0


def inspect(options: FinetuneOptions) -> "tuple[Inspection, PreTrainedTokenizerBase, RowEncoder]":
    """Read, render and tokenise the rows as training does."""
    from instruction_modelling.inspection.inspection import LossArm, inspect_file
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.rows.conversations import read_conversations
    from instruction_modelling.tokens.row_encoder import TemplateDefaults, row_encoder

    file = read_conversations(options.rows_name(), options.columns)
    tokenizer = load_tokenizer(
        options.tokenizer_name or options.model_name_or_path, options.use_slow_tokenizer
    )
    encoder = row_encoder(
        tokenizer,
        options.chat_format,
        options.max_seq_length,
        released=options.mask_style == "released",
        threads=options.preprocessing_num_workers,
        defaults=TemplateDefaults.read(options.chat_template_kwargs),
    )
    block_size = (options.block_size or options.max_seq_length) if options.use_lm_modelling else None
    loss = options.loss_normalization, options.loss_denominator
    keep, groups = options.blocks_keep_weights(), options.released_groups()
    arm = LossArm(options.arm(), options.policy(), *loss, block_size, keep, groups)
    return inspect_file(file, encoder, arm), tokenizer, encoder


def show(
    options: InspectOptions,
    inspection: "Inspection",
    tokenizer: "PreTrainedTokenizerBase",
    encoder: "RowEncoder",
) -> None:
    """Write the files that were asked for, and print the examples and the report."""
    from instruction_modelling.files.whole import write_json, write_json_lines, write_text
    from instruction_modelling.inspection.page import html_page
    from instruction_modelling.inspection.text import describe_settings, examples, report
    from instruction_modelling.inspection.warnings import find_warnings

    warnings = find_warnings(inspection, tokenizer, encoder)
    name = str(options.tokenizer_name or options.model_name_or_path)
    settings = describe_settings(inspection.arm, encoder, name)
    rows = inspection.encoded[: options.num_examples]
    if options.output_file:
        write_json_lines(Path(options.output_file), inspection.records(), ascii_only=True)
    if options.summary_file:
        write_json(Path(options.summary_file), inspection.summary(warnings), ascii_only=True)
    if options.write_clean:
        from instruction_modelling.rows.clean import write_clean

        write_clean(Path(options.write_clean), [(inspection.file, inspection.data.refused)])
    if options.html:
        write_text(Path(options.html), html_page(inspection, rows, tokenizer, settings, warnings))
    # A terminal that is not UTF-8 shows other signs rather than none.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for line in (*examples(inspection, rows, tokenizer, colour), "", *report(inspection, settings, warnings)):
        print(line)


if __name__ == "__main__":
    run_main(main)
