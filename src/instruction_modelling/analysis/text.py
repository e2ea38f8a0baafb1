"""An analysis of files as lines of text: a table with a column a file, what was found in each and is to be
expected of it, and, once for all, what has been published on sets like them."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.advisor import THIS_FILE

Results = dict[str, Any]

_WIDTH = 110
MISSING = "–"


def file_names(files: Sequence[Results]) -> list[str]:
    """Short names that tell the files apart: the file's name, or the path where two have the same."""
    stems = [Path(found["path"]).name for found in files]
    return [
        stem if stems.count(stem) == 1 else found["path"] for stem, found in zip(stems, files, strict=True)
    ]


def number(value: float | int | None, digits: int = 2) -> str:
    """A number with thousands separated, or a dash."""
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """A share of 1 in percent."""
    return MISSING if value is None else f"{value:.1%}"


def _with_sd(group: Results, name: str) -> str:
    return f"{number(group[name])} ± {number(group[f'{name}_sd'])}"


def _middle(group: Results, name: str) -> str:
    return f"{number(group[f'{name}_median'], 1)} / {group[f'{name}_mode']:,}"


def _rows_of(count: int, rows: int) -> str:
    return f"{count:,} ({count / rows:.1%})" if count else "0"


Row = tuple[str, list[str]]


def summary_groups(files: Sequence[Results]) -> list[tuple[str, list[Row]]]:
    """(Title, rows of a label and a cell for each file) for all that is one number a file; the first group
    has no title."""

    def row(label: str, show: Callable[[Results], str]) -> Row:
        return label, [show(found) for found in files]

    repeated = [
        row(
            "instructions that repeat one",
            lambda f: _rows_of(f["duplicates"]["instruction"]["extra_rows"], f["rows"]),
        ),
        row("rows that repeat one", lambda f: _rows_of(f["duplicates"]["row"]["extra_rows"], f["rows"])),
        row(
            "rows of one instruction, several outputs",
            lambda f: _rows_of(f["duplicates"]["conflicting"]["rows"], f["rows"]),
        ),
    ]
    if any(found["near_duplicates"] for found in files):
        near = next(found["near_duplicates"] for found in files if found["near_duplicates"])
        repeated.append(
            row(
                f"{near['of']}s that nearly repeat one (J ≥ {near['threshold']:g})",
                lambda f: _rows_of(f["near_duplicates"]["extra_rows"], f["rows"]),
            )
        )
    groups = [
        (
            "",
            [
                row("rows", lambda f: number(f["rows"])),
                row("unusable rows", lambda f: number(f["bad_rows"]["rows"])),
            ],
        ),
        (
            "Words a row (Table 5)",
            [
                row("total words", lambda f: _with_sd(f["words"], "total")),
                row("output words", lambda f: _with_sd(f["words"], "output")),
                row("instruction words", lambda f: _with_sd(f["words"], "instruction")),
                row("output / instruction", lambda f: number(f["words"]["output_to_instruction"], 4)),
                row("instruction / output", lambda f: number(f["words"]["instruction_to_output"], 4)),
                row("output median / mode", lambda f: _middle(f["words"], "output")),
                row("instruction median / mode", lambda f: _middle(f["words"], "instruction")),
            ],
        ),
        (
            "Turns",
            [
                row("rows with an empty output", lambda f: _rows_of(f["empty_outputs"]["rows"], f["rows"])),
                row(
                    "rows of several responses", lambda f: _rows_of(f["turns"]["multi_turn_rows"], f["rows"])
                ),
                row(
                    "rows with a system message",
                    lambda f: _rows_of(f["turns"]["rows_with_system"], f["rows"]),
                ),
                row(
                    "rows not ending with a response",
                    lambda f: _rows_of(f["turns"]["rows_not_ending_with_response"], f["rows"]),
                ),
            ],
        ),
        ("Repeated rows", repeated),
    ]
    return groups + (token_groups(files) if all(found["tokens"] for found in files) else [])


