"""From the losses that the runs of a look have left to the numbers of an answer.

An arm is held against another one on the test rows that both have a loss of, so that one with fewer takes
none from what is confirmed; and what was not measured of an exploratory arm is that arm's alone."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from instruction_modelling.decision.answer import Answer
from instruction_modelling.decision.made_by import differences
from instruction_modelling.decision.options import REFERENCE, TREATMENT
from instruction_modelling.decision.protocol import Protocol
from instruction_modelling.decision.runs import BASE, ProtocolRuns, matrix_of, units_of
from instruction_modelling.decision.tuning import chosen_flags
from instruction_modelling.decision.verdict import Decision, decide
from instruction_modelling.errors import UserError

Losses = Mapping[str, Sequence[dict[int, float]]]


class Evidence:
    """The losses of a look, by part and arm."""

    def __init__(self, runs: ProtocolRuns, seeds: int) -> None:
        """Read which arms are measured.

        Raises:
            UserError: the untuned model, or an arm that is confirmed, has no losses or some that are none.
        """
        self.runs, self.seeds = runs, seeds
        self.protocol, self.not_reached = runs.protocol, runs.not_reached(seeds)
        candidates = [arm for arm in runs.arms() if arm not in self.not_reached]
        lacking = {arm: runs.not_measured(arm, seeds) for arm in [*candidates, BASE]}
        self.not_measured = {arm: why for arm, why in lacking.items() if why}
        self.arms = [arm for arm in candidates if arm not in self.not_measured]
        for arm in (BASE, *confirmed_arms(self.protocol)):
            if arm in self.not_measured:
                name = "the untuned model" if arm == BASE else arm
                raise UserError(f"nothing can be said without {name}: {self.not_measured[arm]}")

    @cached_property
    def test(self) -> Losses:
        """Return the losses of test rows, by arm and seed."""
        return {arm: self.runs.losses(arm, self.seeds, "test") for arm in [*self.arms, BASE]}

    @cached_property
    def elsewhere(self) -> Losses:
        """Return those of rows of another kind; empty without such rows."""
        if self.protocol.out_of_domain is None:
            return {}
        return {arm: self.runs.losses(arm, self.seeds, "out_of_domain") for arm in [*self.arms, BASE]}

    def against(
        self, arm: str, reference: str, confidence: float | None = None, part: str = "test"
    ) -> Decision:
        """Return the decision about an arm against another one, exploratory where no confidence is given, on
        the rows of a part that both have a loss of."""
        losses = self.test if part == "test" else self.elsewhere
        units = units_of([*losses[arm], *losses[reference]], self.runs.alike(part))
        of_arm, of_reference = (matrix_of(losses[name], units) for name in (arm, reference))
        sure = self.protocol.confidence_of_others if confidence is None else confidence
        return decide((arm, reference), of_arm, of_reference, self.protocol.margin, sure)

    def rows(self) -> tuple[int, dict[str, int]]:
        """Return the test rows that the confirmed arms and the untuned model have a loss of, and of the arms
        that have fewer of these, how many."""
        common = self._common([*confirmed_arms(self.protocol), BASE])
        of_arms = {arm: len(common & self._common([arm])) for arm in self.arms}
        return len(common), {arm: rows for arm, rows in of_arms.items() if rows < len(common)}

    def _common(self, arms: Sequence[str]) -> set[int]:
        return set.intersection(*(set(of_run) for arm in arms for of_run in self.test[arm]))

    def means(self, losses: Losses, alike: Sequence[Sequence[int]]) -> dict[str, float]:
        """Return the mean loss of every arm on the rows that it has one of."""
        return {
            arm: float(matrix_of(of_arm, units_of(of_arm, alike)).mean()) for arm, of_arm in losses.items()
        }


def confirmed_arms(protocol: Protocol) -> list[str]:
    """Return the arms that a protocol's hypotheses are about."""
    return list(dict.fromkeys(name for h in protocol.hypotheses for name in (h.arm, h.reference)))


def is_confirmable(runs: ProtocolRuns, seeds: int) -> bool:
    """Return whether the untuned model and all that is confirmed are measured, whatever else is not."""
    return not any(runs.not_measured(arm, seeds) for arm in (BASE, *confirmed_arms(runs.protocol)))


