"""See what every token of a training file is and weighs, before training on it.

    python src/inspect_weights.py --train_file F.jsonl --tokenizer_name T --use_lm_loss
    python src/inspect_weights.py --train_file F.jsonl --tokenizer_name T --html page.html
    python src/inspect_weights.py --tokenizer_name T --describe_format

Takes every option of src/finetune.py, needs no model, and shows: a few rows token by token, in colour on a
terminal (NO_COLOR switches it off), and turn by turn: what the model sees, and what it must write; tokens,
tokens with a loss and the share of the loss of each span kind, under IT (loss on the response) and IM (loss
on the instruction too) side by side; lengths; and warnings.

The share of the loss of a kind is the sum of its tokens' coefficients over the sum of all, the whole file as
one step: under --loss_normalization example a token's coefficient is w/n of its row, so every row counts the
same; under square w/sqrt(n); under token and sum it is w. It is the kind's share of the loss if every token
had the same NLL.

The first token of a row is predicted by nothing: it is shown with the weight of its kind, but counts in no
total of tokens with a loss and in no share. With --use_lm_modelling every token weighs 1, and the totals are
over the blocks.

Rows that cannot be used are shown as dropped, with the reason. If they are more than --max_bad_rows,
everything is written all the same, and the exit code is 2.

--describe_format says instead, without any rows, what the chat format does with a chat.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.inspection.options import InspectionOptions
from instruction_modelling.options import FinetuneOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.inspection.inspection import Inspection
    from instruction_modelling.tokens.row_encoder import RowEncoder


@dataclass
class InspectOptions(FinetuneOptions, InspectionOptions):
    """Every option of src/inspect_weights.py."""

    model_name_or_path: str | None = field(default=None, metadata={"input": "model"})  # type: ignore[assignment]
    """Folder or hub name of the model, whose tokenizer is used where --tokenizer_name is not given."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        # A chat format is described without rows.
        given = replace(self, train_file=["-"], dataset_name=None) if self.describe_format else self
        problems = super(InspectOptions, given).check()
        if not (self.tokenizer_name or self.model_name_or_path):
            problems.append("give --tokenizer_name (or --model_name_or_path): weights are given to tokens")
        return [*problems, *self.inspection_problems(self.train_file)]


# Here only its default is another; in --help the flag stays in the group that declares it.
del InspectOptions.__annotations__["model_name_or_path"]


def main() -> int:
    """Inspect the file, or describe the chat format; write and print what was asked for."""
    options = parse_options(InspectOptions, also_check=missing_inputs)
    settings = options.with_recipe()

    from instruction_modelling.inspection.outputs import show, show_format
    from instruction_modelling.models.loading import load_tokenizer

    name = str(options.tokenizer_name or options.model_name_or_path)
    tokenizer = load_tokenizer(name, options.use_slow_tokenizer)
    encoder = encoder_of(settings, tokenizer)
    if options.describe_format:
        show_format(options, encoder, tokenizer, options.model_name_or_path, options.chat_template_kwargs)
        return 0

    from instruction_modelling.rows.conversations import check_bad_rows

    inspection = inspect(settings, encoder)
    show(options, inspection, tokenizer, name, settings.as_dict())
    check_bad_rows(inspection.file, options.max_bad_rows, inspection.data.refused)
    return 0


def encoder_of(options: FinetuneOptions, tokenizer: "PreTrainedTokenizerBase") -> "RowEncoder":
    """Return the encoder that training takes with these options."""
    from instruction_modelling.tokens.row_encoder import row_encoder

    return row_encoder(
        tokenizer,
        options.chat_format,
        options.max_seq_length,
        released=options.mask_style == "released",
        threads=options.preprocessing_num_workers,
        defaults=options.template_defaults(),
    )


def inspect(options: FinetuneOptions, encoder: "RowEncoder") -> "Inspection":
    """Read, render and tokenise the rows as training does."""
    from instruction_modelling.inspection.inspection import LossArm, inspect_file
    from instruction_modelling.rows.conversations import read_conversations

    file = read_conversations(options.training_files(), options.columns)
    block_size = (options.block_size or options.max_seq_length) if options.use_lm_modelling else None
    loss = options.loss_normalization, options.loss_denominator
    keep, groups = options.blocks_keep_weights(), options.released_groups()
    arm = LossArm(options.arm(), options.policy(), *loss, block_size, keep, groups)
    return inspect_file(file, encoder, arm, options.text_factors(), options.overlong)


if __name__ == "__main__":
    run_main(main)
