"""Encoded rows put end to end as they come: in memory, or straight into files that are mapped afterwards."""

import json
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence, EncodingCounts, count_rows
from instruction_modelling.tokens.row_values import Named, Stretches, text

# The numbers and names that are no arrays.
REST = "rest.json"
_ARRAYS: dict[str, npt.DTypeLike] = {
    "ids": np.int32,
    "kinds": np.int8,
    "messages": np.int16,
    "positions": np.int32,
    "owned": np.bool_,
    "rows": np.int64,
    "tokens_cut": np.int64,
}
# Where stretches of other arrays begin and end.
_OFFSETS = (
    "offsets",
    "sequence_offsets",
    "first_sequence",
    "id_offsets",
    "message_offsets",
    "changed_offsets",
)
# Of rows, of messages or of bytes.
_OF_ROWS: dict[str, npt.DTypeLike] = {
    "id_bytes": np.uint8,
    "datasets": np.int32,
    "roles": np.uint8,
    "message_weights": np.float64,
    "changed": np.int32,
}
# Arrays that not all data have, with the value of a token of a row without them.
_OPTIONAL: dict[str, tuple[npt.DTypeLike, int]] = {"released": (np.uint8, 0), "factors": (np.float32, 1)}


class Collector:
    """Takes encoded rows one after another. What it holds beside their arrays is a name for each data set and
    role, and the refused rows."""

    def __init__(self, folder: Path | None = None):
        """Write arrays to files `NAME.npy` of a folder; without one, into memory."""
        self._folder = folder
        kinds = {**_ARRAYS, **_OF_ROWS, **dict.fromkeys(_OFFSETS, np.int64)}
        self._columns = {name: self._column(name, dtype) for name, dtype in kinds.items()}
        self._ends = dict.fromkeys(_OFFSETS, 0)
        for name in _OFFSETS:
            self._columns[name].add([0])
        self._datasets: dict[str, int] = {}
        self._roles: dict[str, int] = {}
        self._refused: list[BadRow] = []
        self._counts: Counter[str] = Counter()

    def _column(self, name: str, dtype: npt.DTypeLike) -> "_Column":
        return _Column(np.dtype(dtype), self._folder and self._folder / f"{name}.npy")

    def add(self, item: EncodedRow | BadRow) -> None:
        """Take in a row, or one that could not be encoded.

        Raises:
            OSError: a file cannot be written.
        """
        if isinstance(item, BadRow):
            self._refused.append(item)
            return
        row, columns = item.conversation, self._columns
        for sequence in item.sequences:
            self._add_sequence(sequence)
        self._end("offsets", item.length)
        self._end("first_sequence", len(item.sequences))
        columns["rows"].add([row.row])
        name = np.frombuffer(row.id.encode("utf-8", "surrogatepass"), dtype=np.uint8)
        columns["id_bytes"].add(name)
        self._end("id_offsets", len(name))
        columns["datasets"].add([self._datasets.setdefault(row.dataset, len(self._datasets))])
        columns["roles"].add([self._roles.setdefault(m.role, len(self._roles)) for m in row.messages])
        columns["message_weights"].add([message.weight for message in row.messages])
        self._end("message_offsets", len(row.messages))
        columns["changed"].add(item.changed_messages)
        self._end("changed_offsets", len(item.changed_messages))
        self._counts.update(vars(count_rows([item])))

    def _add_sequence(self, sequence: EncodedSequence) -> None:
        columns, before, length = self._columns, self._ends["sequence_offsets"], len(sequence.kinds)
        columns["ids"].add(sequence.tokens.ids)
        for name in ("kinds", "messages", "positions", "owned"):
            columns[name].add(getattr(sequence, name))
        columns["tokens_cut"].add([sequence.tokens_cut])
        for name, (dtype, usual) in _OPTIONAL.items():
            values = getattr(sequence, name)
            if values is not None and name not in columns:
                columns[name] = self._column(name, dtype)
                columns[name].repeat(usual, before)
            if name in columns:
                columns[name].add(np.full(length, usual) if values is None else values)
        self._end("sequence_offsets", length)

    def _end(self, name: str, length: int) -> None:
        self._ends[name] += length
        self._columns[name].add([self._ends[name]])

    def _rest(self) -> dict[str, Any]:
        return {
            "arrays": list(self._columns),
            "datasets": list(self._datasets),
            "roles": list(self._roles),
            "refused": [[b.row, b.line, b.id, b.reason, b.detail] for b in self._refused],
            "counts": dict(self._counts),
        }

    def data(self) -> EncodedData:
        """Return the rows, collected in memory."""
        return _data({name: column.array() for name, column in self._columns.items()}, self._rest())

    def write(self) -> None:
        """End the files of the folder, which `mapped` then reads.

        Raises:
            OSError: they cannot be written.
        """
        assert self._folder is not None
        for column in self._columns.values():
            column.end()
        (self._folder / REST).write_text(json.dumps(self._rest()), encoding="utf-8")


