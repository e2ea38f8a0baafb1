"""An analysis of files as lines of text: a table with a column a file, what is in each and is to be expected
of it, and, once for all, what has been published on sets like them."""

import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.advisor import THIS_FILE

Results = dict[str, Any]

_WIDTH = 110
MISSING = "–"


def file_names(files: Sequence[Results]) -> list[str]:
    """Return short names that distinguish the files: the file's name, or the path where two have the same."""
    names = [Path(results["path"]).name for results in files]
    return [
        name if names.count(name) == 1 else results["path"]
        for name, results in zip(names, files, strict=True)
    ]


def number(value: float | int | None, digits: int = 2) -> str:
    """Return a number with thousands separated, or a dash."""
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share of 1 in percent, or a dash."""
    return MISSING if value is None else f"{value:.1%}"


def _with_sd(group: Results, name: str) -> str:
    return f"{number(group[name])} ± {number(group[f'{name}_sd'])}"


def _middle(group: Results, name: str) -> str:
    return f"{number(group[f'{name}_median'], 1)} / {group[f'{name}_mode']:,}"


def _rows_of(count: int, results: Results) -> str:
    return f"{count:,} ({count / results['rows']:.1%})" if count else "0"


Row = tuple[str, list[str]]
# A title, empty for the first, and rows of a label and a cell for each file.
Group = tuple[str, list[Row]]


def summary_groups(files: Sequence[Results]) -> list[Group]:
    """Return all that is one number a file, in groups."""

    def row(label: str, show: Callable[[Results], str]) -> Row:
        return label, [show(results) for results in files]

    groups: list[Group] = [
        (
            "",
            [
                row("rows", lambda f: number(f["rows"])),
                row("unusable rows", lambda f: number(f["bad_rows"]["rows"])),
                row("rows without a response", lambda f: _rows_of(f["without_response"]["rows"], f)),
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
                row("rows with an empty output", lambda f: _rows_of(f["empty_outputs"]["rows"], f)),
                row("rows of several responses", lambda f: _rows_of(f["turns"]["multi_turn_rows"], f)),
                row("rows with a system message", lambda f: _rows_of(f["turns"]["rows_with_system"], f)),
                row(
                    "rows not ending with a response",
                    lambda f: _rows_of(f["turns"]["rows_not_ending_with_response"], f),
                ),
            ],
        ),
        _repeated_rows(files, row),
    ]
    return groups + (token_groups(files) if all(results["tokens"] for results in files) else [])


def _repeated_rows(files: Sequence[Results], row: Callable[[str, Callable[[Results], str]], Row]) -> Group:
    rows = [
        row(
            "instructions that repeat one",
            lambda f: _rows_of(f["duplicates"]["instruction"]["extra_rows"], f),
        ),
        row("rows that repeat one", lambda f: _rows_of(f["duplicates"]["row"]["extra_rows"], f)),
        row(
            "rows of one instruction, several outputs",
            lambda f: _rows_of(f["duplicates"]["conflicting"]["rows"], f),
        ),
    ]
    near = next((results["near_duplicates"] for results in files if results["near_duplicates"]), None)
    if near:
        label = f"{near['of']}s that nearly repeat one (J ≥ {near['threshold']:g})"
        rows.append(row(label, lambda f: _rows_of(f["near_duplicates"]["extra_rows"], f)))
    return "Repeated rows", rows


def token_groups(files: Sequence[Results]) -> list[Group]:
    """Return all that is counted in tokens and is one number a file, in groups."""

    def row(label: str, show: Callable[[Results], str]) -> Row:
        return label, [show(results["tokens"]) for results in files]

    def mean_and_sd_of(name: str) -> Callable[[Results], str]:
        return lambda t: f"{number(t[name]['mean'], 1)} ± {number(t[name]['sd'], 1)}"

    length = files[0]["tokens"]["truncation"]["max_seq_length"]
    return [
        (
            "Tokens",
            [
                row("tokens", lambda t: number(t["total"]["tokens"])),
                row("tokens a row", mean_and_sd_of("total")),
                row("output tokens a row", mean_and_sd_of("output")),
                row("instruction tokens a row", mean_and_sd_of("instruction")),
            ],
        ),
        (
            f"Cut at {length:,} tokens",
            [
                row("rows cut", lambda t: _rows_of(t["truncation"]["rows_cut"], t)),
                row("tokens lost", lambda t: _tokens_lost(t["truncation"])),
                row("rows that lose all responses", lambda t: number(t["truncation"]["responses_lost"])),
                row(
                    "rows that lose their last response",
                    lambda t: number(t["truncation"]["last_response_lost"]),
                ),
            ],
        ),
        ("Places of micro-batches that hold tokens", _fill_rows(files)),
        (
            "Part of the loss on responses, if all tokens cost the same",
            [
                (
                    f"{arm}, {normalisation} normalisation",
                    [
                        percent(results["tokens"]["loss_shares"][arm][normalisation]["response"])
                        for results in files
                    ],
                )
                for arm in ("IT", "IM")
                for normalisation in ("example", "token")
            ],
        ),
    ]


def _tokens_lost(truncation: Results) -> str:
    return f"{truncation['tokens_lost']:,} ({truncation['token_share_lost']:.2%})"


def _fill_rows(files: Sequence[Results]) -> list[Row]:
    """Return how full micro-batches are, for each number of examples a step."""
    kinds = {
        "packed": "packed",
        "padded_by_length": "padded by length",
        "padded_as_they_come": "padded as they come",
    }
    by_file = [results["tokens"]["packing"]["batch_sizes"] for results in files]
    return [
        (f"{label}, {fills[0]['batch_size']} a step", [percent(fill[kind]) for fill in fills])
        for fills in zip(*by_file, strict=True)
        for kind, label in kinds.items()
    ]


def column_lines(names: Sequence[str], groups: Sequence[Group]) -> list[str]:
    """Return lines with columns padded to their widest cell, an empty line and a title before each group."""
    rows = [row for _, group in groups for row in group]
    label_width = max(len(label) for label, _ in rows) + 2
    widths = [
        max(_columns(name), *(len(cells[column]) for _, cells in rows)) for column, name in enumerate(names)
    ]

    def line(first: str, cells: Sequence[str]) -> str:
        return f"{first:{label_width}}" + "".join(
            "   " + " " * (width - _columns(cell)) + cell for cell, width in zip(cells, widths, strict=True)
        )

    lines = [line("", names)]
    for title, group in groups:
        lines += ["", title] if title else []
        lines += [line(f"  {label}" if title else label, cells) for label, cells in group]
    return lines


def _columns(text: str) -> int:
    """Return the columns that a terminal gives a text: two for a wide character, none for a mark."""
    marks = sum(unicodedata.category(character) in ("Mn", "Me", "Cf") for character in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def published_once(files: Sequence[Results], key: str) -> list[tuple[Results, list[str]]]:
    """Return (what was published, names of the files it is about) of `findings` or `cautions`, each once."""
    items: dict[str, tuple[Results, list[str]]] = {}
    for name, results in zip(file_names(files), files, strict=True):
        for item in results["advice"][key]:
            if item["source"] != THIS_FILE:
                items.setdefault(item["key"], (item, []))[1].append(name)
    return list(items.values())


def report_lines(files: Sequence[Results]) -> list[str]:
    """Return everything for the terminal."""
    lines = [*column_lines(file_names(files), summary_groups(files))]
    for name, results in zip(file_names(files), files, strict=True):
        lines += ["", f"── {name}"]
        lines += [*in_brief_lines(results["advice"]), *_details(results), *advice_lines(results["advice"])]
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
                for item, names in published_once(files, key)
            ],
        )
    return lines


def in_brief_lines(advice: Results) -> list[str]:
    """Return what to expect and what to look at first."""
    position = [position_text(advice) + "."] if advice["position"] else []
    return [line for text in [*position, *advice["in_brief"]] for line in _wrapped(text)]


def _details(results: Results) -> list[str]:
    """Return unusable rows, turns, shares of the loss and examples of duplicates of one file."""
    turns = results["turns"]
    return [
        *_unusable_rows(results),
        *_unread_keys(results.get("unread_keys", {})),
        *_wrapped(
            "messages by role: "
            + _counts(turns["messages_by_role"])
            + "; rows by responses: "
            + _counts(turns["rows_by_responses"])
        ),
        *(_loss_share_lines(results["tokens"]["loss_shares"]) if results["tokens"] else []),
        *_largest_groups("same instruction", results["duplicates"]["instruction"]),
        *_largest_groups("near-duplicates", results["near_duplicates"] or {"largest": []}),
    ]


def _unusable_rows(results: Results) -> list[str]:
    lines = []
    refused: Results = results["tokens"]["refused_rows"] if results["tokens"] else {"rows": 0}
    for why, bad in (("unusable", results["bad_rows"]), ("refused by the chat format", refused)):
        if bad["rows"]:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in bad["reasons"].items())
            lines.append(f"{bad['rows']:,} row{'s' * (bad['rows'] != 1)} {why}: {reasons}")
            # The first row of each reason.
            first = {row["reason"]: row for row in reversed(bad["listed"])}
            shown = [first[reason] for reason in bad["reasons"] if reason in first]
            lines += [f"  {row['place']}: {row['reason']}: {row['detail']}" for row in shown[:5]]
    return lines


def _unread_keys(found: Results) -> list[str]:
    if not found:
        return []
    keys = ", ".join(f"{key} ({count:,})" for key, count in found.items())
    return _wrapped(f"read by nothing: {keys}; if one holds what is to be trained on, name it with --columns")


def _loss_share_lines(loss_shares: Results) -> list[str]:
    lines = []
    for arm, by_normalisation in loss_shares.items():
        for normalisation, kinds in by_normalisation.items():
            shares = ", ".join(
                f"{kind} {share:.1%}" for kind, share in kinds.items() if share and kind != "response"
            )
            lines.append(f"loss if all tokens cost the same, {arm}, {normalisation} normalisation: {shares}")
    return lines


def _largest_groups(likeness: str, groups: Results) -> list[str]:
    lines = []
    for group in groups["largest"][:3]:
        numbers = ", ".join(str(row["line"]) for row in group["rows"])
        lines += _wrapped(f"{likeness}: {group['size']:,} rows, lines {numbers}")
    return lines


def _counts(counts: dict[str, int], most: int = 8) -> str:
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:most])
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")


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
    """Return a number with its sign, a minus sign and no hyphen."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def prediction_text(prediction: Results) -> str:
    """Return a prediction in words."""
    text = (
        f"{signed(prediction['ae1_gain_percent'])} % in AlpacaEval 1.0 for IM over IT, 95 % interval for one "
        f"set {signed(prediction['low'])} to {signed(prediction['high'])} %, {prediction['name']} (R² "
        f"{prediction['fit']['r_squared']:.2f}, {prediction['fit']['points']} points)"
    )
    if prediction["by_printed_line"] is not None:
        text += f"; by the line as printed {signed(prediction['by_printed_line'])} %"
    return text + ("; an extrapolation" if prediction["extrapolated"] else "")


def neighbour_text(known: Results) -> str:
    """Return one of the paper's sets, and what IM did there."""
    scores = ", ".join(
        f"{label} {known['it'][key]:.2f} to {known['im'][key]:.2f} ({signed(known['difference'][key], 2)})"
        for key, label in (("mean", "NLP mean"), ("mt", "MT-Bench"), ("ae1", "AE1"), ("ae2", "AE2"))
    )
    return f"{known['name']} (ratio {known['ratio']:.3g}, {known['rows']:,} rows), IT to IM: {scores}"


def position_text(advice: Results) -> str:
    """Return where the set stands."""
    position = advice["position"]
    return (
        f"{advice['regime'].capitalize()}: instruction / output {position['ratio']:.3g} "
        f"(ln {signed(position['log_ratio'], 2)}), "
        f"{position['rows']:,} rows (ln {position['log_rows']:.2f})"
    )


def advice_lines(advice: Results) -> list[str]:
    """Return what is predicted, what was measured near by, what the file's own numbers warn of, and what to
    run; wrapped."""
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
