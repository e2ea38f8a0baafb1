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
        raise ValueError(name)


_from_text = _json.make_scanner(Reading)  # type: ignore[arg-type]


class Ended(Exception):
    """The other process is gone."""


def encode(value: Any, depth: int = 0) -> Any:
    """The value as JSON data; what is of no known kind becomes opaque. Subclasses become what they are made
    of."""
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
    """The value that JSON data stand for.

    Raises:
        BadMessage: they stand for none.
    """
    if data is None or isinstance(data, (bool, int, str)):
        return data
    try:
        ((name, inside),) = data.items()
        if name == "i":
            return int(inside, 16)
        if name == "f":
            return float.fromhex(inside)
        if name == "b":
            return bytes.fromhex(inside)
        if name == "a":
            return bytearray.fromhex(inside)
        if name == "c":
            return complex(float.fromhex(inside[0]), float.fromhex(inside[1]))
        if name == "d":
            return {decode(key): decode(item) for key, item in inside}
        if name == "r":
            return range(*map(decode, inside))
        if name == "o":
            return Opaque(inside is True)
        if name == "y":
            return numpy_value(*inside)
        if name == "v":
            import array

            return array.array(inside[0], decode(inside[1]))
        if name == "e":
            import decimal

            return decimal.Decimal(inside)
        if name == "u":
            import fractions

            return fractions.Fraction(*map(decode, inside))
        items = [decode(item) for item in inside]
        if name == "k":
            return dict.fromkeys(items).keys()
        if name == "m":
            return dict(items).items()
        kinds: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque, "n": iter}
        return kinds[name](items)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise BadMessage(f"not a value: {type(error).__name__}") from None


def numpy_value(kind: str, data: Any, shape: list[int]) -> Any:
    """An array, or a scalar, of numpy's plain numbers or texts."""
    import numpy

    if numpy.dtype(kind).kind not in "biufU":
        raise ValueError(kind)
    return numpy.array(decode(data), numpy.dtype(kind)).reshape(shape)[()]


def send(handle: BinaryIO, message: Any) -> None:
    """Writes a message as one line.

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
    """The next message.

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
