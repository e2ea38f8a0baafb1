"""answer.html: one self-contained page, without scripts and without anything to load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.arms.rules import RULES
from instruction_modelling.arms.table import read_arms
from instruction_modelling.decision.answer import Answer, decidable_margin, not_tested
from instruction_modelling.decision.options import REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.protocol import Protocol, other_protocols
from instruction_modelling.decision.runs import BASE, ProtocolRuns
from instruction_modelling.decision.verdict import Decision
from instruction_modelling.pages.drawing import Drawing, Picture, as_picture, drawing_style, new_figure
from instruction_modelling.pages.templates import render_page
from instruction_modelling.progress import counted
from instruction_modelling.rows.json_lines import read_appended
from instruction_modelling.runs.privacy import privacy_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNTUNED = "the untuned model"
PRIVACY = "A loss on the instruction makes the model learn what users wrote, by heart where it is repeated."
_COLOURS = {"helps": "#0072b2", "hurts": "#d55e00"}
_UNSURE = "#767676"
_MOST_CHARACTERS = 1500
# Inches: about what a telephone shows at full size.
_PICTURE_WIDTH = 4.6


def answer_page(answer: Answer, runs: ProtocolRuns, facts: Mapping[str, Any]) -> str:
    """Return the page's HTML.

    Args:
        facts: `command` (that made it), `next` (what to do next, in commands), `other_protocols` (of the same
            data, as `protocol.other_protocols` gives them) and `looks` (spent so far).
    """
    with drawing_style():
        picture = _picture(answer)
    return render_page(
        Path(__file__).parent,
        title="Does a loss on the instruction help here?",
        verdict=answer.verdict,
        lines=answer.lines(),
        picture=picture,
        table=_table(answer),
        controls=_controls(answer, runs),
        elsewhere=_elsewhere(answer),
        elsewhere_data=(answer.protocol.out_of_domain or {}).get("data"),
        arm_words=arm_words,
        outcome=outcome_words(answer.protocol.as_dict()),
        protocol=answer.protocol.as_dict(),
        decidable=f"{decidable_margin(answer.protocol, answer.seeds):.2g}",
        confidence=f"{answer.protocol.confidence:.1%}",
        holm={name: f"{value:.3g}" for name, value in answer.adjusted_p_values().items()},
        not_tested=not_tested(answer.protocol),
        privacy=f"{PRIVACY} {privacy_note()}",
        samples=[] if runs.options.no_texts else _samples(answer, runs),
        no_texts=runs.options.no_texts,
        lacks_texts=_lacks_texts(answer, runs),
        tuned=_tuned(answer),
        scores=_scores(answer),
        **facts,
    )


def text_answer(answer: Answer) -> str:
    """Return the answer as the terminal shows it: the page without its picture, responses and protocol."""
    rows, controls = _table(answer), answer.against_controls
    width = max(len(row["arm"]) for row in rows)
    table = [f"{'':{width}}  test loss  gain over IT (interval)"]
    table += [f"{row['arm']:{width}}  {row['loss']:>9}  {row['gain']}" for row in rows]
    if controls:
        table += ["", f"{'':{width}}  gain of IM over it (interval)"]
        table += [f"{arm:{width}}  {_interval(one)}, {one.verdict}" for arm, one in controls.items()]
    for row in _scores(answer):
        table += ["", f"by your score, {row['what']}: {row['gain']}, {row['verdict']}"]
    untested = [f"- {line}" for line in not_tested(answer.protocol)]
    warning = f"Before you use an IM model: {PRIVACY} {privacy_note()}"
    return "\n".join([*answer.lines(), "", *table, "", "What was not tested:", *untested, "", warning])


def _table(answer: Answer) -> list[dict[str, str]]:
    rows = []
    for arm, loss in sorted(answer.mean_losses.items(), key=lambda pair: (pair[0] == BASE, pair[1])):
        decision, own_rows = answer.against_reference.get(arm), answer.rows_of_arms.get(arm)
        if arm == BASE:
            of_reference = answer.against_untuned[REFERENCE]
            low, high = of_reference.interval or (0.0, 0.0)
            gain = f"{-of_reference.mean:+.3f} ({-high:+.3f} to {-low:+.3f})"
        else:
            gain = _interval(decision) if decision else "the reference"
        rows.append(
            {
                "arm": UNTUNED if arm == BASE else arm,
                "loss": f"{loss:.3f}" + (f" ({own_rows:,} rows)" if own_rows else ""),
                "gain": gain,
                "verdict": decision.verdict if decision else "",
                "kind": _kind(answer, arm),
            }
        )
    return rows


def _controls(answer: Answer, runs: ProtocolRuns) -> list[dict[str, str]]:
    """Return what each control is, and IM's gain over it; of one that cannot be had, why."""
    known = read_arms(runs.options.arms_file)
    rows = []
    for arm, decision in answer.against_controls.items():
        about = known[arm].about
        if matched := answer.matched.get(arm):
            about += f" ({_matched_words(matched)})"
        kind = "H2, confirmed" if decision is answer.confirmed.get("H2") else "exploratory"
        gain = {"gain": _interval(decision), "verdict": decision.verdict}
        rows.append({"arm": arm, "about": f"{about} ({kind})", **gain})
    for arm, why in answer.not_reached.items():
        about = ": ".join(filter(None, (known[arm].about, why)))
        rows.append({"arm": arm, "about": about, "gain": "", "verdict": ""})
    return rows


