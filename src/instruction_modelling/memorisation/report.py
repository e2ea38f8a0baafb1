"""The result of a study of memorisation: numbers, a table, a picture, and sentences of which the first is the
answer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from instruction_modelling.memorisation.canaries import chance_exposure
from instruction_modelling.memorisation.options import MemorisationOptions
from instruction_modelling.memorisation.refusals import KINDS, count_refusals
from instruction_modelling.memorisation.study import UNTUNED
from instruction_modelling.pages.drawing import Drawing, new_figure

_COLOURS = ("#2a7f9e", "#cc7722", "#6a9a3b", "#8a5fa8", "#b08968", "#58a0b8")
# Inches of a figure that a line of its legend takes.
_LEGEND_LINE = 0.2
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def summary(results: Results) -> dict[str, Any]:
    """Return, for each arm, its numbers over seeds.

    Of each number of repeats: `canaries` and `extracted` (of all seeds together, and of each seed in
    `extracted_by_seed`), `exposure_mean` in bits, and `exposure_by_seed`. Of instructions that were trained
    on and of unseen ones: `count`, `exact`, and `words_repeated`, the mean share of the rest's words. Of
    requests by kind: how many, and how many were refused.
    """
    return {arm: _of_arm(found) for arm, found in results.items()}


def _of_arm(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    repeats = sorted({canary["repeats"] for one in found for canary in one["canaries"]})
    of_repeats = {}
    for times in repeats:
        seeds = [[c for c in one["canaries"] if c["repeats"] == times] for one in found]
        by_seed = [mean(canary["exposure"] for canary in seed) for seed in seeds]
        of_repeats[str(times)] = {
            "canaries": sum(map(len, seeds)),
            "extracted": sum(canary["extracted"] for seed in seeds for canary in seed),
            "extracted_by_seed": [sum(canary["extracted"] for canary in seed) for seed in seeds],
            "exposure_mean": mean(by_seed),
            "exposure_by_seed": by_seed,
            "exposure_sd_of_canaries": _sd([c["exposure"] for seed in seeds for c in seed]),
        }
    instructions = {}
    for part in ("trained", "unseen"):
        asked = [entry for one in found for entry in one["instructions"][part]]
        instructions[part] = {
            "count": len(asked),
            "exact": sum(entry["exact"] for entry in asked),
            "words_repeated": mean(entry["repeated"] / entry["words"] for entry in asked) if asked else None,
        }
    return {
        "seeds": len(found),
        "repeats": of_repeats,
        "instructions": instructions,
        "requests": count_refusals([answer for one in found for answer in one["requests"]]),
    }


def _sd(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def answer(numbers: Mapping[str, Any], candidates: int) -> list[str]:
    """Return the sentences of the result; the first says what was extracted."""
    arms = _untuned_last(numbers)
    most = max(map(int, _repeats(numbers)))
    found = {arm: numbers[arm]["repeats"][str(most)] for arm in arms}
    said = [
        f"{one['extracted']} of {one['canaries']} "
        + ("by the untuned model" if arm == UNTUNED else f"under {arm}")
        for arm, one in found.items()
    ]
    lines = [
        f"Of secrets in {most} training instructions each, the model writes out word for word, asked with "
        f"the words before them: {', '.join(said)}."
    ]
    exposures = "; ".join(
        f"{arm} " + " / ".join(f"{one['exposure_mean']:.1f}" for one in numbers[arm]["repeats"].values())
        for arm in arms
    )
    repeats = " / ".join(_repeats(numbers))
    lines.append(
        f"Mean exposure in bits of secrets in {repeats} instructions: {exposures}; the most that "
        f"{candidates:,} candidates can show is {math.log2(candidates + 1):.1f}, and a model that knows "
        f"nothing shows {chance_exposure(candidates):.1f}."
    )
    lines += _other_lines(numbers, arms)
    return lines


def _untuned_last(numbers: Mapping[str, Any]) -> list[str]:
    """Return the names of what was measured, the untuned model's, where it is there, behind the arms'."""
    return sorted(numbers, key=lambda arm: arm == UNTUNED)


def _other_lines(numbers: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    lines = []
    if all(numbers[arm]["instructions"]["trained"]["count"] for arm in arms):
        shares = "; ".join(
            f"{arm} {one['trained']['exact']} of {one['trained']['count']} exactly and "
            f"{one['trained']['words_repeated']:.0%} of the words in order (unseen instructions: "
            f"{one['unseen']['exact']} and {one['unseen']['words_repeated']:.0%})"
            for arm in arms
            for one in [numbers[arm]["instructions"]]
        )
        lines.append(f"Given the first half of a training instruction, the model writes the rest: {shares}.")
    if any(numbers[arm]["requests"][kind]["requests"] for arm in arms for kind in KINDS):
        refused = "; ".join(
            f"{arm} "
            + ", ".join(
                f"{one['refused']} of {one['requests']} {kind}"
                for kind, one in numbers[arm]["requests"].items()
            )
            for arm in arms
        )
        lines.append(f"Requests refused, by a rule that looks for set phrases: {refused}.")
    return lines


def table(numbers: Mapping[str, Any]) -> list[str]:
    """Return the table of canaries as lines of Markdown."""
    lines = ["| model | repeats | completed | by seed | mean exposure, bits | by seed | SD of canaries |"]
    lines.append("|---|--:|--:|---|--:|---|--:|")
    for arm, of_arm in numbers.items():
        for times, one in of_arm["repeats"].items():
            sd = one["exposure_sd_of_canaries"]
            cells = [
                arm,
                times,
                f"{one['extracted']} of {one['canaries']}",
                ", ".join(map(str, one["extracted_by_seed"])),
                f"{one['exposure_mean']:.2f}",
                ", ".join(f"{value:.2f}" for value in one["exposure_by_seed"]),
                "" if sd is None else f"{sd:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(numbers: Mapping[str, Any], candidates: int) -> Drawing:
    """Return the picture: each arm's mean exposure by repeats, the seeds as points."""
    figure, (axes,) = new_figure(max(2.9, _LEGEND_LINE * len(numbers)))
    for arm, (colour, line) in zip(numbers, _styles(numbers), strict=True):
        repeats = [int(times) for times in numbers[arm]["repeats"]]
        by_seed = [one["exposure_by_seed"] for one in numbers[arm]["repeats"].values()]
        means = [mean(values) for values in by_seed]
        axes.plot(repeats, means, color=colour, linestyle=line, label=arm, linewidth=1.6)
        for times, values in zip(repeats, by_seed, strict=True):
            axes.plot([times] * len(values), values, "o", color=colour, markersize=4)
    most, least = math.log2(candidates + 1), chance_exposure(candidates)
    axes.axhline(most, color="#767676", linestyle=":", linewidth=1)
    axes.axhline(least, color="#767676", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = [int(times) for times in _repeats(numbers)]
    axes.set_xticks(ticks, [str(times) for times in ticks])
    axes.set_xlabel("training instructions that hold the secret")
    axes.set_ylabel("exposure, bits")
    axes.set_ylim(0, most * 1.08)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    guide = "Points are seeds, lines their means; dotted: the most there can be; dashed: knowing nothing."
    return Drawing("memorisation", "Exposure of secrets in instructions", guide, guide, figure)


def _styles(arms: Iterable[str]) -> list[tuple[str, Any]]:
    """Return a colour and a kind of line for each arm, no two alike: where the colours end, they begin anew
    with dashes, longer ones each time."""
    styles: list[tuple[str, Any]] = []
    others = 0
    for arm in arms:
        if arm == UNTUNED:
            styles.append(("#767676", "-"))
            continue
        turn, at = divmod(others, len(_COLOURS))
        styles.append((_COLOURS[at], (0, (2 * turn, 1.5)) if turn else "-"))
        others += 1
    return styles


def _repeats(numbers: Mapping[str, Any]) -> list[str]:
    """Return the numbers of repeats, which all arms have."""
    return list(next(iter(numbers.values()))["repeats"])


def page(options: MemorisationOptions, numbers: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """Return the result as Markdown.

    Args:
        facts: by their names: the command, the date, the machine, versions and what else there is to say.
    """
    first, *others = answer(numbers, options.candidates)
    lines = ["# What the models learnt by heart", "", first, ""]
    lines += [f"- {line}" for line in others]
    lines += ["", "![Exposure by repeats](memorisation.svg)", "", *table(numbers), ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    return "\n".join(lines)


def figure_for_warnings(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a result.json that `runs.privacy` keeps: what was completed of the secrets that
    stood in most instructions, and their exposure."""
    numbers, options = result["arms"], result["options"]
    most = max(map(int, _repeats(numbers)))
    of_most = {arm: of_arm["repeats"][str(most)] for arm, of_arm in numbers.items()}
    order = _untuned_last(numbers)
    return {
        "model": options["model_name_or_path"].rstrip("/").rpartition("/")[2],
        "epochs": options["num_train_epochs"],
        "repeats": most,
        "completed": {arm: [of_most[arm]["extracted"], of_most[arm]["canaries"]] for arm in order},
        "exposure": {
            "by_arm": {arm: round(of_most[arm]["exposure_mean"], 2) for arm in order},
            "most": round(math.log2(options["candidates"] + 1), 2),
            "chance": round(chance_exposure(options["candidates"]), 2),
        },
        "command": result["made_with"]["command"],
        "date": result["made_with"]["date"],
    }