def answer_of(runs: ProtocolRuns, seeds: int) -> Answer:
    """Return the answer of so many seeds.

    Raises:
        UserError: an arm that is confirmed, or the untuned model, is not measured.
    """
    found, protocol = Evidence(runs, seeds), runs.protocol
    confirmed = {h.name: found.against(h.arm, h.reference, protocol.confidence) for h in protocol.hypotheses}
    others = [arm for arm in found.arms if arm != REFERENCE]
    against_it = {
        arm: confirmed["H1"] if arm == TREATMENT else found.against(arm, REFERENCE) for arm in others
    }
    chosen, settings = _chosen_weight(found, against_it), chosen_flags(runs.folder)
    rows, rows_of_arms = found.rows()
    return Answer(
        protocol=protocol,
        seeds=seeds,
        rows=rows,
        rows_not_measured=protocol.test_rows - rows,
        rows_of_arms=rows_of_arms,
        confirmed=confirmed,
        against_reference=against_it,
        against_untuned={arm: found.against(arm, BASE) for arm in found.arms},
        by_score=_by_score(runs, seeds),
        mean_losses=found.means(found.test, runs.alike("test")),
        against_controls={
            arm: found.against(TREATMENT, arm) for arm in others if arm in protocol.rules and arm != TREATMENT
        },
        matched={arm: runs.matched(arm, seeds) for arm in found.arms if runs.rules_of(arm).stop_at},
        not_reached=found.not_reached,
        not_measured=found.not_measured,
        out_of_domain={
            arm: found.against(arm, REFERENCE, part="out_of_domain") for arm in others if found.elsewhere
        },
        out_of_domain_losses=found.means(found.elsewhere, runs.alike("out_of_domain")),
        chosen_weight=chosen,
        settings=settings,
        winner=_winner(found, confirmed["H1"], chosen and chosen[0], list(settings)),
        made_differently=differences(
            [{arm: runs.run(arm, seed) for arm in found.arms} for seed in range(seeds)]
        ),
    )


def _by_score(runs: ProtocolRuns, seeds: int) -> dict[str, Decision]:
    """Return the hypotheses by the task's score, a gain being the arm's score minus the reference's."""
    protocol, decisions = runs.protocol, dict[str, Decision]()
    if protocol.task is None:
        return decisions
    by_arm = {arm: runs.scores(arm, seeds) for arm in confirmed_arms(protocol)}
    for h in protocol.hypotheses:
        units = units_of([*by_arm[h.arm], *by_arm[h.reference]], runs.alike("test"))
        # A gain is the reference's minus the arm's of what is to be low.
        of_arm, of_reference = (-matrix_of(by_arm[name], units) for name in (h.arm, h.reference))
        margin, sure = protocol.task.margin, protocol.confidence_of_others
        decisions[h.name] = decide((h.arm, h.reference), of_arm, of_reference, margin, sure)
    return decisions


def _chosen_weight(found: Evidence, against_it: Mapping[str, Decision]) -> tuple[str, Decision] | None:
    """Return the arm on the path from IT to IM with the lowest validation loss, and its gain on test rows."""
    arms = [arm for arm in weight_arms(found.protocol) if arm in found.arms]
    if len(arms) < 3 or not found.runs.part("validation").exists():
        return None
    best = _best(found, arms)
    return best, against_it.get(best, against_it[TREATMENT])


def _winner(found: Evidence, first: Decision, chosen_weight: str | None, tuned: Sequence[str]) -> str:
    """Return the arm to train in the end: that with the lowest validation loss where a weight or settings
    were chosen by it, else IM where it helps and IT where it does not."""
    by_verdict = chosen_weight or (TREATMENT if first.verdict == "helps" else REFERENCE)
    return _best(found, [by_verdict, *tuned]) if tuned else by_verdict


def _best(found: Evidence, arms: Sequence[str]) -> str:
    """Return the arm with the lowest loss on the validation rows that all of these have one of."""
    losses = {arm: found.runs.losses(arm, found.seeds, "validation") for arm in arms}
    units = units_of([of_run for of_arm in losses.values() for of_run in of_arm])
    means = {arm: float(matrix_of(of_arm, units).mean()) for arm, of_arm in losses.items()}
    return min(means, key=lambda arm: means[arm])


def weight_arms(protocol: Protocol) -> list[str]:
    """Return the arms that set nothing but the weight of instructions, IT and IM among them."""
    plain = re.compile(r"(--use_lm_loss|--instruction_loss_weight[ =]\S+)?")
    return [
        name
        for name, flags in protocol.arms.items()
        if name not in protocol.rules and plain.fullmatch(" ".join(flags))
    ]
