"""What is said of each row in words or in numbers of any count (its id, the roles of its messages), kept as
flat arrays, which can be mapped from a file: an object for every row of millions would fill the memory."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np

Value = TypeVar("Value")


class RowValues(Sequence[Value]):
    """A value for each row, made when it is asked for; equal to a list of the same values."""

    @abstractmethod
    def value(self, index: int) -> Value:
        """Return the value of row `index`, 0 or more."""

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: int | slice) -> Value | list[Value]:
        """Return the value of a row, or those of several."""
        if isinstance(index, slice):
            return [self.value(row) for row in range(len(self))[index]]
        return self.value(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Stretches(RowValues[Value]):
    """Row i has what `read` makes of values[offsets[i]:offsets[i+1]]."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray, read: Callable[[np.ndarray], Value]):
        """Take any values, and int64[rows + 1]."""
        self.values, self.offsets, self._read = values, offsets, read

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def value(self, index: int) -> Value:
        """Return the value of row `index`."""
        return self._read(self.values[self.offsets[index] : self.offsets[index + 1]])


class Named(RowValues[str]):
    """Row i has the name numbered codes[i]."""

    def __init__(self, codes: np.ndarray, names: Sequence[str]):
        """Take int32[rows] and the names."""
        self.codes, self.names = codes, names

    def __len__(self) -> int:
        return len(self.codes)

    def value(self, index: int) -> str:
        """Return the name of row `index`."""
        return self.names[self.codes[index]]


class Chosen(RowValues[Any]):
    """Some rows of others' values: row i has that of row rows[i]."""

    def __init__(self, values: Sequence[Any], rows: np.ndarray):
        """Take the values, and int64[m]."""
        self._values: Sequence[Any] = values._values if isinstance(values, Chosen) else values
        self._rows: np.ndarray = values._rows[rows] if isinstance(values, Chosen) else rows

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, index: int) -> Any:
        """Return the value of row `index`."""
        return self._values[int(self._rows[index])]


def text(utf_8: np.ndarray) -> str:
    """Return the text of bytes, uint8[n]; a stranger's may hold half a surrogate pair."""
    return utf_8.tobytes().decode("utf-8", "surrogatepass")
