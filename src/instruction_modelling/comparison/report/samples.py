"""Responses side by side: a few test rows with every arm's response, and prompts answered while training."""

from collections.abc import Mapping, Sequence
from typing import Any

from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.measures import MISSING

_SAMPLES = 6
# Prompts of --sample_file that are shown, and steps of each.
_PROMPTS, _STEPS = 4, 6
_MOST_CHARACTERS = 1500


def sample_rows(data: ReportedDataSet, looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Return rows spread evenly over the test file, with every arm's response (of its first seed that has
    any)."""
    by_arm = {arm.name: _responses(arm) for arm in data.arms}
    rows = sorted({row for responses in by_arm.values() for row in responses})
    picked = [rows[int((count + 0.5) * len(rows) / _SAMPLES)] for count in range(_SAMPLES)] if rows else []
    samples = []
    for row in dict.fromkeys(picked):
        records = {name: responses.get(row) for name, responses in by_arm.items()}
        # The prompt and the reference are the same in all of them.
        shared = next(record for record in records.values() if record)
        samples.append(
            {
                "row": row,
                "id": shared.get("id"),
                "instruction": _clipped(shared.get("instruction") or ""),
                "prompt": _clipped(shared.get("prompt") or ""),
                "reference": shared.get("reference") or MISSING,
                "texts": [_response(name, record, looks[name]) for name, record in records.items()],
            }
        )
    return samples


def samples_note(data: ReportedDataSet, count: int) -> str:
    """Return how the shown rows were chosen."""
    several = any(len(arm.runs) > 1 for arm in data.trained)
    seeds = " Of an arm with several seeds, the first one's." if several else ""
    return f"{count} test rows spread evenly over the file, chosen by position and not by content.{seeds}"


def samples_while_training(data: ReportedDataSet, looks: Mapping[str, Look]) -> list[dict[str, Any]]:
    """Return the first prompts that were answered while training (--sample_file), each with the responses of
    every arm (of its first seed that has any) at a few steps, the first and the last among them."""
    by_arm = {arm.name: next(filter(None, (run.samples() for run in arm.runs)), []) for arm in data.trained}
    instructions = dict.fromkeys(line.get("instruction") for lines in by_arm.values() for line in lines)
    return [
        {
            "instruction": _clipped(str(instruction)),
            "texts": [
                {**_response(name, line, looks[name]), "name": f"{name}, step {line.get('step')}"}
                for name, lines in by_arm.items()
                for line in _spread([line for line in lines if line.get("instruction") == instruction])
            ],
        }
        for instruction in list(instructions)[:_PROMPTS]
    ]


def _spread(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a few of the lines, evenly spread, the first and the last among them."""
    if len(lines) <= _STEPS:
        return list(lines)
    return [lines[round(number * (len(lines) - 1) / (_STEPS - 1))] for number in range(_STEPS)]


def _responses(arm: ReportedArm) -> dict[int, dict[str, Any]]:
    by_run = (run.evaluations["test"].responses for run in arm.runs)
    return next((responses for responses in by_run if responses), {})


def _response(name: str, record: dict[str, Any] | None, look: Look) -> dict[str, Any]:
    text = record.get("response") if record else None
    if text is None:
        shown = MISSING
    else:
        shown = _clipped(text.strip()) or ("(only white space)" if text else "(empty)")
    return {
        "name": name,
        "colour": look.colour,
        "remark": _remark(record),
        "missing": not (text or "").strip(),
        "text": shown,
    }


def _remark(record: dict[str, Any] | None) -> str:
    if record is None or record.get("response") is None:
        return ""
    if record.get("finished") is False:
        return "did not stop"
    is_reference = record["response"].strip() == (record.get("reference") or "").strip()
    return "same as the reference" if is_reference else ""


def _clipped(text: str) -> str:
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]} […, {left_out} more characters]"
