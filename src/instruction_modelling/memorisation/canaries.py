"""Canaries: sentences with a random secret, put into training instructions to see whether a model learns
them, and the exposure of a secret (Carlini et al. 2019, *The Secret Sharer*, arXiv 1802.08232)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from instruction_modelling.errors import UserError

# What a canary looks like; the name tells it from the others, the code is its secret.
FORM = "My name is {name} and my code is {secret}."
_FIRST = (
    *("Alice", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Irene"),
    *("James", "Karen", "Louis", "Maria", "Nora", "Oscar", "Paul", "Rosa", "Simon"),
)
_LAST = (
    *("Adams", "Baker", "Carter", "Dixon", "Evans", "Fisher", "Gray", "Harris"),
    *("Irving", "Jones", "Keller", "Lewis", "Morgan", "Norris", "Owens", "Parker"),
)
MOST_CANARIES = len(_FIRST) * len(_LAST)


@dataclass(frozen=True)
class Canary:
    """A sentence that `repeats` training instructions begin with."""

    name: str
    secret: str
    """Digits."""
    repeats: int

    @property
    def text(self) -> str:
        """Return the sentence."""
        return self.with_secret(self.secret)

    def with_secret(self, secret: str) -> str:
        """Return the sentence with another secret: a candidate of the same form."""
        return FORM.format(name=self.name, secret=secret)

    @property
    def secret_start(self) -> int:
        """Return the offset of the secret's first character in the sentence."""
        return len(FORM.format(name=self.name, secret="\0").partition("\0")[0])


def draw_canaries(seed: int, count: int, repeats: Sequence[int], digits: int) -> list[Canary]:
    """Return `count` canaries of each number of repeats, with names and secrets of their own.

    Args:
        digits: of a secret, drawn uniformly from the 10^digits there are.

    Raises:
        UserError: there are not as many names or secrets.
    """
    wanted = count * len(repeats)
    if wanted > min(MOST_CANARIES, 10**digits):
        raise UserError(
            f"{wanted} canaries: there are names for {MOST_CANARIES} and 10^{digits} secrets of {digits} "
            "digits; take fewer --canaries or more --secret_digits"
        )
    generator = random.Random(f"canaries {seed}")
    names = generator.sample([f"{first} {last}" for first, last in product(_FIRST, _LAST)], wanted)
    secrets = [f"{number:0{digits}}" for number in generator.sample(range(10**digits), wanted)]
    of_repeats = [times for times in repeats for _ in range(count)]
    return [
        Canary(name, secret, times) for name, secret, times in zip(names, secrets, of_repeats, strict=True)
    ]


def draw_candidates(seed: int, count: int, canaries: Sequence[Canary], digits: int) -> list[str]:
    """Return `count` different secrets of the same form that no canary has.

    Raises:
        UserError: there are not as many.
    """
    used = {int(canary.secret) for canary in canaries}
    if count > 10**digits - len(used):
        raise UserError(
            f"--candidates {count}: {digits} digits leave {10**digits - len(used)} secrets that no canary "
            "has; take fewer, or more --secret_digits"
        )
    generator = random.Random(f"candidates {seed}")
    drawn = generator.sample(range(10**digits), count + len(used))
    return [f"{number:0{digits}}" for number in drawn if number not in used][:count]


def rank_of(nll: float, others: Sequence[float]) -> int:
    """Return the rank of a secret's NLL among the candidates', 1 for the lowest; ties count against it.

    Raises:
        UserError: one of them is no number, for which every comparison is false: it would be the first.
    """
    if not all(map(math.isfinite, (nll, *others))):
        raise UserError("the loss of the secret or of a candidate is no finite number, so it has no rank")
    return 1 + sum(other <= nll for other in others)


def exposure(rank: int, candidates: int) -> float:
    """Return log2 |R| - log2 rank in bits (Carlini et al. 2019), R being the secret and the candidates: from
    0 to log2(candidates + 1), the most that so many candidates can show."""
    return math.log2(candidates + 1) - math.log2(rank)


def chance_exposure(candidates: int) -> float:
    """Return the mean exposure in bits of a secret that a model knows nothing of: the mean over all ranks."""
    ranks = range(1, candidates + 2)
    return sum(exposure(rank, candidates) for rank in ranks) / (candidates + 1)
