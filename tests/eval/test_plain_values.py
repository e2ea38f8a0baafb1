"""Values arrive on the other side of the sandbox as plain data alone."""

import json
import math
from array import array
from collections import Counter, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.sandbox.plain_values import BadMessage, Opaque, decode, encode

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.integers(2**60, 2**300),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_values_arrive_as_they_were(value: Any) -> None:
    arrived = decode(json.loads(json.dumps(encode(value))))
    assert arrived == value
    assert type(arrived) is type(value)


def test_special_values_arrive_as_they_were() -> None:
    assert math.isnan(decode(encode(float("nan"))))
    assert math.copysign(1, decode(encode(-0.0))) == -1
    assert decode(encode(10**5000)) == 10**5000
    assert decode(encode(range(2, 9, 3))) == range(2, 9, 3)
    assert decode(encode(deque([1, 2]))) == deque([1, 2])
    assert decode(encode(Counter("aab"))) == {"a": 2, "b": 1}
    assert decode(encode(array("q", [1, -2]))) == array("q", [1, -2])
    assert decode(encode({1: 2}.keys())) == {1}
    assert decode(encode("\ud800")) == "\ud800"
    assert list(decode(encode(map(str, [1, 2])))) == ["1", "2"]
    assert decode(encode(Decimal("1.10"))).as_tuple() == Decimal("1.10").as_tuple()
    assert decode(encode(Fraction(1, 3))) == Fraction(1, 3)


class Always:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


class AlwaysInteger(int):
    """A number equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def test_arrays_and_their_numbers_arrive_as_they_were() -> None:
    import numpy

    arrays = [
        numpy.arange(6, dtype="int16").reshape(2, 3),
        *map(numpy.array, ([], [0.5, numpy.inf], ["a", "bc"])),
    ]
    for value in arrays:
        arrived = decode(json.loads(json.dumps(encode(value))))
        assert arrived.dtype == value.dtype and arrived.shape == value.shape and (arrived == value).all()
    for scalar in (numpy.int64(3), numpy.float32(0.1), numpy.bool_(True)):
        arrived = decode(json.loads(json.dumps(encode(scalar))))
        assert type(arrived) is type(scalar) and arrived == scalar
    assert type(decode(encode(numpy.array([Always()])))) is Opaque


def test_objects_arrive_without_methods_of_their_own() -> None:
    assert type(decode(encode(AlwaysInteger(3)))) is int
    assert decode(encode(AlwaysInteger(3))) != 4
    arrived = decode(encode(Always()))
    assert type(arrived) is Opaque
    assert arrived != 1 and bool(arrived)
    assert not decode(encode(type("Empty", (), {"__len__": lambda self: 0})()))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"l": 1},
        {"i": "no"},
        {"i": 3},
        {"x": []},
        {"l": [], "t": []},
        {"d": [[1]]},
        {"s": [{"l": []}]},
        {"f": "one"},
        {"b": "***="},
        {"v": ["x", {"l": []}]},
        {"v": ["q", 3]},
        {"y": ["|O", {"l": []}, [0]]},
        {"y": ["O", {"l": []}, [0]]},
        {"y": ["<f8", {"l": ["a"]}, [1]]},
        {"y": ["<f8", {"l": []}, [3]]},
        {"r": [1, 2, 0]},
        {"c": [1]},
        {"u": [1, 0]},
        {"e": "nothing"},
        [1, 2],
        {"k": [{"l": []}]},
        {"m": [1]},
        {"l": [{"zz": 1}]},
    ],
)
def test_what_is_no_value_is_refused(data: Any) -> None:
    with pytest.raises(BadMessage):
        decode(data)


def test_values_that_go_too_deep_or_never_end_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(BadMessage, match="deep"):
        encode(deep)
    with pytest.raises(BadMessage, match="without end"):
        encode(iter(int, 1))
