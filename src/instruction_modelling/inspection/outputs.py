"""What src/inspect_weights.py leaves: files, and lines on the terminal."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.files.whole import write_json, write_json_lines, write_text
from instruction_modelling.inspection.inspection import Inspection
from instruction_modelling.inspection.options import InspectionOptions
from instruction_modelling.progress import print_lines, say_written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.tokens.row_encoder import RowEncoder


def show(
    options: InspectionOptions,
    inspection: Inspection,
    tokenizer: "PreTrainedTokenizerBase",
    name: str,
    given: dict[str, Any],
) -> None:
    """Write the files that were asked for, and print the examples and the report.

    Args:
        name: the tokenizer's folder or hub name.
        given: every option, to be kept in an export.
    """
    from instruction_modelling.inspection.page import html_page
    from instruction_modelling.inspection.text import describe_settings, examples, report
    from instruction_modelling.inspection.warnings import find_warnings

    warnings = find_warnings(inspection, tokenizer, inspection.encoder)
    settings = describe_settings(inspection, name)
    rows = inspection.encoded[: options.num_examples]
    if options.output_file:
        write_json_lines(Path(options.output_file), inspection.records(), ascii_only=True)
    if options.summary_file:
        write_json(Path(options.summary_file), inspection.summary(warnings), ascii_only=True)
    if options.write_clean:
        from instruction_modelling.rows.clean import write_clean

        write_clean(Path(options.write_clean), [(inspection.file, inspection.bad_rows)])
    if options.export:
        from instruction_modelling.inspection.export import write_export

        chat_format = inspection.encoder.chat_format
        facts = {"tokenizer": name, "chat_format": chat_format.name, "template": chat_format.template}
        write_export(Path(options.export), inspection, facts | {"options": given})
    if options.html:
        write_text(Path(options.html), html_page(inspection, rows, tokenizer, settings, warnings))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print_lines([*examples(inspection, rows, tokenizer, colour), "", *report(inspection, settings, warnings)])
    say_written(options.output_file, options.summary_file, options.write_clean, options.export, options.html)


def show_format(
    options: InspectionOptions,
    encoder: "RowEncoder",
    tokenizer: "PreTrainedTokenizerBase",
    model: str | None,
    variables: str | None,
) -> None:
    """Print what the chat format does, and write it as JSON where --output_file is given.

    Args:
        model: the model's folder or hub name, whose own stop tokens are told too.
        variables: --chat_template_kwargs.
    """
    from instruction_modelling.chat.defaults import read_variables
    from instruction_modelling.inspection.format_description import describe_format
    from instruction_modelling.inspection.format_words import first_sentence, format_lines
    from instruction_modelling.models.stop_tokens import model_ends_of

    described = describe_format(
        encoder.chat_format, tokenizer, model_ends_of(model), read_variables(variables)
    )
    if options.output_file:
        write_json(
            Path(options.output_file), {"sentence": first_sentence(described)} | described, ascii_only=True
        )
    print_lines(format_lines(described))
    say_written(options.output_file)
