"""From the losses that the runs of a look have left to the numbers of an answer.

An arm is held against another one on the test rows that both have a loss of, so that one with fewer takes
none from what is confirmed; and what was not measured of an exploratory arm is that arm's alone."""

import re
from collections.abc import Mapping, Sequence

from instruction_modelling.decision.answer import Answer
from instruction_modelling.decision.losses import matrix_of, mean_of, units_of
from instruction_modelling.decision.made_by import differences
from instruction_modelling.decision.measured import (
    alike_rows,
    losses_of,
    scores_by_task,
    why_not_answered,
    why_not_measured,
)
from instruction_modelling.decision.options import ADDED, REFERENCE, REWEIGHTED, TREATMENT
from instruction_modelling.decision.protocol import Hypothesis, Protocol
from instruction_modelling.decision.runs import BASE, ProtocolRuns
from instruction_modelling.decision.tuning import chosen_flags
from instruction_modelling.decision.verdict import Decision, decide
from instruction_modelling.errors import UserError

# By arm and seed, of each row.
Losses = dict[str, list[dict[int, float]]]
# With fewer there is no interval.
LEAST_UNITS = 2


class Evidence:
    """The losses of a look, by part and arm, of the arms that were measured."""

    def __init__(self, runs: ProtocolRuns, seeds: int) -> None:
        """Read the losses of the test rows.

        Raises:
            UserError: the untuned model, IT or IM has none, or some that are no numbers.
        """
        self.runs, self.seeds, self.protocol = runs, seeds, runs.protocol
        self.not_reached = runs.not_reached(seeds)
        self.test, self.not_measured = self._losses(
            [arm for arm in [*runs.arms(), BASE] if arm not in self.not_reached], "test"
        )
        # An interval takes rows that an arm shares with each that it is held against.
        asked = [run for arm in (BASE, REFERENCE, TREATMENT) for run in self.test.get(arm, [])]
        for arm in [arm for arm, of_arm in self.test.items() if not self._shares([*of_arm, *asked], "test")]:
            del self.test[arm]
            self.not_measured[arm] = f"fewer than {LEAST_UNITS} test rows have a loss under it, IT and IM"
        for arm in (BASE, REFERENCE, TREATMENT):
            if arm in self.not_measured:
                name = "the untuned model" if arm == BASE else arm
                raise UserError(f"nothing can be said without {name}: {self.not_measured[arm]}")
        self.arms = [arm for arm in self.test if arm != BASE]
        # What is beside the question is left out where it could not be measured, and takes nothing away.
        self.elsewhere, self.validation = (
            self._beside(part) if runs.part(part).exists() else {} for part in ("out_of_domain", "validation")
        )

    def _losses(self, arms: Sequence[str], part: str) -> tuple[Losses, dict[str, str]]:
        """Return a part's losses by arm and seed, and of the arms without any why."""
        why = {arm: why_not_measured(self.runs, arm, self.seeds, part) for arm in arms}
        losses = {arm: losses_of(self.runs, arm, self.seeds, part) for arm in arms if not why[arm]}
        return losses, {arm: reason for arm, reason in why.items() if reason}

    def _alike(self, part: str) -> list[list[int]]:
        return alike_rows(self.runs, part)

    def _shares(self, losses: Sequence[dict[int, float]], part: str) -> bool:
        return len(units_of(losses, self._alike(part))) >= LEAST_UNITS

    def _beside(self, part: str) -> Losses:
        """Return a part's losses of the arms that share rows of it with IT."""
        losses = self._losses([*self.arms, BASE], part)[0]
        of_it = losses.get(REFERENCE)
        if of_it is None:
            return {}
        return {arm: of_arm for arm, of_arm in losses.items() if self._shares([*of_arm, *of_it], part)}

    def _units(self, arm: str, reference: str, part: str = "test") -> list[list[int]]:
        losses = self.test if part == "test" else self.elsewhere
        return units_of([*losses[arm], *losses[reference]], self._alike(part))

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """Return the hypotheses whose arms are measured."""
        return [h for h in self.protocol.hypotheses if {h.arm, h.reference} <= set(self.arms)]

    def against(
        self, arm: str, reference: str, confidence: float | None = None, part: str = "test"
    ) -> Decision:
        """Return the decision about an arm against another one, exploratory where no confidence is given, on
        the rows of a part that both have a loss of."""
        losses = self.test if part == "test" else self.elsewhere
        units = self._units(arm, reference, part)
        of_arm, of_reference = (matrix_of(losses[name], units) for name in (arm, reference))
        sure = self.protocol.confidence_of_others if confidence is None else confidence
        return decide((arm, reference), of_arm, of_reference, self.protocol.margin, sure)

    def rows(self) -> tuple[int, dict[str, int]]:
        """Return the test rows that IT, IM and the untuned model have a loss of, and of the arms that have
        fewer of these, how many."""
        common = self._common(REFERENCE) & self._common(TREATMENT) & self._common(BASE)
        of_arms = {arm: len(common & self._common(arm)) for arm in self.arms}
        return len(common), {arm: rows for arm, rows in of_arms.items() if rows < len(common)}

    def _common(self, arm: str) -> set[int]:
        return set.intersection(*(set(of_run) for of_run in self.test[arm]))

    def means(self, losses: Losses, part: str) -> dict[str, float]:
        """Return the mean loss of every arm on the rows of a part that it has one of."""
        alike = self._alike(part)
        return {arm: mean_of(of_arm, units_of(of_arm, alike)) for arm, of_arm in losses.items()}


