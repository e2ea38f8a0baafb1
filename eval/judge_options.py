"""The flags of every script that asks a judge."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eval.chat_client import ChatClient
    from eval.chat_service import ChatRequest

Options = TypeVar("Options", bound="JudgeOptions")


def run_until_stopped(run: Callable[[Options], None], options: Options) -> int:
    """Run a judged benchmark and return the exit code, 130 where the user stopped it."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        run(options)
    except KeyboardInterrupt:
        logging.getLogger("eval").info(
            "stopped; what was answered and judged is kept: the same command goes on from there"
        )
        return 130
    return 0


@dataclass
class JudgeOptions:
    """Judge."""

    judge_model: str | None = None
    """The judge's name at its address (default: the one that the benchmark's published numbers come from)."""
    judge_base_url: str | None = None
    """OpenAI-compatible address, up to /v1 (default: the environment variable OPENAI_BASE_URL, else
    OpenAI's)."""
    judge_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it is read from nowhere else, and a server on this machine
    needs none."""
    judge_parallel: int = 8
    """Requests under way at a time."""
    judge_timeout: float = 120.0
    """Seconds without an answer after which an attempt has failed."""
    judge_max_tries: int = 8
    """Attempts for one request (rate limits, server errors, timeouts, broken answers) before it is given
    up."""
    judge_retries: int = 2
    """How often a question whose verdict cannot be read is asked again."""
    min_parsed_share: float = 0.95
    """Least share of judgments that must be readable; below it there is an error and no result."""
    price_per_million_input: float | None = None
    """Dollars for a million prompt tokens (default: the built-in table; 0 for a server on this machine)."""
    price_per_million_output: float | None = None
    """Dollars for a million reply tokens."""
    cost_limit: float = 5.0
    """Dollars that may be spent without --yes."""
    yes: bool = False
    """Spend what the estimate says, also above --cost_limit or where no price is known."""

    def judge_problems(self) -> list[str]:
        """Return every problem of these options, in words."""
        problems = [
            f"--{name} {getattr(self, name)} must be above 0"
            for name in ("judge_parallel", "judge_timeout", "judge_max_tries")
            if getattr(self, name) <= 0
        ]
        problems += [
            f"--{name} {getattr(self, name)} must not be below 0"
            for name in ("judge_retries", "cost_limit", "price_per_million_input", "price_per_million_output")
            if (getattr(self, name) or 0) < 0
        ]
        if not 0 <= self.min_parsed_share <= 1:
            problems.append(f"--min_parsed_share {self.min_parsed_share} must be between 0 and 1")
        if (self.price_per_million_input is None) != (self.price_per_million_output is None):
            problems.append("--price_per_million_input and --price_per_million_output go together")
        return problems

    def open_judge(self, default_model: str, cache: Path) -> "ChatClient":
        """Return the client of the judge, whose replies are kept in `cache`; see `open_client`."""
        return self.open_client(self.judge_base_url, self.judge_model or default_model, cache)

    def open_client(self, base_url: str | None, model: str, cache: Path) -> "ChatClient":
        """Return a client of a model at an address, with these options' key, limits and patience.

        Raises:
            UserError: see `ChatClient`.
        """
        from eval.chat_client import CallLimits, ChatClient

        # A line for every request is the HTTP packages' own way at the level of information.
        for name in ("httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return ChatClient(
            base_url,
            model,
            key_variable=self.judge_key_variable,
            cache=cache,
            limits=CallLimits(self.judge_parallel, self.judge_timeout, self.judge_max_tries),
        )

    def confirm_cost(
        self, client: "ChatClient", requests: "Sequence[ChatRequest]", reply_tokens: int = 1024
    ) -> None:
        """Put before the user what these requests will cost, on top of what the client has spent.

        Raises:
            UserError: see `CostEstimate.confirm`.
        """
        estimate = client.estimate(
            requests, self.price_per_million_input, self.price_per_million_output, reply_tokens
        )
        estimate.confirm(self.yes, self.cost_limit, spent=self.spent(client) or 0.0)

    def spent(self, client: "ChatClient") -> float | None:
        """Return the dollars paid for the replies to the client's requests so far; None where no price is
        known."""
        from eval.judging_cost import price_of

        price = price_of(
            client.model, client.local, self.price_per_million_input, self.price_per_million_output
        )
        return None if price is None else price.of(client.usage.prompt_tokens, client.usage.reply_tokens)
