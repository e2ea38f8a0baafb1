"""How an arm looks in every figure of a report: one colour and one marker."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from instruction_modelling.comparison.report.arms import ReportedArm


@dataclass(frozen=True)
class Look:
    """Colour (hex) and matplotlib marker of an arm."""

    colour: str
    marker: str


# Colours that stay apart for colour-blind readers and on light and dark ground; markers tell the arms apart
# as well.
_LOOK_OF_FAMILY = {
    "base": Look("#767676", "D"),
    "IT": Look("#0072b2", "o"),
    "IM": Look("#d55e00", "^"),
    "IM+NEFTune": Look("#b5518f", "v"),
    "IT+NEFTune": Look("#3c91c9", "s"),
    "prompt only": Look("#9a7b00", "P"),
}
_SPARE = (
    Look("#009e73", "X"),
    Look("#7a6ff0", "h"),
    Look("#a0522d", "p"),
    Look("#5f8f00", "s"),
    Look("#c2378f", "v"),
    Look("#00838f", "P"),
)


def arm_looks(arms: Sequence[ReportedArm]) -> dict[str, Look]:
    """Return the look of each arm by name: fixed for the known arms, handed out in order to others."""
    looks: dict[str, Look] = {}
    spare = cycle(_SPARE)
    for arm in arms:
        if arm.name in looks:
            continue
        look = _LOOK_OF_FAMILY.get(arm.family)
        # A family with several arms (of several learning rates, say) gives its look to the first.
        if look is None or look in looks.values():
            look = next(spare)
        looks[arm.name] = look
    return looks
