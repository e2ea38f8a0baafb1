"""From gains by seed and row to a verdict: helps, hurts, no difference that matters, or cannot tell.

A gain g is NLL(reference) - NLL(arm) of a test row, nats per response token: above 0 the arm is better. With
an interval [low, high] of the mean gain and a margin of what matters, read in this order:

    -margin < low and high < margin    no difference that matters
    low > 0                            helps, by at least low
    high < 0                           hurts, by at least -high
    otherwise                          cannot tell

so a gain that is sure and too small to matter is no help. The interval is simultaneous: its error is divided
by the looks that a protocol has and by the hypotheses that it confirms (Bonferroni)."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from instruction_modelling.decision.crossed import CrossedMean, crossed_mean, rows_needed, seeds_needed

Verdict = Literal["helps", "hurts", "no difference that matters", "cannot tell"]


@dataclass(frozen=True)
class Decision:
    """What is known of one arm against another."""

    arm: str
    reference: str
    margin: float
    confidence: float
    gain: CrossedMean | None
    """None where there is one seed: then nothing is known of what seeds do."""
    mean: float
    by_seed: list[float]
    """The mean gain of each seed."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the interval of the mean gain; None for one seed."""
        return self.gain.interval(self.confidence) if self.gain else None

    @property
    def verdict(self) -> Verdict:
        """Return what the interval says, in the order above."""
        return verdict_of(self.interval, self.margin)

    def needed(self) -> tuple[int | None, int | None]:
        """Return the seeds (on these rows) and the rows (with these seeds) that a verdict is likely to take,
        if the mean and the variances are what they seem; None where no number is enough, or where nothing is
        known of them.

        An interval decides where it ends before 0 or within the margin, whichever comes first."""
        if self.gain is None:
            return None, None
        half_width = max(abs(self.mean), self.margin - abs(self.mean))
        variances = self.gain.variances
        return (
            seeds_needed(variances, self.gain.rows, half_width, self.confidence),
            rows_needed(variances, self.gain.seeds, half_width, self.confidence),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as answer.json holds it."""
        seeds, rows = self.needed() if self.verdict == "cannot tell" else (None, None)
        low, high = self.interval or (None, None)
        return {
            "arm": self.arm,
            "reference": self.reference,
            "mean_gain": self.mean,
            "low": low,
            "high": high,
            "confidence": self.confidence,
            "margin": self.margin,
            "verdict": self.verdict,
            "p_value": self.gain.p_value() if self.gain else None,
            "by_seed": self.by_seed,
            "seeds_needed": seeds,
            "rows_needed": rows,
            "variance": asdict(self.gain) if self.gain else None,
        }


def verdict_of(interval: tuple[float, float] | None, margin: float) -> Verdict:
    """Return what an interval of the mean gain says; none says nothing."""
    if interval is None:
        return "cannot tell"
    low, high = interval
    if -margin < low and high < margin:
        return "no difference that matters"
    if low > 0:
        return "helps"
    return "hurts" if high < 0 else "cannot tell"


def decide(
    names: tuple[str, str], nll: np.ndarray, reference_nll: np.ndarray, margin: float, confidence: float
) -> Decision:
    """Return the decision about an arm against a reference.

    Args:
        names: the arm's and the reference's.
        nll: float[seeds, rows], the arm's NLL of each test row; `reference_nll` the same of the reference,
            whose one row stands for every seed where it is the untuned model.
        margin: the smallest gain that matters.
        confidence: of the interval, within (0, 1).
    """
    gains = reference_nll - nll
    crossed = crossed_mean(gains) if len(gains) > 1 else None
    return Decision(
        *names, margin, confidence, crossed, float(gains.mean()), [float(mean) for mean in gains.mean(axis=1)]
    )