def _matched_words(matched: Mapping[str, Any]) -> str:
    steps, what = matched["steps"], "KL" if matched["quantity"] == "kl" else "loss"
    target, reached = (sum(matched[name]) / len(steps) for name in ("targets", "reached"))
    between = f"{min(steps)} to {max(steps)} steps" if len({*steps}) > 1 else counted(steps[0], "step")
    return f"{between}; mean {what} of {matched['of']} {target:.3f}, of this arm {reached:.3f}"


def _elsewhere(answer: Answer) -> list[dict[str, str]]:
    """Return every arm's loss on the rows of another kind, and its gain over IT there."""
    rows = []
    losses = sorted(answer.out_of_domain_losses.items(), key=lambda pair: (pair[0] == BASE, pair[1]))
    for arm, loss in losses:
        decision = answer.out_of_domain.get(arm)
        gain = _interval(decision) if decision else "the reference"
        if arm == BASE:
            gain = f"{answer.out_of_domain_losses[REFERENCE] - loss:+.3f}"
        rows.append({"arm": UNTUNED if arm == BASE else arm, "loss": f"{loss:.3f}", "gain": gain})
    return rows


def _tuned(answer: Answer) -> str:
    """Return what H3 says, which is not a gain over IT and so stands beside the table; nothing without it."""
    decision = answer.confirmed.get("H3")
    if decision is None:
        return ""
    return (
        f"{decision.arm} against {decision.reference} (H3, confirmed): {_interval(decision)}, "
        f"{decision.verdict}."
    )


def _scores(answer: Answer) -> list[dict[str, str]]:
    """Return what the user's score says of each hypothesis."""
    return [
        {"what": f"{name}: {one.arm} against {one.reference}", "gain": _interval(one), "verdict": one.verdict}
        for name, one in answer.by_score.items()
    ]


def _kind(answer: Answer, arm: str) -> str:
    """Return what the gain over IT is that stands beside an arm: only IM's is confirmed there."""
    if arm in (REFERENCE, BASE):
        return ""
    if arm == TREATMENT:
        return "confirmed"
    is_control = arm in (REWEIGHTED, *answer.against_controls)
    return f"{'control, ' if is_control else ''}exploratory"


def _interval(decision: Decision) -> str:
    if decision.interval is None:
        return f"{decision.mean:+.3f}"
    low, high = decision.interval
    return f"{decision.mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _picture(answer: Answer) -> Picture:
    decisions = [*answer.against_reference.values()]
    figure, (axes,) = new_figure(1.3 + 0.36 * len(decisions))
    figure.set_figwidth(_PICTURE_WIDTH)
    margin = answer.protocol.margin
    axes.axvspan(-margin, margin, color=_UNSURE, alpha=0.15, linewidth=0, label="does not matter")
    axes.axvline(0, color="#1b1d21", linewidth=0.8)
    for row, decision in enumerate(decisions):
        _draw(axes, row, decision)
    axes.set_yticks(range(len(decisions)), [decision.arm for decision in decisions])
    axes.set_ylim(len(decisions) - 0.4, -0.6)
    axes.set_xlabel("gain over IT, nats a response token\n(right: better than IT)")
    alt = "; ".join(f"{decision.arm} {_interval(decision)}" for decision in decisions)
    guide = (
        f"Each point is an arm's mean gain over IT on the test rows, with its interval over seeds and rows; "
        f"the band is what does not matter (±{margin:g}). {TREATMENT}'s interval is the confirming one "
        f"({answer.protocol.confidence:.1%}), the others' are exploratory "
        f"({answer.protocol.confidence_of_others:.1%})."
    )
    return as_picture(Drawing("gains", "How much each arm gains over IT", guide, f"Gains: {alt}.", figure))


