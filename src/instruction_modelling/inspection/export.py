"""What is trained on as a Parquet file, for other trainers: ids, labels and loss weights of every sequence.

A line is one sequence; a row that becomes several (`part`) is still one example of the loss. Position t of
every list is token t: labels are not shifted, as transformers takes them, which holds the logits of position
t - 1 against the label of position t. A label is the token's id where the token has a loss weight, else -100;
the first token of a sequence, which nothing predicts, weighs 0."""

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.files.whole import whole_file
from instruction_modelling.inspection.inspection import Inspection, weigh_for
from instruction_modelling.tokens.weighted import WeightedData, count_reasons

if TYPE_CHECKING:
    import pyarrow

IGNORED = -100
METADATA_KEY = "instruction_modelling"
# Sequences that are written together: as many tokens as fit easily into memory.
_AT_ONCE = 1024


def write_export(path: Path, inspection: Inspection, facts: dict[str, Any]) -> int:
    """Write every sequence that the arm trains on to a Parquet file, and return how many.

    Args:
        facts: how the file was made (tokenizer, chat format, options), kept in the schema's metadata.

    Raises:
        UserError: the file cannot be written; what was there before is untouched.
    """
    import pyarrow
    from pyarrow import parquet

    weighted, _ = weigh_for(inspection.data, inspection.arm)
    about = {
        "file": str(inspection.file.path),
        "sha256": inspection.file.sha256,
        "rows": inspection.file.rows,
        "examples": len(weighted.data),
        "dropped": count_reasons(inspection.dropped.values()),
        "ignored_label": IGNORED,
        "labels_shifted": False,
        **facts,
    }
    schema = _schema().with_metadata({METADATA_KEY: json.dumps(about)})
    sequences, count = _sequences(weighted), 0
    with whole_file(path) as handle, parquet.ParquetWriter(_Sink(handle), schema) as writer:
        while some := list(islice(sequences, _AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema=schema))
            count += len(some)
    return count


class _Sink(io.RawIOBase):
    """Gives to a file what pyarrow writes; the file stays open when pyarrow has ended."""

    def __init__(self, handle: BinaryIO):
        self._handle = handle

    def writable(self) -> bool:
        """Return True, which pyarrow asks for."""
        return True

    def write(self, piece: Any) -> int:
        """Write one piece."""
        return self._handle.write(bytes(piece))


def _schema() -> "pyarrow.Schema":
    import pyarrow

    return pyarrow.schema(
        [
            ("row", pyarrow.int64()),
            ("part", pyarrow.int32()),
            ("id", pyarrow.string()),
            ("dataset", pyarrow.string()),
            ("input_ids", pyarrow.list_(pyarrow.int32())),
            ("labels", pyarrow.list_(pyarrow.int32())),
            ("loss_weights", pyarrow.list_(pyarrow.float32())),
            ("kinds", pyarrow.list_(pyarrow.string())),
            ("messages", pyarrow.list_(pyarrow.int32())),
            ("owned", pyarrow.list_(pyarrow.bool_())),
        ]
    )


def _sequences(weighted: WeightedData) -> Iterator[dict[str, Any]]:
    """Yield each sequence as a line of the file, in the data's order."""
    data, names = weighted.data, np.array(KIND_NAMES, dtype=object)
    for index in range(len(data)):
        for part, sequence in enumerate(data.sequences_of(index)):
            span = data.sequence_span(sequence)
            weights, ids = weighted.weights[span], data.ids[span]
            yield {
                "row": int(data.rows[index]),
                "part": part,
                "id": data.row_ids[index],
                "dataset": data.datasets[index] if len(data.datasets) == len(data) else None,
                "input_ids": ids,
                "labels": np.where(weights != 0, ids, IGNORED).astype(np.int32),
                "loss_weights": weights,
                "kinds": names[data.kinds[span]],
                "messages": data.messages[span].astype(np.int32),
                "owned": data.owned[span],
            }
