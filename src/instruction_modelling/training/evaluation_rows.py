"""The rows of --eval_file, whose loss is measured while training."""

from instruction_modelling.options import FinetuneOptions
from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.overlong import leave_out_overlong
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.training.row_losses import check_responses


def evaluation_rows(options: FinetuneOptions, encoder: RowEncoder) -> EncodedData | None:
    """Return the rows of --eval_file, encoded as the training rows are; None where there is no such file.

    Raises:
        UserError: more rows than --max_bad_rows cannot be used, one is too long under --overlong error, or
            none has a response to measure.
    """
    if not options.eval_file:
        return None
    file = read_conversations(options.eval_file, options.columns, keep=False)
    rows = encode_file(file, encoder)
    check_bad_rows(file, options.max_bad_rows, rows.refused)
    rows, _ = leave_out_overlong(rows, file, options.overlong, options.max_seq_length)
    check_responses(options.eval_file, rows)
    return rows