def _draw(axes: "Axes", row: int, decision: Decision) -> None:
    colour = _COLOURS.get(decision.verdict, _UNSURE)
    if decision.interval:
        axes.plot(decision.interval, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(decision.by_seed, [row] * len(decision.by_seed), "|", color=colour, markersize=7, alpha=0.6)
    axes.plot([decision.mean], [row], "o", color=colour, markersize=6)


def _samples(answer: Answer, runs: ProtocolRuns) -> list[dict[str, Any]]:
    """Return test rows with the response of every measured arm's first seed that was generated."""
    arms = [arm for arm in runs.arms() if arm in answer.mean_losses and runs.has_texts(arm, 0)]
    folders = {UNTUNED: runs.base, **{arm: runs.run(arm, 0) for arm in arms}}
    by_arm = {
        arm: _responses(folder / "eval" / "test" / "responses.jsonl") for arm, folder in folders.items()
    }
    rows = sorted({row for responses in by_arm.values() for row in responses})
    samples = []
    for row in rows[: runs.options.shown_responses]:
        records = {arm: responses[row] for arm, responses in by_arm.items() if row in responses}
        shared = next(iter(records.values()))
        samples.append(
            {
                "row": row,
                "instruction": _clipped(shared.get("instruction")),
                "reference": _clipped(shared.get("reference")),
                "texts": [(arm, _clipped(record.get("response"))) for arm, record in records.items()],
            }
        )
    return samples


def _lacks_texts(answer: Answer, runs: ProtocolRuns) -> int:
    """Return the number of responses that were asked for where a model has fewer, else 0."""
    asked = min(runs.options.shown_responses, answer.protocol.test_rows)
    arms = [arm for arm in answer.mean_losses if arm != BASE]
    files = [runs.run(arm, 0) / "eval" / "test" / "responses.jsonl" for arm in arms]
    return asked if any(len(_responses(file)) < asked for file in files) else 0


def _responses(path: Path) -> dict[int, dict[str, Any]]:
    return {line["row"]: line for _, line in read_appended(path).records} if path.exists() else {}


def _clipped(text: str | None) -> str:
    text = (text or "").strip() or "(empty)"
    left_out = len(text) - _MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:_MOST_CHARACTERS]} […, {left_out} more characters]"


def words_of_others(root: Path, protocol: Protocol) -> list[str]:
    """Return, in lines for the terminal, which other protocols the folder holds and what differs: they are
    not gone on with, and their looks are theirs."""
    return [
        f"in the same folder, and not gone on with: protocol {other['id']}, which differs in "
        f"{', '.join(other['differs_in'])}; {counted(len(other['verdicts']), 'look')} taken of it"
        for other in other_protocols(root, protocol)
    ]


def words_of_protocol(protocol: Mapping[str, Any]) -> Sequence[str]:
    """Return a protocol in lines for the terminal."""
    arms = [f"  {arm['name']}: {arm_words(arm)}" for arm in protocol["arms"]]
    elsewhere, left_out = protocol.get("out_of_domain"), protocol["left_out_rows"]
    return [
        f"protocol {protocol['id']}: does a loss on the instruction help on {protocol['data']}?",
        f"outcome: {outcome_words(protocol)}; what matters: {protocol['margin']:g}",
        f"rows: {protocol['test_rows']:,} to test on (sealed, sha256 {protocol['test_sha256'][:12]}…), "
        f"{protocol['validation_rows']:,} to choose a weight on, {protocol['pool_rows']:,} to train from, of "
        f"which each seed draws {protocol['train_rows']:,}; {protocol['clusters']:,} clusters of near-"
        "duplicates kept together"
        + (f"; {left_out:,} rows left out, listed in rows_left_out.jsonl" if left_out else ""),
        f"looks: after {', '.join(map(str, protocol['look_seeds']))} seeds, each with a share of the error "
        f"{protocol['error']:g}; confirmed: "
        + " and ".join(f"{h['name']} {h['arm']} against {h['reference']}" for h in protocol["hypotheses"]),
        *(
            [
                f"out of domain: {elsewhere['rows']:,} rows of {elsewhere['data']}, exploratory; "
                f"{elsewhere['too_like_ours']:,} left out as near-duplicates of yours"
            ]
            if elsewhere
            else []
        ),
        "arms:",
        *arms,
    ]


def outcome_words(protocol: Mapping[str, Any]) -> str:
    """Return the outcome of protocol.json in words, with what it counts as a row."""
    distinct = protocol.get("distinct_test_rows")
    return protocol["outcome"] + (f"; near-duplicates are one row, so {distinct:,}" if distinct else "")


def arm_words(arm: Mapping[str, Any]) -> str:
    """Return an arm of protocol.json in words: its flags, and what it has beside them."""
    words = [" ".join(arm["flags"]) or "no flag of its own"]
    for key in RULES:
        if isinstance(rule := arm.get(key), Mapping):
            words.append(f"{key} " + " ".join(f"{name}={value}" for name, value in rule.items()))
        elif rule:
            words.append(f"{key} {rule}")
    return "; ".join(words)
