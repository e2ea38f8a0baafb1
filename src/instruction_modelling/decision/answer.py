"""The answer to a protocol's question, in numbers and in sentences that claim no more than these."""

from dataclasses import dataclass
from typing import Any

from instruction_modelling.comparison.row_sets import held_out_rows
from instruction_modelling.decision.crossed import expected_half_width, holm
from instruction_modelling.decision.options import HEALED, REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.protocol import Protocol
from instruction_modelling.decision.verdict import Decision
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
    """Test rows that IT, IM and the untuned model have a loss of."""
    rows_not_measured: int
    """Test rows that they have none of: no response token within the maximum length."""
    rows_of_arms: dict[str, int]
    """Of arms that have a loss of fewer of these, of how many; they are compared on those."""
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
    not_measured: dict[str, str]
    """The arms that failed, and so are not spoken of, and why."""
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
    def units(self) -> int:
        """Return what the interval counts the test rows as: near-duplicates are one."""
        gain = self.confirmed["H1"].gain
        return gain.rows if gain else self.rows

    @property
    def verdict(self) -> str:
        """Return the answer to the question: H1's verdict."""
        return self.confirmed["H1"].verdict

    def adjusted_p_values(self) -> dict[str, float]:
        """Return the p-values of the hypotheses, that the mean gain is 0, adjusted for their number (Holm)
        and for the looks (Bonferroni), which intervals are too. One that could not be measured counts as if
        nothing were found there."""
        gains = {name: decision.gain for name, decision in self.confirmed.items() if decision.gain}
        names = [hypothesis.name for hypothesis in self.protocol.hypotheses]
        adjusted = holm([gains[name].p_value() if name in gains else 1.0 for name in names])
        looks = len(self.protocol.look_seeds)
        return {name: min(1.0, looks * p) for name, p in zip(names, adjusted, strict=True) if name in gains}

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
            "distinct_test_rows": self.units,
            "test_rows_of_arms": self.rows_of_arms,
            "half_width_for_other_data": self.for_other_data(),
            "margin": self.protocol.margin,
            "expected_half_width": decidable_margin(self.protocol, self.seeds),
            "hypotheses": {name: decision.as_dict() for name, decision in self.confirmed.items()},
            "holm_p_values": self.adjusted_p_values(),
            "against_IT": {name: decision.as_dict() for name, decision in self.against_reference.items()},
            "against_untuned": {name: decision.as_dict() for name, decision in self.against_untuned.items()},
            "by_task_score": {name: decision.as_dict() for name, decision in self.by_score.items()},
            "mean_test_loss": self.mean_losses,
            "against_controls": {name: one.as_dict() for name, one in self.against_controls.items()},
            "matched": self.matched,
            "not_reached": self.not_reached,
            "not_measured": self.not_measured,
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
        lines += [f"{arm}: {why}." for arm, why in (*self.not_reached.items(), *self.not_measured.items())]
        if HEALED in self.against_controls:
            lines.append(self._healed_line(self.against_controls[HEALED]))
        if TREATMENT in self.out_of_domain:
            lines.append(self._elsewhere_line(self.out_of_domain[TREATMENT]))
        if "H1" in self.by_score:
            lines.append(self._score_line(self.by_score["H1"]))
        if "H3" in self.confirmed:
            lines.append(self._tuned_line(self.confirmed["H3"]))
        if self.chosen_weight:
            arm, decision = self.chosen_weight
            lines.append(
                f"Which weight: {arm} has the lowest loss on the validation rows"
                + ("." if arm == REFERENCE else f"; on the test rows {_gain(decision, 'IT')} (exploratory).")
            )
        lines += self._rows_lines()
        if self.made_differently:
            lines.append(
                f"Arms were not all made alike, {', '.join(self.made_differently)}: what tells them apart "
                "may be that. Another --output_dir makes all of them anew."
            )
        return lines

    def for_other_data(self) -> dict[str, float]:
        """Return, by hypothesis, half the width that its interval has at most for other data of the kind;
        nothing where that is not known."""
        shared = self.protocol.train_rows / self.protocol.pool_rows
        return {
            name: one.gain.half_width_over_pools(shared, one.confidence)
            for name, one in self.confirmed.items()
            if one.gain and shared < 1
        }

    def _rows_lines(self) -> list[str]:
        """Return what is to be known of the rows: which have no loss, and what seeds share of theirs."""
        lines = []
        if self.rows_not_measured:
            lines.append(
                f"Of {self.protocol.test_rows:,} test rows {self.rows_not_measured:,} cannot be counted: cut "
                "at --max_seq_length, no token of the response is left."
            )
        lines += [
            f"{arm} could be measured on only {rows:,} of the {self.rows:,} test rows, and is compared on "
            "those."
            for arm, rows in self.rows_of_arms.items()
        ]
        if "H1" in (wider := self.for_other_data()) and (gain := self.confirmed["H1"].gain):
            own = gain.half_width(self.confirmed["H1"].confidence)
            lines.append(
                "Seeds share rows to train on: for other data of this kind the interval of IM against IT "
                f"may be as wide as ±{wider['H1']:.3f}; here it is ±{own:.3f}."
            )
        if self.protocol.train_rows == self.protocol.pool_rows:
            lines.append(_SAME_ROWS)
        return lines

    def _score_line(self, decision: Decision) -> str:
        words = {"helps": "is better than", "hurts": "is worse than"}.get(decision.verdict, "")
        if decision.verdict == "no difference that matters":
            words = "differs by less than what matters from"
        side = f"IM {words} IT" if words else "whether IM is better than IT cannot be told"
        line = f"By your score, {side}: {decision.mean:+.3f}{_interval(decision)} (exploratory)."
        if "cannot tell" not in (decision.verdict, self.verdict) and decision.verdict != self.verdict:
            line += (
                f" The loss and the score disagree (by the loss: {self.verdict}): the score is what you care "
                "about, the loss is not."
            )
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
        if self.units < self.rows:
            size += f", of which {self.units:,} differ from each other"
        question = f"On {self.protocol.data}, a loss on the instruction"
        margin = f"{self.protocol.margin:g} nats a response token"
        if decision.verdict in ("helps", "hurts"):
            low, high = decision.interval or (0.0, 0.0)
            least = low if decision.verdict == "helps" else -high
            return (
                f"{question} {decision.verdict}, by at least {least:.3f} nats: "
                f"{_gain(decision, 'IT')} ({size})."
            )
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
                return (
                    f"Against reweighting alone, too, IM makes no difference that matters: against {what}, "
                    f"{gain}."
                )
            if self.verdict == "cannot tell":
                return (
                    f"IM and reweighting alone differ by less than {self.protocol.margin:g} nats, which does "
                    f"not matter: against {what}, {gain}."
                )
            return (
                "What IM does is explained by reweighting, to less than what matters: against "
                f"{what}, {gain}."
            )
        if decision.verdict == "helps":
            if self.verdict != "helps":
                return (
                    f"IM is better than reweighting alone (against IT see the first line): against {what}, "
                    f"{gain}."
                )
            return f"What IM does is not explained by reweighting: against {what}, {gain}."
        if decision.verdict == "hurts":
            return f"Reweighting alone does better: against {what}, {gain}."
        needed = _needed(decision, self.protocol)
        return f"Whether reweighting explains it cannot be told: against {what}, {gain}{needed}."