def collect(encoded: Iterable[EncodedRow | BadRow]) -> EncodedData:
    """Return encoded rows as flat arrays in memory, the refused ones listed."""
    collector = Collector()
    for item in encoded:
        collector.add(item)
    return collector.data()


def mapped(folder: Path) -> EncodedData:
    """Return the rows that a `Collector` wrote to a folder, their arrays mapped from its files."""
    rest = json.loads((folder / REST).read_text(encoding="utf-8"))
    # A plain array over the map: slices of `numpy.memmap` itself cost several times as much.
    arrays = {
        name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        for name in rest["arrays"]
    }
    return _data(arrays, rest)


def _data(arrays: dict[str, np.ndarray], rest: dict[str, Any]) -> EncodedData:
    roles = rest["roles"]
    messages = arrays["message_offsets"]
    return EncodedData(
        **{name: arrays[name] for name in (*_ARRAYS, "offsets", "sequence_offsets", "first_sequence")},
        released=arrays.get("released"),
        factors=arrays.get("factors"),
        row_ids=Stretches(arrays["id_bytes"], arrays["id_offsets"], text),
        datasets=Named(arrays["datasets"], rest["datasets"]),
        message_roles=Stretches(arrays["roles"], messages, lambda codes: [roles[code] for code in codes]),
        message_weights=Stretches(arrays["message_weights"], messages, np.ndarray.tolist),
        changed_messages=Stretches(arrays["changed"], arrays["changed_offsets"], np.ndarray.tolist),
        refused=[BadRow(*bad) for bad in rest["refused"]],
        counts=EncodingCounts(**rest["counts"]),
    )


class _Column:
    """One array, of one dimension, that grows; with a path it is a file as `numpy.save` writes it."""

    def __init__(self, dtype: np.dtype[Any], path: Path | None):
        self._dtype, self._path = dtype, path
        self._handle: BinaryIO = path.open("wb", buffering=2**18) if path else BytesIO()
        self._length = 0
        if path:
            self._write_header()

    def _write_header(self) -> None:
        """Write the header, whose size does not depend on the length: numpy leaves room for its digits."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length,),
        }
        np.lib.format.write_array_header_1_0(self._handle, header)

    def add(self, values: npt.ArrayLike) -> None:
        """Append values."""
        array = np.asarray(values, dtype=self._dtype)
        self._length += len(array)
        self._handle.write(array.tobytes())

    def repeat(self, value: int, count: int) -> None:
        """Append a value so many times."""
        for start in range(0, count, 2**20):
            self.add(np.full(min(2**20, count - start), value))

    def array(self) -> np.ndarray:
        """Return what was appended, in memory."""
        assert isinstance(self._handle, BytesIO)
        return np.frombuffer(self._handle.getbuffer(), dtype=self._dtype)

    def end(self) -> None:
        """Write the length into the file and close it."""
        self._handle.seek(0)
        self._write_header()
        self._handle.close()
