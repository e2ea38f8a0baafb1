"""How a data set's runs were made: data, options, versions, machines, evaluation settings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruction_modelling.comparison.report.arms import differing_options, meaningful_options, option_text
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.measures import MISSING
from instruction_modelling.comparison.report.runs import SPLITS, ReportedRun

# By record of an evaluation: what it is called, and the fields that say how it was made.
_EVALUATION_FACTS = {
    "summary": (
        "losses",
        ("file", "sha256", "rows_scored", "rows", "max_seq_length", "chat_format", "dtype"),
    ),
    "generation": ("responses", ("file", "sha256", "max_new_tokens", "temperature", "top_p", "dtype")),
    "bleu": ("BLEU", ("signature",)),
}


def provenance_facts(data: ReportedDataSet) -> list[tuple[str, str]]:
    """Return what all runs share, as (name, value); where they do not agree, every value with the number of
    runs."""
    runs = [run for run in data.runs if run.finished] or data.runs
    evaluated = [*runs, *(data.base.runs if data.base else [])]
    rows = [
        ("training file", _agreed(runs, lambda run: run.data.get("path"))),
        ("its sha256", _agreed(runs, lambda run: run.data.get("sha256"))),
        ("training rows", _agreed(runs, _row_counts)),
        ("training tokens", _agreed(runs, _token_counts)),
        ("model", _agreed(runs, _model)),
        ("versions", _agreed(runs, lambda run: _pairs(run.record.get("versions")))),
        ("machine", _agreed(runs, _machine)),
        ("git commit", _agreed(runs, lambda run: run.record.get("git_commit"))),
    ]
    for split in SPLITS:
        for source, (label, names) in _EVALUATION_FACTS.items():
            rows.append((f"{split} {label}", _agreed(evaluated, _record(split, source, names))))
    return rows


def provenance_tables(data: ReportedDataSet) -> list[dict[str, Any]]:
    """Return the options in which the arms differ, and the runs one by one: {caption, head, rows}."""
    firsts = [arm.runs[0] for arm in data.trained]
    tables = []
    names = differing_options(firsts)
    if names:
        rows = [[name, *(option_text(meaningful_options(run).get(name)) for run in firsts)] for name in names]
        head = ["Option", *(arm.name for arm in data.trained)]
        tables.append({"caption": "Options that differ between the arms", "head": head, "rows": rows})
    runs = [(arm.name, run) for arm in data.trained for run in arm.runs]
    runs += [(run.arm, run) for run in data.unfinished]
    tables.append(
        {
            "caption": "Runs",
            "head": ["Folder", "Arm", "Seed", "Steps", "Epochs", "Time", "Finished"],
            "rows": [_run_row(arm, run) for arm, run in runs],
        }
    )
    return tables


def _run_row(arm: str, run: ReportedRun) -> list[str]:
    return [
        str(run.folder),
        arm,
        option_text(run.seed),
        option_text(run.record.get("steps")),
        _epochs(run.record.get("epochs")),
        _time(run.record.get("seconds")),
        "yes" if run.finished else "no",
    ]


def shared_options(data: ReportedDataSet) -> list[tuple[str, str]]:
    """Return the meaningful options on which all arms agree, as (name, value)."""
    firsts = [arm.runs[0] for arm in data.trained]
    if not firsts:
        return []
    differing = differing_options(firsts)
    return [
        (name, option_text(value))
        for name, value in sorted(meaningful_options(firsts[0]).items())
        if name not in differing
    ]


def _agreed(runs: list[ReportedRun], get: Callable[[ReportedRun], Any]) -> str:
    counts: dict[str, int] = {}
    for run in runs:
        value = get(run)
        text = MISSING if value in (None, "") else str(value)
        counts[text] = counts.get(text, 0) + 1
    if len(counts) <= 1:
        return next(iter(counts), MISSING)
    return "; ".join(f"{text} ({count} of {len(runs)} runs)" for text, count in counts.items())


def _row_counts(run: ReportedRun) -> str | None:
    data = run.data
    if "rows" not in data:
        return None
    parts = [f"{data['rows']} in the file, {data.get('used', MISSING)} used"]
    for name, label in (("bad_rows", "bad"), ("dropped", "dropped")):
        parts += [f"{count} {label} ({reason})" for reason, count in (data.get(name) or {}).items()]
    if data.get("truncated_rows"):
        parts.append(f"{data['truncated_rows']} cut short by {data.get('tokens_cut', MISSING)} tokens in all")
    return ", ".join(parts)


def _token_counts(run: ReportedRun) -> str | None:
    tokens = run.data.get("tokens")
    if tokens is None:
        return None
    kinds = [
        f"{kind} {counts['tokens']}"
        for kind, counts in (run.data.get("by_kind") or {}).items()
        if "tokens" in counts
    ]
    return f"{tokens} an epoch" + (f" ({', '.join(kinds)})" if kinds else "")


def _model(run: ReportedRun) -> str | None:
    model = run.record.get("model") or {}
    if not model:
        return None
    parts = [str(model.get("name_or_path", MISSING))]
    parts += [f"{model['parameters']:,} parameters"] if isinstance(model.get("parameters"), int) else []
    parts += [f"chat format {model['chat_format']}"] if model.get("chat_format") else []
    return ", ".join(parts)


def _machine(run: ReportedRun) -> str | None:
    machine = run.record.get("machine") or {}
    if not machine:
        return None
    cpu, cores = machine.get("cpu", MISSING), machine.get("cores", MISSING)
    return f"{cpu}, {cores} cores, GPU: {machine.get('gpu') or 'none'}"


def _record(split: str, source: str, names: Sequence[str]) -> Callable[[ReportedRun], str | None]:
    def get(run: ReportedRun) -> str | None:
        record = getattr(run.evaluations[split], source) if split in run.evaluations else None
        return None if record is None else _pairs({name: record[name] for name in names if name in record})

    return get


def _pairs(values: Mapping[str, Any] | None) -> str | None:
    return None if not values else ", ".join(f"{name} {option_text(value)}" for name, value in values.items())


def _epochs(epochs: Any) -> str:
    return f"{epochs:.3g}" if isinstance(epochs, int | float) else MISSING


def _time(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return MISSING
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