def decidable_margin(protocol: Protocol, seeds: int) -> float:
    """Return the smallest margin that this size is expected to decide, nats a token, by
    `EXPECTED_VARIANCES`."""
    return expected_half_width(EXPECTED_VARIANCES, seeds, protocol.units, protocol.confidence)


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
        # Copies count as one row, and the file has them.
        rows = -(-rows * protocol.test_rows // protocol.units)
        ways.append(f"about {rows:,} test rows with these seeds, so a file of about {file_rows(rows):,}")
    return f"; it would take {' or '.join(ways)}" if ways else ""


def file_rows(test_rows: int) -> int:
    """Return the fewest rows of a file of which so many are tested on."""
    low, high = test_rows, 5 * test_rows + 5
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if held_out_rows(middle) >= test_rows else (middle + 1, high)
    return low


def not_tested(protocol: Protocol) -> list[str]:
    """Return what an answer does not say, for its page."""
    lines = [
        "One set of training settings was tried: with a learning rate of its own each arm might do better "
        "(--tune tries six)."
        if not protocol.trials
        else "Each tuned arm had six settings to choose from; a seventh might be better.",
        "The outcome is the loss on your test responses, not how useful the models are."
        if protocol.task is None
        else "The outcome is the loss on your test responses; your score is a second one, and exploratory.",
        _SAME_ROWS
        if protocol.train_rows == protocol.pool_rows
        else f"Each seed draws {protocol.train_rows:,} of {protocol.pool_rows:,} rows to train on; no other "
        "data was tried.",
        "Larger models and longer training were not tried.",
    ]
    if REWEIGHTED not in protocol.arms:
        lines.append(
            "Whether IM does anything beyond weighing responses less was not asked: reweighted-IT was not "
            "among the arms."
        )
    if not protocol.rules:
        lines.append(
            "Whether another text in the instruction's place, or any further training, does the same was not "
            "asked: --arms takes others-beside, permuted-beside, unrelated-beside and healed-base."
        )
    if protocol.out_of_domain is None:
        lines.append("Rows of another kind were not measured (--out_of_domain FILE).")
    return lines