def token_groups(files: Sequence[Results]) -> list[tuple[str, list[Row]]]:
    """The same for what is counted in tokens."""

    def row(label: str, show: Callable[[Results], str]) -> Row:
        return label, [show(found["tokens"]) for found in files]

    def share(arm: str, normalisation: str) -> Callable[[Results], str]:
        return lambda t: percent(t["loss_shares"][arm][normalisation]["response"])

    def filled(place: int, key: str) -> Callable[[Results], str]:
        return lambda t: percent(t["packing"]["batch_sizes"][place][key])

    def lengths(name: str) -> Callable[[Results], str]:
        return lambda t: f"{number(t[name]['mean'], 1)} ± {number(t[name]['sd'], 1)}"

    length = files[0]["tokens"]["truncation"]["max_seq_length"]
    fills = [
        row(f"{label}, {fill['batch_size']} a step", filled(place, key))
        for place, fill in enumerate(files[0]["tokens"]["packing"]["batch_sizes"])
        for label, key in (
            ("packed", "packed"),
            ("padded by length", "padded_by_length"),
            ("padded as they come", "padded_as_they_come"),
        )
    ]
    return [
        (
            "Tokens",
            [
                row("tokens", lambda t: number(t["total"]["tokens"])),
                row("tokens a row", lengths("total")),
                row("output tokens a row", lengths("output")),
                row("instruction tokens a row", lengths("instruction")),
            ],
        ),
        (
            f"Cut at {length:,} tokens",
            [
                row("rows cut", lambda t: _rows_of(t["truncation"]["rows_cut"], t["rows"])),
                row(
                    "tokens lost",
                    lambda t: (
                        f"{t['truncation']['tokens_lost']:,} ({t['truncation']['token_share_lost']:.2%})"
                    ),
                ),
                row("rows that lose all responses", lambda t: number(t["truncation"]["responses_lost"])),
                row(
                    "rows that lose their last response",
                    lambda t: number(t["truncation"]["last_response_lost"]),
                ),
            ],
        ),
        ("Places of micro-batches that hold tokens", fills),
        (
            "Part of the loss on responses, if all tokens cost the same",
            [
                row(f"{arm}, {normalisation} normalisation", share(arm, normalisation))
                for arm in ("IT", "IM")
                for normalisation in ("example", "token")
            ],
        ),
    ]


def table(names: Sequence[str], groups: Sequence[tuple[str, list[Row]]]) -> list[str]:
    """Columns padded to their widest cell, an empty line and a title before each group."""
    rows = [row for _, group in groups for row in group]
    label = max(len(name) for name, _ in rows) + 2
    widths = [max(len(name), *(len(cells[place]) for _, cells in rows)) for place, name in enumerate(names)]

    def line(first: str, cells: Sequence[str]) -> str:
        return f"{first:{label}}" + "".join(
            f"   {cell:>{width}}" for cell, width in zip(cells, widths, strict=True)
        )

    lines = [line("", names)]
    for title, group in groups:
        lines += ["", title] if title else []
        lines += [line(f"  {name}" if title else name, cells) for name, cells in group]
    return lines


def told_once(files: Sequence[Results], key: str) -> list[tuple[Results, list[str]]]:
    """(What was published, the names of the files it is told of) of `findings` or `cautions`, each once."""
    told: dict[str, tuple[Results, list[str]]] = {}
    for name, found in zip(file_names(files), files, strict=True):
        for item in found["advice"][key]:
            if item["source"] != THIS_FILE:
                told.setdefault(item["key"], (item, []))[1].append(name)
    return list(told.values())


def report(files: Sequence[Results]) -> list[str]:
    """Everything for the terminal."""
    lines = [*table(file_names(files), summary_groups(files))]
    for name, found in zip(file_names(files), files, strict=True):
        lines += [
            "",
            f"── {name}",
            *in_brief_lines(found["advice"]),
            *details(found),
            *advice_lines(found["advice"]),
        ]
    lines += ["", "── What the paper and later studies found"]
    for title, key in (
        ("For sets like these" if len(files) > 1 else "For sets like this", "findings"),
        ("Cautions", "cautions"),
    ):
        lines += _titled(
            title,
            [
                f"{item['stance']}: " * (key == "findings")
                + f"{item['text']} [{item['source']}]"
                + (f" ({', '.join(names)})" if len(names) < len(files) else "")
                for item, names in told_once(files, key)
            ],
        )
    return lines


def in_brief_lines(advice: Results) -> list[str]:
    """What to expect and what to look at first."""
    position = [position_text(advice) + "."] if advice["position"] else []
    return [line for text in [*position, *advice["in_brief"]] for line in _wrapped(text)]


