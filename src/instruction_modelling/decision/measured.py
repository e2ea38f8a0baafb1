"""What the runs of a protocol have left: losses, scores, and why some are of no use."""

import math

from instruction_modelling.decision.losses import losses_in
from instruction_modelling.decision.runs import BASE, LOSSES, PART_OF, RESPONSES, ProtocolRuns
from instruction_modelling.decision.task_score import scores_of
from instruction_modelling.rows.json_lines import read_appended


def losses_of(runs: ProtocolRuns, arm: str, seeds: int, part: str) -> list[dict[int, float]]:
    """Return the NLL per response token of each row of a part, for each seed; one entry for the untuned
    model."""
    return [losses_in(runs.run_of(arm, seed) / LOSSES[part]) for seed in _seeds_of(arm, seeds)]


def scores_by_task(runs: ProtocolRuns, arm: str, seeds: int) -> list[dict[int, float]]:
    """Return the score of each test row by the protocol's task, as `losses_of` returns losses."""
    assert runs.protocol.task is not None
    places = [runs.run_of(arm, seed) / RESPONSES for seed in _seeds_of(arm, seeds)]
    return [scores_of(runs.protocol.task, place) for place in places]


def alike_rows(runs: ProtocolRuns, part: str) -> list[list[int]]:
    """Return the rows of a part that say nearly the same, by their numbers."""
    file = runs.alike_file(part)
    return [record["rows"] for _, record in read_appended(file).records] if file.exists() else []


def why_not_measured(runs: ProtocolRuns, arm: str, seeds: int, part: str) -> str:
    """Return why a part's losses of an arm are of no use, as those of another command; else nothing."""
    if why := _why_not_matched(runs, arm, seeds):
        return why
    for seed in _seeds_of(arm, seeds):
        if not runs.is_made(arm, seed, LOSSES[part]):
            of_seed = "" if arm == BASE else f", seed {seed}"
            return f"its losses on {part} rows were not measured{of_seed}; the messages above say why"
        path = runs.run_of(arm, seed) / LOSSES[part]
        wrong = [row for row, nll in losses_in(path).items() if not math.isfinite(nll)]
        if wrong:
            return (
                f"the loss of {part} row {wrong[0]} is no number ({path}): training has diverged; try a "
                "smaller --learning_rate, or leave the arm out"
            )
    return ""


def _why_not_matched(runs: ProtocolRuns, arm: str, seeds: int) -> str:
    """Return why an arm that stops where another one ends was not matched with it; nothing of others."""
    stop = runs.rules_of(arm).stop_at if arm != BASE else None
    if stop is None:
        return ""
    for seed in range(seeds):
        is_measured = runs.is_made(arm, seed, LOSSES[PART_OF[stop.quantity]])
        if (is_matched := seed in runs.matches().get(arm, {})) and is_measured:
            continue
        what = "how far it got" if is_matched else "its trial run"
        return f"{what} with seed {seed} was not measured; the messages above say why"
    return ""


def why_not_answered(runs: ProtocolRuns, arm: str, seeds: int) -> str:
    """Return why an arm's test rows cannot be scored; nothing where they can."""
    for seed in range(seeds):
        if not runs.is_made(arm, seed, RESPONSES):
            return f"the responses of {arm}, seed {seed}, were not made; the messages above say why"
    return ""


def _seeds_of(arm: str, seeds: int) -> range:
    return range(1 if arm == BASE else seeds)
