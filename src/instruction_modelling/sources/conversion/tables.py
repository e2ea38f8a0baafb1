"""Rows of tables: Parquet files and Excel sheets."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from instruction_modelling.errors import UserError
from instruction_modelling.rows.tables import batch_rows


def open_parquet(raw: BinaryIO, path: Path) -> Any:
    """Return a Parquet file as pyarrow opens it.

    Raises:
        UserError: the file is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(raw)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def parquet_rows(raw: BinaryIO, path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (1-based row, value or `RowRefused`) of a Parquet file.

    Raises:
        UserError: the file is damaged.
    """
    import pyarrow

    row = 0
    try:
        for batch in open_parquet(raw, path).iter_batches(batch_size=1024):
            for value in batch_rows(batch):
                row += 1
                yield row, value
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: the Parquet file is damaged ({error}); download it again")


def sheet_rows(raw: BinaryIO, path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (1-based row, value) of the first sheet under its first row, which names the columns; empty cells
    are null, and rows of them are passed over.

    Raises:
        UserError: the file is damaged.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        table = (
            openpyxl.load_workbook(raw, read_only=True, data_only=True)
            .worksheets[0]
            .iter_rows(values_only=True)
        )
        names = [str(name) for name in next(table, ())]
        for row, cells in enumerate(table, start=1):
            if any(cell is not None for cell in cells):
                yield row, dict(zip(names, cells, strict=False))
    except (
        InvalidFileException,
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:
        # What the library makes of a damaged sheet is any of these.
        raise UserError(
            f"{path}: is not an Excel sheet that can be read ({error}); download it again"
        ) from None
