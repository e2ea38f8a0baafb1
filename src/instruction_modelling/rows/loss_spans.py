"""The weights of parts of a message's content, in the project's own words and in axolotl's.

`loss_spans` is a list of {"start", "end", "weight"} or [start, end, weight]: characters [start, end) of the
content, counted in code points as the content stands in the file; what no span covers weighs 1.

`train_detail` (or `training_detail`) is axolotl's: a list of {"begin_offset", "end_offset", "train"}, where
end_offset is the last character itself, and what no entry covers is not trained (axolotl's
`prompt_strategies/chat_template.py`: a token is trained within an entry whose train is true, and nowhere
else)."""

import math
from typing import Any

from instruction_modelling.rows.json_lines import RowRefused, snippet
from instruction_modelling.rows.values import Fields, kind_of, without_null_keys

_DETAIL_KEYS = ("train_detail", "training_detail")
SPAN_KEYS = ("loss_spans", *_DETAIL_KEYS)
# Characters [start, end) of a text, and what they weigh.
Stretch = tuple[int, int, float]


def read_loss_spans(fields: Fields, role: str, where: str) -> tuple[Stretch, ...]:
    """Return the stretches of a message's content that do not weigh 1, in order and without overlap.

    Raises:
        RowRefused: two keys give spans, the content is no string, or a span is not made of whole numbers
            within it, has no weight of 0 or more, or overlaps one of another weight.
    """
    empty_detail = next((key for key in _DETAIL_KEYS if fields.get(key) == []), None)
    if empty_detail and role == "assistant":
        raise RowRefused(
            f"bad {empty_detail}",
            f"{where}: {empty_detail} is an empty list, with which axolotl does not train the message; write "
            '"training": false, or leave it out',
        )
    given = {key: value for key in SPAN_KEYS if (value := fields.get(key))}
    if not given:
        return ()
    if len(given) > 1:
        detail = f"{where} has spans in {' and '.join(given)}; keep one of them"
        raise RowRefused("ambiguous loss_spans", detail)
    ((key, value),) = given.items()
    content = next((fields[name] for name in ("content", "value") if name in fields), None)
    if not isinstance(content, str):
        detail = f"{where}: {key} counts characters, and the content is {kind_of(content)}; write a string"
        raise RowRefused(f"bad {key}", detail)
    if not isinstance(value, list):
        raise RowRefused(f"bad {key}", f"{where}: {key} is {snippet(value)}; it must be a list")
    read = _detail if key in _DETAIL_KEYS else _span
    stretches = sorted(read(item, f"{where}: {key} {number}", key) for number, item in enumerate(value))
    if key in _DETAIL_KEYS and role != "assistant" and any(weight for _, _, weight in stretches):
        detail = (
            f"{where}: {key} trains a part of a {role} message whatever its role weighs, and here weights "
            "multiply; give the role a weight (--loss_weights) and the part loss_spans"
        )
        raise RowRefused(f"{key} on a {role} message", detail)
    outside = 0.0 if key in _DETAIL_KEYS else 1.0
    return _without_overlap(stretches, len(content), outside, (f"{where}: {key}", key))


def _span(item: Any, where: str, key: str) -> Stretch:
    if isinstance(item, list) and len(item) == 3:
        item = dict(zip(("start", "end", "weight"), item, strict=True))
    item = without_null_keys(item)
    if not isinstance(item, dict) or set(item) != {"start", "end", "weight"}:
        asked = 'it must be {"start": ..., "end": ..., "weight": ...} or [start, end, weight]'
        raise RowRefused(f"bad {key}", f"{where} is {snippet(item)}; {asked}")
    weight = item["weight"]
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    try:
        number = float(weight) if is_number else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        detail = f"{where}: weight is {snippet(weight)}; it must be a finite number >= 0"
        raise RowRefused(f"bad {key}", detail)
    start, end = (_position(item[name], f"{where}: {name}", key) for name in ("start", "end"))
    return start, end, abs(number)


def _detail(item: Any, where: str, key: str) -> Stretch:
    keys, item = {"begin_offset", "end_offset", "train"}, without_null_keys(item)
    if not isinstance(item, dict) or set(item) != keys or not isinstance(item["train"], bool):
        asked = 'it must be {"begin_offset": ..., "end_offset": ..., "train": true or false}'
        raise RowRefused(f"bad {key}", f"{where} is {snippet(item)}; {asked}")
    start, last = (_position(item[name], f"{where}: {name}", key) for name in ("begin_offset", "end_offset"))
    return start, last + 1, float(item["train"])


def _position(value: Any, where: str, key: str) -> int:
    # Arrow's lists hold numbers of one type: beside a weight of 0.5, the position 3 is 3.0.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RowRefused(f"bad {key}", f"{where} is {snippet(value)}; it must be a whole number")
    return value


def _without_overlap(
    stretches: list[Stretch], length: int, outside: float, named: tuple[str, str]
) -> tuple[Stretch, ...]:
    """Return what does not weigh 1 of a text of `length` characters, where `outside` is the weight of what no
    stretch covers; `named` is the place and the key of a refusal.

    Args:
        stretches: in order.
    """
    (where, key), out = named, []
    reach, weight_there = 0, outside
    for start, end, weight in stretches:
        if not 0 <= start < end <= length:
            detail = f"{where}: characters {start} to {end - 1} are not in the content, which has {length}"
            raise RowRefused(f"bad {key}", f"{detail}; count from 0")
        if start < reach and weight != weight_there:
            detail = f"{where}: character {start} weighs {weight_there:g} and {weight:g}; keep one of them"
            raise RowRefused(f"contradictory {key}", detail)
        out += [(reach, start, outside), (max(start, reach), end, weight)]
        if end > reach:
            reach, weight_there = end, weight
    out.append((reach, length, outside))
    return tuple((start, end, weight) for start, end, weight in out if start < end and weight != 1)
