"""A model's answers to AlpacaEval's instructions: greedy, each kept as it comes."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.alpaca_farm.pairs import Output, read_outputs
from eval.alpaca_farm.results import write
from eval.answer_facts import keep_facts, kept_facts, making
from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256

if TYPE_CHECKING:
    from eval.alpaca_farm.run_eval import AlpacaEvalOptions

logger = logging.getLogger(__name__)

COMPLETIONS, OUTPUTS, GENERATION = "completions.jsonl", "model_outputs.json", "generation.json"


def generated(
    options: "AlpacaEvalOptions", asked: Sequence[Output], folder: Path, name: str
) -> tuple[list[Output], dict[str, Any]]:
    """The model's answers to the instructions of the reference's answers `asked`, and how they were made.

    The answers are kept in `folder`, where both benchmarks, whose instructions are the same, find them; the
    model is loaded only where they are not complete.

    Raises:
        UserError: the model cannot be used, or the folder holds answers that were made otherwise.
    """
    made = making(options, use_chat_format=options.use_chat_format, max_new_tokens=options.max_new_tokens)
    before = _complete(asked, folder, made)
    if before is not None:
        logger.info("all %d answers are in %s already", len(before[0]), folder)
        return before
    outputs, facts = _answer(options, asked, folder, name)
    write_outputs(folder, outputs)
    return outputs, keep_facts(folder / GENERATION, {**made, **facts}, folder / OUTPUTS)


def asked_of_service(
    options: "AlpacaEvalOptions", asked: Sequence[Output], folder: Path, name: str
) -> tuple[list[Output], dict[str, Any]]:
    """The answers of the model `openai_engine` to the same instructions, and how they were made.

    Raises:
        UserError: they would cost more than the limit, or the service did not answer all (what it did answer
        is kept).
    """
    from eval.chat_client import ChatClient, ChatRequest

    requests = [
        ChatRequest(
            str(place), [{"role": "user", "content": other.instruction}], max_tokens=options.max_new_tokens
        )
        for place, other in enumerate(asked)
    ]
    with ChatClient(
        None,
        options.openai_engine or "",
        key_variable=options.judge_key_variable,
        parallel=options.judge_parallel,
        timeout=options.judge_timeout,
        max_tries=options.judge_max_tries,
        cache=folder / "engine_replies.jsonl",
    ) as client:
        options.confirm_cost(client, requests)
        replies = {reply.key: reply for reply in client.ask(requests)}
    failures = [reply.error for reply in replies.values() if reply.error is not None]
    if failures:
        raise UserError(
            f"{name} did not answer {len(failures)} of {len(asked)} instructions (the first: {failures[0]}). "
            "The "
            "other answers are kept: run the same command again to ask the rest"
        )
    outputs = [
        Output(other.instruction, replies[str(place)].text, name, other.dataset)
        for place, other in enumerate(asked)
    ]
    write_outputs(folder, outputs)
    return outputs, {
        "model": options.openai_engine,
        "engine": "service",
        "max_new_tokens": options.max_new_tokens,
        "sha256": file_sha256(folder / OUTPUTS),
    }


def write_outputs(folder: Path, outputs: Sequence[Output]) -> None:
    """Writes model_outputs.json, the package's format."""
    write(folder / OUTPUTS, json.dumps([asdict(output) for output in outputs], indent=1) + "\n")


def _complete(
    asked: Sequence[Output], folder: Path, made: dict[str, Any]
) -> tuple[list[Output], dict[str, Any]] | None:
    """What a run before this one left, if it is whole, made in the same way, and answers these
    instructions."""
    facts = kept_facts(folder / GENERATION, made, folder / OUTPUTS)
    if facts is None:
        return None
    outputs = read_outputs(folder / OUTPUTS, "Remove it to answer anew").outputs
    return (
        (outputs, facts)
        if [output.instruction for output in outputs] == [output.instruction for output in asked]
        else None
    )


def _answer(
    options: "AlpacaEvalOptions", asked: Sequence[Output], folder: Path, name: str
) -> tuple[list[Output], dict[str, Any]]:
    from instruction_modelling.generation.engine import Request, Sampling, complete_all, open_engine

    with open_engine(options) as engine:
        requests = [
            Request(
                str(place),
                engine.chat_ids([{"role": "user", "content": other.instruction}])
                if options.use_chat_format
                else engine.plain_ids(other.instruction),
            )
            for place, other in enumerate(asked)
        ]
        completions = complete_all(
            engine, requests, Sampling(max_new_tokens=options.max_new_tokens), folder / COMPLETIONS, "answers"
        )
        facts = {
            "engine": engine.name,
            "chat_format": engine.chat_format if options.use_chat_format else None,
        }
    if len(completions) < len(requests):
        raise UserError(
            f"the model answered {len(completions)} of {len(requests)} instructions; run the same command "
            "again"
        )
    cut = sum(not completion.stopped for completion in completions)
    if cut:
        logger.warning(
            "%d of %d answers ran out of room before they ended; they are judged as they are",
            cut,
            len(completions),
        )
    outputs = [
        Output(other.instruction, completion.text, name, other.dataset)
        for other, completion in zip(asked, completions, strict=True)
    ]
    return outputs, {**facts, "cut_off": cut, "tokens": sum(completion.tokens for completion in completions)}
