"""The flags of every script that asks a judge."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eval.chat_client import ChatClient
    from eval.chat_errors import Asked
    from eval.chat_service import ChatRequest

Options = TypeVar("Options", bound="JudgeOptions")

# Fields of a body that are not given as further ones, and what sets them.
_KEY_FIELDS = ("api_key", "apikey", "authorization", "access_token")
_OWN_FIELDS = {
    "messages": "the benchmark",
    "model": "the flag of the model's name",
    "stream": "the service's own error, where it takes nothing else",
    "n": "the benchmark, which asks for one reply",
}


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
    """OpenAI-compatible address, up to /v1, with a query where the service needs one
    (.../openai/deployments/NAME?api-version=...) (default: the environment variable OPENAI_BASE_URL, else
    OpenAI's)."""
    judge_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it is read from nowhere else, and a server on this machine
    needs none."""
    judge_max_tokens: int | None = None
    """Tokens a reply may have, thoughts among them (default: the benchmark's own: MT-Bench 2048, AlpacaEval 1
    100, AlpacaEval 2 1). Sent as max_completion_tokens where the service asks for that."""
    judge_temperature: str | None = None
    """Temperature, or none to send none (default: the benchmark's own: MT-Bench and AlpacaEval 1 0,
    AlpacaEval 2 1; left out where the service takes none)."""
    judge_extra_body: str | None = None
    """Further fields of every request, as a JSON object: '{"chat_template_kwargs": {"enable_thinking":
    false}}'."""
    judge_parallel: int = 8
    """Requests under way at a time."""
    judge_timeout: float = 120.0
    """Seconds without a byte of an answer after which an attempt has failed; so it has after ten times as
    many without the whole answer."""
    judge_max_tries: int = 8
    """Attempts for one request (rate limits, server errors, timeouts, broken answers) before it is given
    up."""
    judge_retries: int = 2
    """How often a question whose verdict cannot be read is asked again."""
    ask_refused_again: bool = False
    """Ask again what the service refused in an earlier run (filtered, too long for it)."""
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
        if self.judge_max_tokens is not None and self.judge_max_tokens < 1:
            problems.append(f"--judge_max_tokens {self.judge_max_tokens} must be 1 or more")
        problems += temperature_problems("judge_temperature", self.judge_temperature)
        problems += body_problems("judge_extra_body", self.judge_extra_body)
        if not 0 <= self.min_parsed_share <= 1:
            problems.append(f"--min_parsed_share {self.min_parsed_share} must be between 0 and 1")
        if (self.price_per_million_input is None) != (self.price_per_million_output is None):
            problems.append("--price_per_million_input and --price_per_million_output go together")
        return problems

    def open_judge(self, default_model: str, cache: Path) -> "ChatClient":
        """Return the client of the judge, whose replies are kept in `cache`; see `open_client`."""
        from eval.chat_errors import JUDGE

        changes = request_changes("judge", self.judge_temperature, self.judge_extra_body)
        if self.judge_max_tokens is not None:
            changes["max_tokens"] = (self.judge_max_tokens, f"--judge_max_tokens {self.judge_max_tokens}")
        return self.open_client(self.judge_base_url, self.judge_model or default_model, cache, changes, JUDGE)

    def open_client(
        self,
        base_url: str | None,
        model: str,
        cache: Path,
        changes: Mapping[str, tuple[Any, str]],
        asked: "Asked",
    ) -> "ChatClient":
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
            limits=CallLimits(
                self.judge_parallel,
                self.judge_timeout,
                self.judge_max_tries,
                ask_refused_again=self.ask_refused_again,
            ),
            changes=changes,
            asked=asked,
        )

    def asked_with(self, client: "ChatClient", request: "ChatRequest | None") -> dict[str, Any]:
        """Return how a judge was asked, for the results: temperature, max_tokens, further fields of the body,
        and what its service takes otherwise."""
        if request is None:
            return {}
        asked = client.changed(request)
        return {
            "temperature": asked.temperature,
            "max_tokens": asked.max_tokens,
            "extra_body": json.loads(client.hidden(json.dumps(asked.extra))),
            "service_changes": client.service_changes,
        }

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


def request_changes(
    flags: str, temperature: str | None, extra_body: str | None
) -> dict[str, tuple[Any, str]]:
    """Return the fields of every request that flags set, each its value and the flag, for `ChatClient`.

    Args:
        flags: what the flags' names begin with, such as `judge`.
        temperature: a number, `none`, or None where the flag was not given.
        extra_body: a JSON object, or None.
    """
    changes: dict[str, tuple[Any, str]] = {}
    if temperature is not None:
        value = None if temperature.lower() == "none" else float(temperature)
        changes["temperature"] = (value, f"--{flags}_temperature {temperature}")
    if extra_body is not None:
        changes["extra"] = (json.loads(extra_body), f"--{flags}_extra_body")
    return changes


def temperature_problems(flag: str, value: str | None) -> list[str]:
    """Return what is wrong with a temperature of that flag, in words."""
    try:
        wrong = value is not None and value.lower() != "none" and not 0 <= float(value) < 100
    except ValueError:
        wrong = True
    return [f"--{flag} {value} must be a number of 0 or more, or none"] if wrong else []


def body_problems(flag: str, text: str | None) -> list[str]:
    """Return what is wrong with the further fields of a body, in words."""
    if text is None:
        return []
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return [f"--{flag} {text}: give a JSON object, such as '{{\"seed\": 1}}'"]
    own = dict(_OWN_FIELDS)
    prefix = flag.removesuffix("_extra_body")
    own["temperature"] = f"--{prefix}_temperature"
    own |= dict.fromkeys(
        ("max_tokens", "max_completion_tokens"),
        "--judge_max_tokens" if prefix == "judge" else "--max_new_tokens",
    )
    secret = [name for name in value if name.lower().replace("-", "_") in _KEY_FIELDS]
    problems = [f'--{flag}: "{name}" is set by {own[name]}' for name in value if name in own]
    return problems + [
        f'--{flag}: "{name}" holds a key, which would get into files; give it in the environment variable of '
        "--judge_key_variable"
        for name in secret
    ]
