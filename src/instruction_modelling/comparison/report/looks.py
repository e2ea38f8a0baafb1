"""How an arm looks in every figure of a report: one colour and one marker."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from instruction_modelling.comparison.report.groups import Arm

# Colours that stay apart for colour-blind readers and on light and dark ground; markers tell the arms apart
# as well.
_KNOWN = {
    "base": ("#767676", "D"),
    "IT": ("#0072b2", "o"),
    "IM": ("#d55e00", "^"),
    "IM+NEFTune": ("#b5518f", "v"),
    "IT+NEFTune": ("#3c91c9", "s"),
    "prompt only": ("#9a7b00", "P"),
}


_SPARE = (
    ("#009e73", "X"),
    ("#7a6ff0", "h"),
    ("#a0522d", "p"),
    ("#5f8f00", "s"),
    ("#c2378f", "v"),
    ("#00838f", "P"),
)


@dataclass(frozen=True)
class Look:
    """Colour (hex) and matplotlib marker of an arm."""

    colour: str
    marker: str


def arm_looks(arms: Sequence[Arm]) -> dict[str, Look]:
    """The look of each arm by name: fixed for the known arms, handed out in order to others."""
    looks: dict[str, Look] = {}
    spare = cycle(_SPARE)
    for arm in arms:
        if arm.name in looks:
            continue
        known = _KNOWN.get(arm.family)
        if known is None or Look(*known) in looks.values():
            known = next(spare)
        looks[arm.name] = Look(*known)
    return looks
