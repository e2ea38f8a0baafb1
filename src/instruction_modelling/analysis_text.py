"""An analysis of files as lines of text: a table with a column a file, then what was found in each, and the advice."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Results = dict[str, Any]

_WIDTH = 110
MISSING = "–"


def file_names(files: Sequence[Results]) -> list[str]:
    """Short names that tell the files apart: the file's name, or the path where two have the same."""
    stems = [Path(found["path"]).name for found in files]
    return [stem if stems.count(stem) == 1 else found["path"] for stem, found in zip(stems, files, strict=True)]


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


def summary_rows(files: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """(Label, a cell for each file) for all that is one number a file."""
    def row(label: str, show: Callable[[Results], str]) -> tuple[str, list[str]]:
        return label, [show(found) for found in files]

    rows = [
        row("rows", lambda f: number(f["rows"])),
        row("unusable rows", lambda f: number(f["bad_rows"]["rows"])),
        row("total words", lambda f: _with_sd(f["words"], "total")),
        row("output words", lambda f: _with_sd(f["words"], "output")),
        row("instruction words", lambda f: _with_sd(f["words"], "instruction")),
        row("output / instruction", lambda f: number(f["words"]["output_to_instruction"], 4)),
        row("instruction / output", lambda f: number(f["words"]["instruction_to_output"], 4)),
        row("output median / mode", lambda f: _middle(f["words"], "output")),
        row("instruction median / mode", lambda f: _middle(f["words"], "instruction")),
        row("rows with an empty output", lambda f: _rows_of(f["empty_outputs"]["rows"], f["rows"])),
        row("rows of several responses", lambda f: _rows_of(f["turns"]["multi_turn_rows"], f["rows"])),
        row("rows with a system message", lambda f: _rows_of(f["turns"]["rows_with_system"], f["rows"])),
        row("rows not ending with a response", lambda f: _rows_of(f["turns"]["rows_not_ending_with_response"], f["rows"])),
        row("instructions that repeat one", lambda f: _rows_of(f["duplicates"]["instruction"]["extra_rows"], f["rows"])),
        row("rows that repeat one", lambda f: _rows_of(f["duplicates"]["row"]["extra_rows"], f["rows"])),
        row("rows of one instruction, several outputs", lambda f: _rows_of(f["duplicates"]["conflicting"]["rows"], f["rows"])),
    ]
    if any(found["near_duplicates"] for found in files):
        near = next(found["near_duplicates"] for found in files if found["near_duplicates"])
        rows.append(row(f"{near['of']}s that nearly repeat one (J ≥ {near['threshold']:g})",
                        lambda f: _rows_of(f["near_duplicates"]["extra_rows"], f["rows"])))
    return rows + (token_rows(files) if all(found["tokens"] for found in files) else [])


def token_rows(files: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """The same for what is counted in tokens."""
    def row(label: str, show: Callable[[Results], str]) -> tuple[str, list[str]]:
        return label, [show(found["tokens"]) for found in files]

    def share(arm: str, normalisation: str) -> Callable[[Results], str]:
        return lambda t: percent(t["loss_shares"][arm][normalisation]["response"])

    def filled(place: int, key: str) -> Callable[[Results], str]:
        return lambda t: percent(t["packing"]["batch_sizes"][place][key])

    def lengths(name: str) -> Callable[[Results], str]:
        return lambda t: f"{number(t[name]['mean'], 1)} ± {number(t[name]['sd'], 1)}"

    length = files[0]["tokens"]["truncation"]["max_seq_length"]
    rows = [
        row("tokens", lambda t: number(t["total"]["tokens"])),
        row("tokens a row", lengths("total")),
        row("output tokens a row", lengths("output")),
        row("instruction tokens a row", lengths("instruction")),
        row(f"rows cut at {length:,} tokens", lambda t: _rows_of(t["truncation"]["rows_cut"], t["rows"])),
        row("tokens lost", lambda t: f"{t['truncation']['tokens_lost']:,} ({t['truncation']['token_share_lost']:.2%})"),
        row("rows that lose all responses", lambda t: number(t["truncation"]["responses_lost"])),
        row("rows that lose their last response", lambda t: number(t["truncation"]["last_response_lost"])),
    ]
    for place, fill in enumerate(files[0]["tokens"]["packing"]["batch_sizes"]):
        rows += [row(f"full, {label}, {fill['batch_size']} a step", filled(place, key))
                 for label, key in (("packed", "packed"), ("padded by length", "padded_by_length"),
                                    ("padded as they come", "padded_as_they_come"))]
    for normalisation in ("example", "token"):
        rows.append(row(f"loss on responses, IM, by {normalisation}", share("IM", normalisation)))
    return rows


def table(names: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Columns padded to their widest cell."""
    label = max(len(name) for name, _ in rows)
    widths = [max(len(name), *(len(cells[place]) for _, cells in rows)) for place, name in enumerate(names)]
    head = " " * label + "".join(f"   {name:>{width}}" for name, width in zip(names, widths, strict=True))
    return [head, *(f"{name:{label}}" + "".join(f"   {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
                    for name, cells in rows)]


def report(files: Sequence[Results]) -> list[str]:
    """Everything for the terminal."""
    lines = [*table(file_names(files), summary_rows(files))]
    for name, found in zip(file_names(files), files, strict=True):
        lines += ["", f"── {name}", *details(found), "", *advice_lines(found["advice"])]
    return lines


def details(found: Results) -> list[str]:
    """Unusable rows, turns, shares of the loss and examples of duplicates of one file."""
    lines = []
    refused: Results = found["tokens"]["refused_rows"] if found["tokens"] else {"rows": 0}
    for what, bad in (("unusable", found["bad_rows"]), ("refused by the chat format", refused)):
        if bad["rows"]:
            lines += [f"{bad['rows']:,} rows {what}: " + ", ".join(f"{count:,} {why}" for why, count in bad["reasons"].items())]
            lines += [f"  {found['path']}:{b['line']}: {b['reason']}: {b['detail']}" for b in bad["listed"][:5]]
    turns = found["turns"]
    lines += _wrapped("messages by role: " + _counts(turns["messages_by_role"]) + "; rows by responses: "
                      + _counts(turns["rows_by_responses"]))
    if found["tokens"]:
        for arm, shares in found["tokens"]["loss_shares"].items():
            for normalisation, kinds in shares.items():
                told = ", ".join(f"{kind} {share:.1%}" for kind, share in kinds.items() if share and kind != "response")
                lines.append(f"share of the loss, {arm}, by {normalisation}: {told}")
    for what, group in (("same instruction", found["duplicates"]["instruction"]),
                        ("near-duplicates", found["near_duplicates"] or {"largest": []})):
        for example in group["largest"][:3]:
            lines += _wrapped(f"{what}: {example['size']:,} rows, lines "
                              + ", ".join(str(row["line"]) for row in example["rows"]))
    return lines


def _counts(counts: dict[str, int], most: int = 8) -> str:
    told = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:most])
    return told + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _wrapped(text: str, first: str = "", rest: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=first + rest, break_on_hyphens=False,
                         break_long_words=False)


def signed(value: float, digits: int = 0) -> str:
    """A number with its sign, a minus sign and no hyphen."""
    return f"{value:+,.{digits}f}".replace("-", "−")


def prediction_text(prediction: Results) -> str:
    """A prediction in words."""
    text = (f"{signed(prediction['ae1_gain_percent'])} % in AlpacaEval 1.0 for IM over IT, 95 % interval for one set "
            f"{signed(prediction['low'])} to {signed(prediction['high'])} %, {prediction['name']} (R² "
            f"{prediction['fit']['r_squared']:.2f}, {prediction['fit']['points']} points)")
    if prediction["by_printed_line"] is not None:
        text += f"; by the line as printed {signed(prediction['by_printed_line'])} %"
    return text + ("; an extrapolation" if prediction["extrapolated"] else "")


def neighbour_text(known: Results) -> str:
    """One of the paper's sets, and what IM did there."""
    scores = ", ".join(f"{label} {known['it'][key]:.2f} to {known['im'][key]:.2f} ({signed(known['difference'][key], 2)})"
                       for key, label in (("mean", "NLP mean"), ("mt", "MT-Bench"), ("ae1", "AE1"), ("ae2", "AE2")))
    return f"{known['name']} (ratio {known['ratio']:.4g}, {known['rows']:,} rows), IT to IM: {scores}"


def position_text(advice: Results) -> str:
    """Where the set stands."""
    place = advice["position"]
    return (f"instruction / output {place['ratio']:.4g} (ln {signed(place['log_ratio'], 2)}), {place['rows']:,} rows (ln "
            f"{place['log_rows']:.2f}): {advice['regime']}")


def advice_lines(advice: Results) -> list[str]:
    """The advice, wrapped."""
    lines: list[str] = ["Where this set stands"]
    if advice["position"]:
        lines += _wrapped(position_text(advice), "  ")
    for prediction in advice["predictions"]:
        if prediction["applies"]:
            lines += _wrapped(f"predicted: {prediction_text(prediction)} [{prediction['source']}]", "  ")
    lines += _titled("Nearest sets of the paper (LLaMA-2-7B)", [neighbour_text(known) for known in advice["nearest"]])
    lines += _titled("What was found there", [f"{f['stance']}: {f['text']} [{f['source']}]" for f in advice["findings"]])
    lines += _titled("Cautions", [f"{c['text']} [{c['source']}]" for c in advice["cautions"]])
    lines += _titled("Arms to run", [f"{arm['name']}: {arm['reason']}" for arm in advice["arms"]])
    return lines + [f"  {command}" for command in advice["commands"]]


def _titled(title: str, texts: Iterable[str]) -> list[str]:
    lines = [line for text in texts for line in _wrapped(f"- {text}", "  ")]
    return [title, *lines] if lines else []
