"""HumanEval of a model behind an OpenAI-compatible address: what it answers, each answer kept as it comes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.codex_humaneval.options import HumanEvalOptions
from eval.codex_humaneval.problems import Sample
from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from eval.chat_client import ChatReply

# The released evaluation's words to a service.
REQUEST = (
    "Complete the following python function. Please only output the code for the completed function.\n\n\n"
)
REPLIES = "engine_replies.jsonl"


def ask_service(
    options: HumanEvalOptions, problems: Mapping[str, Mapping[str, str]]
) -> tuple[list[Sample], dict[str, Any]]:
    """Return the chat answers of the model `openai_engine`, task by task, as samples, and how they were made.

    One without an answer (refused, filtered, cut off before any text) is an empty sample, which fails.

    Raises:
        UserError: they would cost more than the limit, the service stopped answering, or it left more than
            `max_empty_share` without an answer (what it did answer is kept).
    """
    from eval.chat_errors import EVALUATED
    from eval.chat_service import ChatRequest
    from eval.judge_options import JudgeOptions

    asking = JudgeOptions(cost_limit=options.cost_limit, yes=options.yes)
    further = {"top_p": options.top_p} if options.temperature else {}
    requests = [
        ChatRequest(
            f"{task_id} {sample}",
            [{"role": "user", "content": REQUEST + problem["prompt"]}],
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
            extra=further,
            # The samples of a task are equal requests, each to be answered.
            attempt=sample,
        )
        for task_id, problem in problems.items()
        for sample in range(options.unbiased_sampling_size_n)
    ]
    model, cache = options.openai_engine or "", Path(options.save_dir) / REPLIES
    with asking.open_client(None, model, cache, {}, EVALUATED) as client:
        asking.confirm_cost(client, requests)
        replies = {reply.key: reply for reply in client.ask(requests)}
        how = asking.asked_with(client, requests[0] if requests else None)
    unanswered = _unanswered(model, list(replies.values()), options.max_empty_share)
    samples = [
        Sample(line, request.key.rpartition(" ")[0], replies[request.key].text)
        for line, request in enumerate(requests, start=1)
    ]
    made = {"engine": "service", "chat_format": "the service's own", "unanswered": unanswered}
    return samples, {**made, "service_changes": how.get("service_changes")}


def _unanswered(model: str, replies: "list[ChatReply]", most: float) -> int:
    """Return how many requests were left without an answer.

    Raises:
        UserError: they are too many, or some were never asked.
    """
    why = [
        reply.error or f"the answer is empty (finish_reason {reply.finish_reason})"
        for reply in replies
        if reply.error is not None or not reply.text.strip()
    ]
    if any(not reply.asked for reply in replies) or len(why) > most * len(replies):
        listed = "".join(f"\n  - {count} times: {reason}" for reason, count in Counter(why).most_common(3))
        raise UserError(
            f"{model} did not answer {len(why):,} of {len(replies):,} requests, more than --max_empty_share "
            f"{most:g} allows:{listed}\nThe other answers are kept: the same command goes on from there"
        )
    return len(why)