def details(found: Results) -> list[str]:
    """Unusable rows, turns, shares of the loss and examples of duplicates of one file."""
    lines = []
    refused: Results = found["tokens"]["refused_rows"] if found["tokens"] else {"rows": 0}
    for what, bad in (("unusable", found["bad_rows"]), ("refused by the chat format", refused)):
        if bad["rows"]:
            lines += [
                f"{bad['rows']:,} row{'s' * (bad['rows'] != 1)} {what}: "
                + ", ".join(f"{count:,} {why}" for why, count in bad["reasons"].items())
            ]
            lines += [
                f"  {found['path']}:{b['line']}: {b['reason']}: {b['detail']}" for b in bad["listed"][:5]
            ]
    turns = found["turns"]
    lines += _wrapped(
        "messages by role: "
        + _counts(turns["messages_by_role"])
        + "; rows by responses: "
        + _counts(turns["rows_by_responses"])
    )
    if found["tokens"]:
        for arm, shares in found["tokens"]["loss_shares"].items():
            for normalisation, kinds in shares.items():
                told = ", ".join(
                    f"{kind} {share:.1%}" for kind, share in kinds.items() if share and kind != "response"
                )
                lines.append(
                    f"loss if all tokens cost the same, {arm}, {normalisation} normalisation: {told}"
                )
    for what, group in (
        ("same instruction", found["duplicates"]["instruction"]),
        ("near-duplicates", found["near_duplicates"] or {"largest": []}),
    ):
        for example in group["largest"][:3]:
            lines += _wrapped(
                f"{what}: {example['size']:,} rows, lines "
                + ", ".join(str(row["line"]) for row in example["rows"])
            )
    return lines


def _counts(counts: dict[str, int], most: int = 8) -> str:
    told = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:most])
    return told + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _wrapped(text: str, first: str = "", rest: str = "  ") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=first + rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def signed(value: float, digits: int = 0) -> str:
    """A number with its sign, a minus sign and no hyphen."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def prediction_text(prediction: Results) -> str:
    """A prediction in words."""
    text = (
        f"{signed(prediction['ae1_gain_percent'])} % in AlpacaEval 1.0 for IM over IT, 95 % interval for one "
        "set "
        f"{signed(prediction['low'])} to {signed(prediction['high'])} %, {prediction['name']} (R² "
        f"{prediction['fit']['r_squared']:.2f}, {prediction['fit']['points']} points)"
    )
    if prediction["by_printed_line"] is not None:
        text += f"; by the line as printed {signed(prediction['by_printed_line'])} %"
    return text + ("; an extrapolation" if prediction["extrapolated"] else "")


def neighbour_text(known: Results) -> str:
    """One of the paper's sets, and what IM did there."""
    scores = ", ".join(
        f"{label} {known['it'][key]:.2f} to {known['im'][key]:.2f} ({signed(known['difference'][key], 2)})"
        for key, label in (("mean", "NLP mean"), ("mt", "MT-Bench"), ("ae1", "AE1"), ("ae2", "AE2"))
    )
    return f"{known['name']} (ratio {known['ratio']:.3g}, {known['rows']:,} rows), IT to IM: {scores}"


def position_text(advice: Results) -> str:
    """Where the set stands."""
    place = advice["position"]
    return (
        f"{advice['regime'].capitalize()}: instruction / output {place['ratio']:.3g} (ln "
        f"{signed(place['log_ratio'], 2)}), "
        f"{place['rows']:,} rows (ln {place['log_rows']:.2f})"
    )


def advice_lines(advice: Results) -> list[str]:
    """What is predicted, what was measured near by, what the file's own numbers warn of, and what to run;
    wrapped."""
    lines = _titled(
        "Predicted",
        [
            f"{prediction_text(known)} [{known['source']}]"
            for known in advice["predictions"]
            if known["applies"]
        ],
    )
    lines += _titled(
        "Nearest sets of the paper (LLaMA-2-7B)", [neighbour_text(known) for known in advice["nearest"]]
    )
    lines += _titled(
        "In this file", [caution["text"] for caution in advice["cautions"] if caution["source"] == THIS_FILE]
    )
    lines += _titled("Arms to run", [f"{arm['name']}: {arm['reason']}" for arm in advice["arms"]])
    return lines + [f"  {command}" for command in advice["commands"]]


def _titled(title: str, texts: Iterable[str]) -> list[str]:
    lines = [line for text in texts for line in _wrapped(f"- {text}", "  ")]
    return [title, *lines] if lines else []
