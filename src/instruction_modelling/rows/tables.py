"""Tables of rows: Parquet, Arrow, CSV and TSV files, data sets saved to disk and data sets of the hub.

Every function yields (1-based row, columns) or (row, `RowRefused` or `BLANK`)."""

import csv
import datetime
import decimal
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from instruction_modelling.errors import UserError
from instruction_modelling.hub import not_asked, why_no_answer
from instruction_modelling.rows.json_lines import BLANK, RowRefused

if TYPE_CHECKING:
    import pyarrow as pa

# Columns of a CSV file whose cells are JSON, or nothing where the cell is blank; all others are text.
_JSON_CELLS = ("weight", "loss_weight", "loss_scale")
_OPTIONAL_CELLS = (*_JSON_CELLS, "history", "tools", "functions", "chat_template_kwargs", "id", "dataset")
_SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?):(?P<config>[^:/]*)(:(?P<split>.+))?")
_HUB_FORM = "NAME:CONFIG:SPLIT (NAME: alone for its only configuration and its split train)"


def plain_value(value: Any) -> Any:
    """Return a cell of a table as a JSON value: dates and decimals as strings, pairs of a map as lists."""
    if isinstance(value, dict):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return str(value)
    return value


def parquet_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a Parquet file."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        yield from _numbered(_decoded(file.iter_batches(), file.schema_arrow))


def arrow_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of an Arrow file, of either of its two forms."""
    import pyarrow as pa

    # Not mapped into memory: a file that is cut short while it is read would kill the process.
    with pa.OSFile(str(path), "rb") as source:
        in_file_form = source.read(6) == b"ARROW1"
        source.seek(0)
        if in_file_form:
            file = pa.ipc.open_file(source)
            batches: Iterable[pa.RecordBatch] = map(file.get_batch, range(file.num_record_batches))
        else:
            file = batches = pa.ipc.open_stream(source)
        yield from _numbered(_decoded(map(_checked, batches), file.schema))


def _checked(batch: Any) -> Any:
    """Return a batch whose offsets were checked: pyarrow reads outside its memory where they are damaged."""
    batch.validate(full=True)
    return batch


def _decoded(batches: "Iterable[pa.RecordBatch]", schema: "pa.Schema") -> Iterator[Any]:
    """Yield each row of record batches; columns of the type Json of the datasets library as their values."""
    features = None
    if "arrow.json" in str(schema):
        from datasets import Features

        features = Features.from_arrow_schema(schema)
    for batch in batches:
        for row in batch_rows(batch):
            yield features.decode_example(row) if features and isinstance(row, dict) else row


def batch_rows(batch: Any) -> list[Any]:
    """Return the rows of a record batch; a `RowRefused` for one with text that is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            detail = f"byte {error.start + 1} of a text is 0x{error.object[error.start]:02x}"
            return [RowRefused("not UTF-8", detail)]
        return [value for row in range(batch.num_rows) for value in batch_rows(batch.slice(row, 1))]


def _numbered(rows: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    for number, row in enumerate(rows, start=1):
        yield number, plain_value(row)


def csv_values(
    handle: BinaryIO, path: Path, delimiter: str, lines_before: int = 0
) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a file of cells separated by `delimiter`; its first line names the columns.

    Cells are text; `weight`, `loss_weight` and `loss_scale` are numbers.

    Args:
        lines_before: lines of the file that were read already.

    Raises:
        UserError: two columns have one name, a quote is never closed, or the text is not UTF-8.
    """
    # A cell of the library's default of 131,072 characters would be an error.
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    begins = 1
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise UserError(f"{path}:{lines_before + 1}: two columns have the same name; rename one")
        begins = reader.line_num + 1
        for number, cells in enumerate(reader, start=1):
            begins = reader.line_num + 1
            if len(cells) == len(names):
                yield number, _row_of_cells(dict(zip(names, cells, strict=True)))
            elif not cells:
                yield number, BLANK
            else:
                sign = _SIGNS.get(delimiter, repr(delimiter))
                detail = (
                    f"the row has {len(cells)} cells, the first line {len(names)}; quote cells with {sign}"
                )
                yield number, RowRefused("wrong number of cells", detail)
    except csv.Error as error:
        at, begins = reader.line_num + lines_before, begins + lines_before
        of = f" of the row that begins in line {begins}" if begins < at else ""
        raise UserError(f"{path}:{at}: {error}{of}; write quotes inside a cell twice") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is not UTF-8; save it as UTF-8 (in a spreadsheet, CSV UTF-8; or iconv -f WINDOWS-1252 "
            "-t UTF-8)"
        ) from None
    finally:
        # Else the wrapper closes the handle, which is not its own.
        text.detach()


def _row_of_cells(cells: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {k: v for k, v in cells.items() if v.strip() or k not in _OPTIONAL_CELLS}
    for name in _JSON_CELLS:
        if name in row:
            try:
                row[name] = json.loads(row[name])
            except ValueError:
                # Refused as what it is: text where a number must be.
                continue
    return row


def is_saved_set(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk` of the datasets library."""
    is_one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return is_one or (folder / "dataset_dict.json").is_file()


def saved_set_values(folder: Path, split: str | None) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a data set that was written by `save_to_disk`.

    Raises:
        UserError: it cannot be loaded, or has several splits and none of them is asked for.
    """
    import datasets

    with _loading(str(folder)):
        loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.DatasetDict):
        loaded = loaded[pick_split(folder, list(map(str, loaded)), split)]
    elif split not in (None, "train"):
        raise UserError(f"{folder}: has no splits; leave out {split!r}")
    yield from _numbered(loaded)


def pick_split(folder: Path, splits: list[str], split: str | None) -> str:
    """Return the split to read: the one asked for, else train, else the only one.

    Raises:
        UserError: there is no such split, or it must be said which.
    """
    wanted = split or (splits[0] if len(splits) == 1 else "train")
    if wanted not in splits:
        known = ", ".join(splits)
        raise UserError(f"{folder}: has the splits {known}; name one of them, {folder}::{splits[0]}")
    return wanted


def hub_name(name: str) -> tuple[str, str | None, str] | None:
    """Return the data set, configuration and split that a name of the form NAME:CONFIG:SPLIT stands for; None
    where it is of another form."""
    match = _HUB_NAME.fullmatch(name)
    return (match["name"], match["config"] or None, match["split"] or "train") if match else None


def data_set_name(name: str, config: str | None) -> str:
    """Return the name, as a file of rows has one, of the training split of a data set of the hub, or of a
    folder."""
    return f"{name}:{config or ''}:train"


def hub_values(name: str, config: str | None, split: str) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a data set of the hub, by the datasets library.

    Raises:
        UserError: the library cannot load it.
    """
    import datasets

    # Where the hub does not answer, the library has what it kept of the data set.
    why = None if Path(name).is_dir() else why_no_answer(name, "dataset")
    with _loading(":".join([name, config or "", split]), why), not_asked() if why else nullcontext():
        loaded = datasets.load_dataset(name, config, split=split)
    yield from _numbered(loaded)


@contextmanager
def _loading(name: str, why: str | None = None) -> Iterator[None]:
    """Turn whatever the datasets library raises into a `UserError` about the named data set; `why` says it
    where that is known before."""
    try:
        yield
    except Exception as error:
        first = why or (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: cannot be loaded: {first}; check the name, which has the form {_HUB_FORM}, and the "
            "network, or save the data set as JSON Lines"
        ) from error
