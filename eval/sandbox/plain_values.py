"""Values between the process that runs a candidate and the one that checks it, as plain data alone.

What arrives is built from the types below and nothing else, whatever was sent: no object of the candidate's,
with methods of its own, ever reaches the checks. This file is read as text and run in both processes; it
imports nothing of the project."""

import _json
from _collections import deque
from typing import Any, BinaryIO

# What json and collections are made of: importing those, with re and enum, would be half of a process's
# start.
_to_text = _json.make_encoder(None, str, _json.encode_basestring_ascii, None, ": ", ", ", False, False, False)
LONGEST_MESSAGE = 16 * 2**20
MOST_ITEMS = 10**6


class Opaque:
    """Stands for an object that is none of these: as true or false as it was, equal to nothing, and of no
    other use."""

    def __init__(self, true: bool):
        self._true = true

    def __bool__(self) -> bool:
        return self._true


class BadMessage(Exception):
    """What came is not a value."""


class Reading:
    """How messages are read: as JSON, without its numbers that are none."""

    strict, object_hook, object_pairs_hook, parse_float, parse_int = True, None, None, float, int

    @staticmethod
    def parse_constant(name: str) -> Any:
        """Raise ValueError: NaN and the infinities are no JSON."""
        raise ValueError(name)


_from_text = _json.make_scanner(Reading)  # type: ignore[arg-type]


class Ended(Exception):
    """The other process is gone."""


def encode(value: Any, depth: int = 0) -> Any:  # noqa: C901, PLR0912 (a test a kind, subclasses first)
    """Return the value as JSON data; what is of no known kind becomes opaque. Subclasses become what they
    are made of."""
    if depth > 200:
        raise BadMessage("nested too deeply")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        value = int.__index__(value)
        return value if -(2**53) < value < 2**53 else {"i": f"{value:x}"}
    if isinstance(value, float):
        return {"f": float.__float__(value).hex()}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return {"a" if isinstance(value, bytearray) else "b": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, dict):
        return {"d": [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in dict.items(value)]}
    for kind, name in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z"), (deque, "q")):
        if isinstance(value, kind):
            return {name: [encode(item, depth + 1) for item in value]}
    if isinstance(value, range):
        return {"r": [encode(value.start), encode(value.stop), encode(value.step)]}
    home = type(value).__module__
    if home == "numpy" and hasattr(value, "tolist") and value.dtype.kind in "biufU":
        return {"y": [value.dtype.str, encode(value.tolist(), depth + 1), list(value.shape)]}
    if hasattr(value, "__next__") or (
        home == "builtins" and type(value).__name__ in ("dict_keys", "dict_values", "dict_items")
    ):
        items: list[Any] = []
        for item in value:
            if len(items) >= MOST_ITEMS:
                raise BadMessage("an iterator without end")
            items.append(encode(item, depth + 1))
        name = type(value).__name__
        return {{"dict_keys": "k", "dict_items": "m"}.get(name, "n"): items}
    if home == "array" and type(value).__name__ == "array":
        return {"v": [value.typecode, encode(value.tolist(), depth + 1)]}
    if home == "decimal" and type(value).__name__ == "Decimal":
        return {"e": str(value)}
    if home == "fractions" and type(value).__name__ == "Fraction":
        return {"u": [encode(value.numerator), encode(value.denominator)]}
    return {"o": bool(value)}


def decode(data: Any) -> Any:
    """Return the value that JSON data stand for.

    Raises:
        BadMessage: they stand for none.
    """
    if data is None or isinstance(data, (bool, int, str)):
        return data
    try:
        ((kind, inside),) = data.items()
        return DECODERS[kind](inside)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise BadMessage(f"not a value: {type(error).__name__}") from None


def decode_each(inside: Any) -> list[Any]:
    """Return the items of a container."""
    return [decode(item) for item in inside]


def decode_array(inside: Any) -> Any:
    """Return an array of the standard library."""
    import array

    return array.array(inside[0], decode(inside[1]))


def decode_decimal(inside: Any) -> Any:
    """Return a decimal number."""
    import decimal

    return decimal.Decimal(inside)


def decode_fraction(inside: Any) -> Any:
    """Return a fraction."""
    import fractions

    return fractions.Fraction(*map(decode, inside))


# By the kinds that `encode` writes.
DECODERS: dict[str, Any] = {
    "i": lambda inside: int(inside, 16),
    "f": lambda inside: float.fromhex(inside),
    "b": lambda inside: bytes.fromhex(inside),
    "a": lambda inside: bytearray.fromhex(inside),
    "c": lambda inside: complex(float.fromhex(inside[0]), float.fromhex(inside[1])),
    "d": lambda inside: {decode(key): decode(item) for key, item in inside},
    "r": lambda inside: range(*map(decode, inside)),
    "o": lambda inside: Opaque(inside is True),
    "y": lambda inside: numpy_value(*inside),
    "v": decode_array,
    "e": decode_decimal,
    "u": decode_fraction,
    "l": decode_each,
    "t": lambda inside: tuple(decode_each(inside)),
    "s": lambda inside: set(decode_each(inside)),
    "z": lambda inside: frozenset(decode_each(inside)),
    "q": lambda inside: deque(decode_each(inside)),
    "n": lambda inside: iter(decode_each(inside)),
    "k": lambda inside: dict.fromkeys(decode_each(inside)).keys(),
    "m": lambda inside: dict(decode_each(inside)).items(),
}


def numpy_value(kind: str, data: Any, shape: list[int]) -> Any:
    """Return an array, or a scalar, of numpy's plain numbers or texts."""
    import numpy

    if numpy.dtype(kind).kind not in "biufU":
        raise ValueError(kind)
    return numpy.array(decode(data), numpy.dtype(kind)).reshape(shape)[()]


def send(handle: BinaryIO, message: Any) -> None:
    """Write a message as one line.

    Raises:
        Ended: nobody will read it.
    """
    line = "".join(_to_text(message, 0)).encode("ascii") + b"\n"
    try:
        handle.write(line)
        handle.flush()
    except OSError:
        raise Ended from None


def receive(handle: BinaryIO) -> Any:
    """Read the next message.

    Raises:
        BadMessage: it is too long, or no JSON.
        Ended: none will come.
    """
    try:
        line = handle.readline(LONGEST_MESSAGE + 1)
    except OSError:
        raise Ended from None
    if not line:
        raise Ended
    if len(line) > LONGEST_MESSAGE:
        raise BadMessage(f"a value of more than {LONGEST_MESSAGE} bytes")
    try:
        value, end = _from_text(line.decode("ascii"), 0)
    except (ValueError, RecursionError, StopIteration):
        raise BadMessage("not a message") from None
    if line[end:] != b"\n":
        raise BadMessage("not a message")
    return value
