"""What judging will cost: estimated before the first paid request, and put before the user above a limit.

A price table ages, so it carries its date, and a flag overrides it. Tokens are estimated by length, since a
judge's tokenizer is seldom at hand; what was really used is counted from the replies."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from instruction_modelling.errors import UserError

# Dollars for a million tokens, input and output, as OpenAI listed them.
PRICES_OF = "July 2025"
PRICES: dict[str, tuple[float, float]] = {
    "gpt-4": (30.0, 60.0),
    "gpt-4-0314": (30.0, 60.0),
    "gpt-4-0613": (30.0, 60.0),
    "gpt-4-32k": (60.0, 120.0),
    "gpt-4-1106-preview": (10.0, 30.0),
    "gpt-4-0125-preview": (10.0, 30.0),
    "gpt-4-turbo-preview": (10.0, 30.0),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4-turbo-2024-04-09": (10.0, 30.0),
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-2024-05-13": (5.0, 15.0),
    "gpt-4o-2024-08-06": (2.5, 10.0),
    "gpt-4o-2024-11-20": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4o-mini-2024-07-18": (0.15, 0.6),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-2025-04-14": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
    "gpt-4.1-nano": (0.1, 0.4),
    "gpt-3.5-turbo": (0.5, 1.5),
    "gpt-3.5-turbo-0125": (0.5, 1.5),
    "gpt-3.5-turbo-1106": (1.0, 2.0),
}
# What a message costs beside its text (role and separators), in tokens.
TOKENS_OF_A_MESSAGE = 4


def estimated_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return about how many tokens the messages are: a quarter of their UTF-8 bytes, which is usual for
    English."""
    sizes = [len(str(message["content"]).encode("utf-8", "replace")) for message in messages]
    return sum(TOKENS_OF_A_MESSAGE + math.ceil(size / 4) for size in sizes)


def dollars(amount: float) -> str:
    """Return an amount as `$0.0042` or `$12.30`."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens; `source` says where they come from."""

    input: float
    output: float
    source: str

    def of(self, prompt_tokens: int, reply_tokens: int) -> float:
        """Return the dollars for so many tokens."""
        return (self.input * prompt_tokens + self.output * reply_tokens) / 1e6


def price_of(
    model: str, local: bool, per_million_input: float | None = None, per_million_output: float | None = None
) -> Price | None:
    """Return the price of a model: the flags', else nothing where the judge is on this machine, else the
    table's, else None."""
    known = PRICES.get(model)
    if per_million_input is not None and per_million_output is not None:
        return Price(per_million_input, per_million_output, "given by flags")
    if local:
        return Price(0.0, 0.0, "a server on this machine")
    return Price(*known, f"list prices of {PRICES_OF}") if known else None


@dataclass(frozen=True)
class CostEstimate:
    """The requests that are still to be paid, and what they will cost.

    `cached` were answered before; `reply_tokens` is the most that the requests allow; `price` is None where
    unknown; `noun` says who is asked."""

    model: str
    requests: int
    cached: int
    prompt_tokens: int
    reply_tokens: int
    price: Price | None
    noun: str = "judge"

    @property
    def cost(self) -> float | None:
        """Return the dollars at most, None where no price is known."""
        return None if self.price is None else self.price.of(self.prompt_tokens, self.reply_tokens)

    def text(self) -> str:
        """Return the estimate in one line."""
        what = (
            f"{self.noun} {self.model}: {self.requests} requests to send ({self.cached} answered before), "
            f"about {self.prompt_tokens:,} prompt tokens and at most {self.reply_tokens:,} reply tokens"
        )
        if self.price is None or self.cost is None:
            return f"{what}; its price is not known"
        return (
            f"{what}; at most about {dollars(self.cost)} at {self.price.input:g} + {self.price.output:g} "
            f"dollars a million tokens ({self.price.source})"
        )

    def confirm(self, yes: bool, limit: float, stream: TextIO | None = None, spent: float = 0.0) -> None:
        """Print the estimate, and go on if it, and what this run has `spent`, is below `limit` dollars or
        `yes` was said.

        Raises:
            UserError: it is above the limit, or the price is unknown, and `yes` was not said.
        """
        print(self.text(), file=stream or sys.stderr, flush=True)
        if yes or not self.requests:
            return
        if self.cost is None:
            raise UserError(
                f"the price of {self.model} is not known, so nothing was sent. Give "
                "--price_per_million_input and --price_per_million_output, or go on without an estimate "
                "with --yes"
            )
        if self.cost + spent > limit:
            before = f" more, after {dollars(spent)} so far" if spent else ""
            what = "judging" if self.noun == "judge" else "asking"
            raise UserError(
                f"{what} would cost about {dollars(self.cost)}{before}, above --cost_limit "
                f"{dollars(limit)}; nothing {'more ' if spent else ''}was sent. Go on with --yes, or raise "
                "--cost_limit"
            )