def can_answer(runs: ProtocolRuns, seeds: int) -> bool:
    """Return whether H1 can be answered, whatever failed."""
    return not any(why_not_measured(runs, arm, seeds, "test") for arm in (BASE, REFERENCE, TREATMENT))


def answer_of(runs: ProtocolRuns, seeds: int) -> Answer:
    """Return the answer of so many seeds.

    Raises:
        UserError: the untuned model, IT or IM is not measured.
    """
    found, protocol = Evidence(runs, seeds), runs.protocol
    confirmed = {h.name: found.against(h.arm, h.reference, protocol.confidence) for h in found.hypotheses}
    others = [arm for arm in found.arms if arm != REFERENCE]
    against_it = {
        arm: confirmed["H1"] if arm == TREATMENT else found.against(arm, REFERENCE) for arm in others
    }
    chosen = _chosen_weight(found, against_it)
    settings = {arm: flags for arm, flags in chosen_flags(runs.folder).items() if arm in found.arms}
    rows, rows_of_arms = found.rows()
    by_score, no_score = _by_score(found)
    return Answer(
        protocol=protocol,
        seeds=seeds,
        rows=rows,
        rows_not_measured=protocol.test_rows - rows,
        rows_of_arms=rows_of_arms,
        confirmed=confirmed,
        against_reference=against_it,
        against_untuned={arm: found.against(arm, BASE) for arm in found.arms},
        by_score=by_score,
        mean_losses=found.means(found.test, "test"),
        against_controls={
            arm: confirmed["H2"] if arm == REWEIGHTED and "H2" in confirmed else found.against(TREATMENT, arm)
            for arm in others
            if arm in (REWEIGHTED, ADDED, *protocol.rules) and arm != TREATMENT
        },
        matched={arm: runs.matched(arm, seeds) for arm in found.arms if runs.rules_of(arm).stop_at},
        not_reached=found.not_reached,
        not_measured={**found.not_measured, **no_score},
        out_of_domain={
            arm: found.against(arm, REFERENCE, part="out_of_domain")
            for arm in others
            if arm in found.elsewhere
        },
        out_of_domain_losses=found.means(found.elsewhere, "out_of_domain"),
        chosen_weight=chosen,
        settings=settings,
        winner=_winner(found, confirmed["H1"], chosen and chosen[0], list(settings)),
        made_differently=differences(
            [{arm: runs.run(arm, seed) for arm in found.arms} for seed in range(seeds)]
        ),
    )


def _by_score(found: Evidence) -> tuple[dict[str, Decision], dict[str, str]]:
    """Return the hypotheses by the task's score, a gain being the arm's score minus the reference's, or why
    there are none."""
    runs, task = found.runs, found.protocol.task
    if task is None:
        return {}, {}
    arms = dict.fromkeys(name for h in found.hypotheses for name in (h.arm, h.reference))
    why = {arm: reason for arm in arms if (reason := why_not_answered(runs, arm, found.seeds))}
    by_arm, decisions = {arm: scores_by_task(runs, arm, found.seeds) for arm in arms if arm not in why}, {}
    for h in found.hypotheses:
        if not {h.arm, h.reference} <= set(by_arm):
            continue
        units = units_of([*by_arm[h.arm], *by_arm[h.reference]], alike_rows(runs, "test"))
        # A gain is the reference's minus the arm's of what is to be low.
        of_arm, of_reference = (-matrix_of(by_arm[name], units) for name in (h.arm, h.reference))
        sure = found.protocol.confidence_of_others
        decisions[h.name] = decide((h.arm, h.reference), of_arm, of_reference, task.margin, sure)
    return decisions, {"--task_score": "; ".join(why.values())} if why else {}


def _chosen_weight(found: Evidence, against_it: Mapping[str, Decision]) -> tuple[str, Decision] | None:
    """Return the arm on the path from IT to IM with the lowest validation loss, and its gain on test rows;
    None without weights between."""
    arms = [arm for arm in weight_arms(found.protocol) if arm in found.validation]
    if len(arms) < 3 or not {REFERENCE, TREATMENT} <= set(arms):
        return None
    best = _best(found, arms)
    return best, against_it.get(best, against_it[TREATMENT])


def _winner(found: Evidence, first: Decision, chosen_weight: str | None, tuned: Sequence[str]) -> str:
    """Return the arm to train in the end: that with the lowest validation loss where a weight or settings
    were chosen by it, else IM where it helps and IT where it does not."""
    by_verdict = chosen_weight or (TREATMENT if first.verdict == "helps" else REFERENCE)
    candidates = [by_verdict, *tuned]
    return _best(found, candidates) if set(candidates) <= set(found.validation) else by_verdict


def _best(found: Evidence, arms: Sequence[str]) -> str:
    """Return the arm with the lowest loss on the validation rows that all of these have one of."""
    units = units_of([of_run for arm in arms for of_run in found.validation[arm]])
    means = {arm: mean_of(found.validation[arm], units) for arm in arms}
    return min(means, key=lambda arm: means[arm])


def weight_arms(protocol: Protocol) -> list[str]:
    """Return the arms that set nothing but the weight of instructions, IT and IM among them."""
    plain = re.compile(r"(--use_lm_loss|--instruction_loss_weight[ =]\S+)?")
    return [
        name
        for name, flags in protocol.arms.items()
        if name not in protocol.rules and plain.fullmatch(" ".join(flags))
    ]
