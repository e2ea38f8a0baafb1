"""The answer to a protocol's question, in numbers and in sentences that claim no more than these."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instruction_modelling.comparison.row_sets import held_out_rows
from instruction_modelling.decision.crossed import expected_half_width, holm
from instruction_modelling.decision.made_by import differences
from instruction_modelling.decision.options import HEALED, REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.protocol import Protocol
from instruction_modelling.decision.runs import BASE, ProtocolRuns, matrix_of, shared_rows
from instruction_modelling.decision.tuning import chosen_flags
from instruction_modelling.decision.verdict import Decision, decide
from instruction_modelling.progress import counted

# Of a gain over seeds, rows and what neither explains, in nats squared: a guess from small models on short
# answers, for what can be said before anything is measured.
EXPECTED_VARIANCES = (0.03**2, 0.4**2, 0.1**2)


_SAME_ROWS = "All seeds train on the same rows, so the answer is for this training file only."
# IM beside another model, by the verdict.
_AGAINST = {
    "helps": "is better than",
    "hurts": "is worse than",
    "no difference that matters": "differs by less than what matters from",
    "cannot tell": "is not clearly better or worse than",
}


@dataclass(frozen=True)
class Answer:
    """What the runs of a look say."""

    protocol: Protocol
    seeds: int
    rows: int
    rows_not_measured: int
    """Test rows without a response token within the maximum length."""
    confirmed: dict[str, Decision]
    """By hypothesis."""
    against_reference: dict[str, Decision]
    """Every other arm against IT; exploratory where it is no hypothesis."""
    against_untuned: dict[str, Decision]
    by_score: dict[str, Decision]
    """The hypotheses by the task's score; empty without a task. Exploratory."""
    mean_losses: dict[str, float]
    """Of every arm and the untuned model, on the test rows."""
    against_controls: dict[str, Decision]
    """IM against every arm that has other rows, or another end, by that arm; exploratory."""
    matched: dict[str, dict[str, Any]]
    """How each arm was matched that stops where another one ends."""
    not_reached: dict[str, str]
    """The arms of these that cannot be had, and why."""
    out_of_domain: dict[str, Decision]
    """Every other arm against IT on the rows of another kind; empty without such rows. Exploratory."""
    out_of_domain_losses: dict[str, float]
    """Of every arm and the untuned model, on those rows."""
    chosen_weight: tuple[str, Decision] | None
    """The arm of IT, IM and the weights between that has the lowest validation loss, and its gain over IT on
    test rows; None without weights between."""
    settings: dict[str, tuple[str, ...]]
    """The flags of each tuned arm; empty where none is tuned."""
    winner: str
    """The arm to train in the end."""
    made_differently: list[str]
    """The seeds whose arms were not all made by the same code, versions and machine, in words."""

    @property
    def verdict(self) -> str:
        """Return the answer to the question: H1's verdict."""
        return self.confirmed["H1"].verdict

    def adjusted_p_values(self) -> dict[str, float]:
        """Return the p-values of the hypotheses, that the mean gain is 0, adjusted for their number (Holm)
        and for the looks (Bonferroni), which intervals are too."""
        names = [name for name, decision in self.confirmed.items() if decision.gain]
        values = [d.gain.p_value() for d in self.confirmed.values() if d.gain]
        looks = len(self.protocol.look_seeds)
        return {name: min(1.0, looks * value) for name, value in zip(names, holm(values), strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as answer.json holds it."""
        chosen = self.chosen_weight
        return {
            "verdict": self.verdict,
            "answer": self.lines(),
            "protocol": self.protocol.id,
            "seeds": self.seeds,
            "test_rows": self.rows,
            "test_rows_not_measured": self.rows_not_measured,
            "margin": self.protocol.margin,
            "hypotheses": {name: decision.as_dict() for name, decision in self.confirmed.items()},
            "holm_p_values": self.adjusted_p_values(),
            "against_IT": {name: decision.as_dict() for name, decision in self.against_reference.items()},
            "against_untuned": {name: decision.as_dict() for name, decision in self.against_untuned.items()},
            "by_task_score": {name: decision.as_dict() for name, decision in self.by_score.items()},
            "mean_test_loss": self.mean_losses,
            "against_controls": {name: one.as_dict() for name, one in self.against_controls.items()},
            "matched": self.matched,
            "not_reached": self.not_reached,
            "out_of_domain": {name: one.as_dict() for name, one in self.out_of_domain.items()},
            "mean_out_of_domain_loss": self.out_of_domain_losses,
            "chosen_weight": {"arm": chosen[0], **chosen[1].as_dict()} if chosen else None,
            "tuned_settings": {arm: list(flags) for arm, flags in self.settings.items()},
            "winner": self.winner,
            "made_differently": self.made_differently,
        }

    def lines(self) -> list[str]:
        """Return the answer in sentences: the question's, against the untuned model, what the control says,
        which weight."""
        lines = [self._first_line(), self._untuned_line()]
        if "H2" in self.confirmed:
            lines.append(self._control_line(self.confirmed["H2"]))
        lines += [f"{arm}: {why}." for arm, why in self.not_reached.items()]
        if HEALED in self.against_controls:
            lines.append(self._healed_line(self.against_controls[HEALED]))
        if TREATMENT in self.out_of_domain:
            lines.append(self._elsewhere_line(self.out_of_domain[TREATMENT]))
        if self.by_score:
            lines.append(self._score_line(self.by_score["H1"]))
        if "H3" in self.confirmed:
            lines.append(self._tuned_line(self.confirmed["H3"]))
        if self.chosen_weight:
            arm, decision = self.chosen_weight
            lines.append(
                f"Which weight: {arm} has the lowest loss on the validation rows"
                + ("." if arm == REFERENCE else f"; on the test rows {_gain(decision, 'IT')} (exploratory).")
            )
        if self.protocol.train_rows == self.protocol.pool_rows:
            lines.append(_SAME_ROWS)
        if self.made_differently:
            lines.append(
                f"Arms were not all made alike, {', '.join(self.made_differently)}: what tells them apart "
                "may be that. Another --output_dir makes all of them anew."
            )
        return lines

    def _score_line(self, decision: Decision) -> str:
        words = {"helps": "is better than", "hurts": "is worse than"}.get(decision.verdict, "")
        if decision.verdict == "no difference that matters":
            words = "differs by less than what matters from"
        side = f"IM {words} IT" if words else "whether IM is better than IT cannot be told"
        line = f"By your score, {side}: {decision.mean:+.3f}{_interval(decision)} (exploratory)."
        if {decision.verdict, self.verdict} == {"helps", "hurts"}:
            line += " The loss and the score disagree: the score is what you care about, the loss is not."
        return line

    def _tuned_line(self, decision: Decision) -> str:
        words = {
            "helps": "IM is better also where each has settings of its own",
            "hurts": "IM is worse where each has settings of its own",
            "no difference that matters": "Where each has settings of its own, IM makes no difference that "
            "matters",
        }.get(decision.verdict, "Whether IM is better where each has settings of its own cannot be told")
        chosen = "; ".join(f"{arm} {' '.join(flags)}" for arm, flags in self.settings.items())
        gain = f"{_gain(decision, decision.reference)}{_needed(decision, self.protocol)}"
        return f"{words}: {gain}. Chosen on the validation rows: {chosen}."

    def _first_line(self) -> str:
        decision = self.confirmed["H1"]
        size = f"{counted(self.seeds, 'seed')}, {counted(self.rows, 'test row')}"
        question = f"On {self.protocol.data}, a loss on the instruction"
        margin = f"{self.protocol.margin:g} nats a response token"
        if decision.verdict == "helps":
            return f"{question} helps: {_gain(decision, 'IT')} ({size})."
        if decision.verdict == "hurts":
            return f"{question} hurts: {_gain(decision, 'IT')} ({size})."
        if decision.verdict == "no difference that matters":
            return (
                f"{question} makes no difference that matters ({margin}): {_gain(decision, 'IT')} ({size})."
            )
        needed = _needed(decision, self.protocol)
        return f"{question}: cannot tell at this size: {_gain(decision, 'IT')} ({size}){needed}."

    def _untuned_line(self) -> str:
        decision = self.against_untuned[TREATMENT]
        better = _AGAINST[decision.verdict]
        return f"IM {better} the untuned model: {_gain(decision, 'the untuned model')} (exploratory)."

    def _healed_line(self, decision: Decision) -> str:
        better = _AGAINST[decision.verdict]
        name = "the untuned model after as many steps on unrelated text"
        return f"IM {better} {name}: {_gain(decision, 'that model')} (exploratory)."

    def _elsewhere_line(self, decision: Decision) -> str:
        data = (self.protocol.out_of_domain or {})["data"]
        return f"Out of domain, on {data}: {_gain(decision, REFERENCE)} (exploratory)."

    def _control_line(self, decision: Decision) -> str:
        gain = _gain(decision, "that control")
        what = "IT whose responses weigh as little as under IM"
        if decision.verdict == "no difference that matters":
            if self.verdict == "no difference that matters":
                return f"Nor does IM make one that matters beyond reweighting: against {what}, {gain}."
            return f"What IM does is explained by reweighting: against {what}, {gain}."
        if decision.verdict == "helps":
            return f"What IM does is not explained by reweighting: against {what}, {gain}."
        if decision.verdict == "hurts":
            return f"Reweighting alone does better: against {what}, {gain}."
        needed = _needed(decision, self.protocol)
        return f"Whether reweighting explains it cannot be told: against {what}, {gain}{needed}."


def answer_of(runs: ProtocolRuns, seeds: int) -> Answer:
    """Return the answer of so many seeds, all of whose runs are measured."""
    protocol, not_reached = runs.protocol, runs.not_reached(seeds)
    arms = [arm for arm in runs.arms() if arm not in not_reached]
    test = _matrices(runs, [*arms, BASE], seeds, "test")

    def against(arm: str, reference: str, confidence: float) -> Decision:
        return decide((arm, reference), test[arm], test[reference], protocol.margin, confidence)

    others, rows = protocol.confidence_of_others, test[BASE].shape[1]
    confirmed = {h.name: against(h.arm, h.reference, protocol.confidence) for h in protocol.hypotheses}
    against_it = {
        arm: confirmed["H1"] if arm == TREATMENT else against(arm, REFERENCE, others)
        for arm in arms
        if arm != REFERENCE
    }
    chosen, settings = _chosen_weight(runs, seeds, against_it), chosen_flags(runs.folder)
    elsewhere = {}
    if protocol.out_of_domain is not None:
        elsewhere = _matrices(runs, [*arms, BASE], seeds, "out_of_domain")
    return Answer(
        protocol,
        seeds,
        rows,
        protocol.test_rows - rows,
        confirmed,
        against_it,
        {arm: against(arm, BASE, others) for arm in arms},
        _by_score(runs, seeds),
        _means(test),
        {arm: against(TREATMENT, arm, others) for arm in arms if arm in protocol.rules and arm != TREATMENT},
        {arm: runs.matched(arm, seeds) for arm in arms if runs.rules_of(arm).stop_at},
        not_reached,
        {
            arm: decide((arm, REFERENCE), elsewhere[arm], elsewhere[REFERENCE], protocol.margin, others)
            for arm in arms
            if elsewhere and arm != REFERENCE
        },
        _means(elsewhere),
        chosen,
        settings,
        _winner(runs, seeds, confirmed["H1"], chosen and chosen[0], list(settings)),
        differences([{arm: runs.run(arm, seed) for arm in arms} for seed in range(seeds)]),
    )


def _matrices(runs: ProtocolRuns, arms: Sequence[str], seeds: int, part: str) -> dict[str, np.ndarray]:
    """Return the losses of each arm, float64[seeds, rows], on the rows of a part that all of them have."""
    by_arm = {arm: runs.losses(arm, seeds, part) for arm in arms}
    rows = shared_rows([of_run for of_arm in by_arm.values() for of_run in of_arm])
    return {arm: matrix_of(losses, rows) for arm, losses in by_arm.items()}


def _means(by_arm: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {arm: float(losses.mean()) for arm, losses in by_arm.items()}


def _by_score(runs: ProtocolRuns, seeds: int) -> dict[str, Decision]:
    """Return the hypotheses by the task's score, a gain being the arm's score minus the reference's."""
    protocol = runs.protocol
    if protocol.task is None:
        return {}
    arms = {name for hypothesis in protocol.hypotheses for name in (hypothesis.arm, hypothesis.reference)}
    by_arm = {arm: runs.scores(arm, seeds) for arm in arms}
    rows = shared_rows([of_run for of_arm in by_arm.values() for of_run in of_arm])
    # A gain is the reference's minus the arm's of what is to be low.
    scores = {arm: -matrix_of(of_arm, rows) for arm, of_arm in by_arm.items()}
    margin, confidence = protocol.task.margin, protocol.confidence_of_others
    return {
        h.name: decide((h.arm, h.reference), scores[h.arm], scores[h.reference], margin, confidence)
        for h in protocol.hypotheses
    }


def _chosen_weight(
    runs: ProtocolRuns, seeds: int, against_it: Mapping[str, Decision]
) -> tuple[str, Decision] | None:
    """Return the arm on the path from IT to IM with the lowest validation loss, and its gain on test rows."""
    arms = weight_arms(runs.protocol)
    if len(arms) < 3 or not runs.part("validation").exists():
        return None
    means = _means(_matrices(runs, arms, seeds, "validation"))
    best = min(means, key=lambda arm: means[arm])
    return best, against_it.get(best, against_it[TREATMENT])


def _winner(
    runs: ProtocolRuns, seeds: int, first: Decision, chosen_weight: str | None, tuned: Sequence[str]
) -> str:
    """Return the arm to train in the end: that with the lowest validation loss where a weight or settings
    were chosen by it, else IM where it helps and IT where it does not."""
    by_verdict = TREATMENT if first.verdict == "helps" else REFERENCE
    if not tuned:
        return chosen_weight or by_verdict
    means = _means(_matrices(runs, [chosen_weight or by_verdict, *tuned], seeds, "validation"))
    return min(means, key=lambda arm: means[arm])


def weight_arms(protocol: Protocol) -> list[str]:
    """Return the arms that set nothing but the weight of instructions, IT and IM among them."""
    plain = re.compile(r"(--use_lm_loss|--instruction_loss_weight[ =]\S+)?")
    return [
        name
        for name, flags in protocol.arms.items()
        if name not in protocol.rules and plain.fullmatch(" ".join(flags))
    ]


def decidable_margin(protocol: Protocol, seeds: int) -> float:
    """Return the smallest margin that this size is expected to decide, nats a token, by
    `EXPECTED_VARIANCES`."""
    return expected_half_width(EXPECTED_VARIANCES, seeds, protocol.test_rows, protocol.confidence)


def _gain(decision: Decision, reference: str) -> str:
    """Return the gain in words: `the test loss of IM is 0.12 nats a response token lower than ...`."""
    side = "lower" if decision.mean >= 0 else "higher"
    words = f"the test loss of {decision.arm} is {abs(decision.mean):.3f} nats a response token {side} than "
    words += f"{reference}'s" if reference != "that control" else "its"
    if decision.interval is None:
        return f"{words} (one seed: no interval)"
    return f"{words} (gain {decision.mean:+.3f}{_interval(decision)})"


def _interval(decision: Decision) -> str:
    if decision.interval is None:
        return ""
    low, high = decision.interval
    return f", {decision.confidence:.1%} interval {low:+.3f} to {high:+.3f}"


def _needed(decision: Decision, protocol: Protocol) -> str:
    """Return what a verdict would take, where there is none: seeds, and rows with the file that has them."""
    if decision.verdict != "cannot tell":
        return ""
    seeds, rows = decision.needed()
    ways = []
    if seeds is not None:
        most = max(protocol.look_seeds)
        beyond = f", more than the {most} of the last look" if seeds > most else ""
        ways.append(f"about {seeds} seeds on these rows{beyond}")
    if rows is not None:
        ways.append(f"about {rows:,} test rows with these seeds, so a file of about {file_rows(rows):,}")
    return f"; it would take {' or '.join(ways)}" if ways else ""


def file_rows(test_rows: int) -> int:
    """Return the fewest rows of a file of which so many are tested on."""
    low, high = test_rows, 5 * test_rows + 5
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if held_out_rows(middle) >= test_rows else (middle + 1, high)
    return low


def _shared_rows(answer: Answer) -> str:
    """Return how much wider H1's interval would be for other data of the kind, at most."""
    protocol, first = answer.protocol, answer.confirmed["H1"]
    text = (
        f"Each seed draws {protocol.train_rows:,} of {protocol.pool_rows:,} rows to train on, so the seeds "
        "share rows: other data of the same kind would vary more than the interval says"
    )
    if first.gain is None:
        return f"{text}."
    own = first.gain.half_width(first.confidence)
    other = first.gain.half_width_over_pools(protocol.train_rows / protocol.pool_rows, first.confidence)
    return f"{text} (±{other:.3f} at most, where it says ±{own:.3f})."


def not_tested(answer: Answer) -> list[str]:
    """Return what an answer does not say, for its page."""
    protocol = answer.protocol
    lines = [
        "One set of training settings was tried: with a learning rate of its own each arm might do better "
        "(--tune tries six)."
        if not protocol.trials
        else "Each tuned arm had six settings to choose from; a seventh might be better.",
        "The outcome is the loss on your test responses, not how useful the models are.",
        _SAME_ROWS if protocol.train_rows == protocol.pool_rows else _shared_rows(answer),
        "Larger models, other data and longer training were not tried.",
    ]
    if REWEIGHTED not in protocol.arms:
        lines.append(
            "Whether IM does anything beyond weighing responses less was not asked: reweighted-IT was not "
            "among the arms."
        )
    return lines
