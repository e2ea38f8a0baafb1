"""A model's answers to AlpacaEval's instructions: greedy, each kept as it comes."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.alpaca_farm.options import AlpacaEvalOptions
from eval.alpaca_farm.pairs import Output, read_outputs
from eval.answer_facts import FAILED_ANSWER, failure_of, keep_facts, kept_facts, making
from eval.names import folder_name, own_folder
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import read_stamp
from instruction_modelling.files.whole import write_json
from instruction_modelling.rows.json_lines import snippet

if TYPE_CHECKING:
    from eval.chat_client import ChatReply

logger = logging.getLogger(__name__)

COMPLETIONS, OUTPUTS, GENERATION = "completions.jsonl", "model_outputs.json", "generation.json"
UNANSWERED = "unanswered.json"
# The files of rates in a model's folder: one model's, whichever benchmark they are of.
RESULTS = "alpaca_eval_*/results.json"


@dataclass(frozen=True)
class Answers:
    """A model's answers.

    `made` is how they were made, for the results; `source` is where they are, for messages; `folder` is that
    of everything about the model; `unanswered` are the instructions whose answers are none, and what they
    are."""

    outputs: list[Output]
    made: dict[str, Any]
    model: str
    folder: Path
    source: str
    unanswered: Mapping[str, str] = field(default_factory=dict)


def answers_of_file(path: Path, save_dir: str | None) -> Answers:
    """Return the answers of a file in the package's format.

    Raises:
        UserError: it cannot be read, or is none.
    """
    file = read_outputs(path, "Name a file in the package's format", null_is_empty=True)
    model = Counter(output.generator for output in file.outputs).most_common(1)[0][0]
    made = {"file": str(path), "sha256": file.sha256}
    folder = Path(save_dir or Path("results/eval") / folder_name(model))
    if save_dir is None:
        folder = own_folder(folder, RESULTS, "outputs", made)
    unanswered = {
        output.instruction: f"the answer in {path} is {what}"
        for output in file.outputs
        if (what := failure_of(output.output))
    }
    if unanswered:
        logger.warning(
            "%s: %d answers are empty or %s, which is no answer, the first to %s. They are not judged",
            path,
            len(unanswered),
            FAILED_ANSWER,
            snippet(next(iter(unanswered))),
        )
    return Answers(file.outputs, made, model, folder, str(path), unanswered)


def answer_instructions(
    options: AlpacaEvalOptions, asked: Sequence[Output], model_folder: Path, folder: Path
) -> Answers:
    """Return the model's answers to the instructions of the reference's answers `asked`.

    They are kept in `folder`, where both benchmarks, whose instructions are the same, find them; the model is
    loaded only where they are not complete.

    Raises:
        UserError: the model cannot be used, or the folder holds answers that were made otherwise.
    """
    model = Path(options.model_name_or_path or "").resolve().name
    made = making(options, use_chat_format=options.use_chat_format, max_new_tokens=options.max_new_tokens)
    facts = kept_facts(folder / GENERATION, made, folder / OUTPUTS)
    if facts is not None:
        outputs = read_outputs(folder / OUTPUTS, "Remove it to answer anew").outputs
        if [output.instruction for output in outputs] == [output.instruction for output in asked]:
            logger.info("all %d answers are in %s already", len(outputs), folder)
            return Answers(outputs, facts, model, model_folder, str(folder))
    _check_maker(folder, None)
    outputs, engine = _generate(options, asked, folder, model)
    write_outputs(folder, outputs)
    facts = keep_facts(folder / GENERATION, {**made, **engine}, folder / OUTPUTS)
    return Answers(outputs, facts, model, model_folder, str(folder))


def ask_service(
    options: AlpacaEvalOptions, asked: Sequence[Output], model_folder: Path, folder: Path
) -> Answers:
    """Return the answers of the model `openai_engine` to the same instructions.

    Instructions that it leaves without an answer are listed in unanswered.json.

    Raises:
        UserError: they would cost more than the limit, the service stopped answering, or it left more than
            `max_empty_share` without an answer (what it did answer is kept).
    """
    from eval.chat_errors import EVALUATED
    from eval.chat_service import ChatRequest
    from eval.judge_options import request_changes

    model = Path(options.openai_engine or "").name
    _check_maker(folder, options.openai_engine)
    requests = [
        ChatRequest(
            str(number), [{"role": "user", "content": other.instruction}], max_tokens=options.max_new_tokens
        )
        for number, other in enumerate(asked)
    ]
    changes = request_changes("engine", options.engine_temperature, options.engine_extra_body)
    if not changes["temperature"][0]:
        # Greedy unless the service takes no temperature at all; another one was asked for by name.
        requests = [replace(request, temperature=changes["temperature"][0]) for request in requests]
        del changes["temperature"]
    with options.open_client(
        None, options.openai_engine or "", folder / "engine_replies.jsonl", changes, EVALUATED
    ) as client:
        options.confirm_cost(client, requests)
        replies: dict[str, ChatReply] = {reply.key: reply for reply in client.ask(requests)}
        how = options.asked_with(client, requests[0]) if requests else {}
    unanswered = _unanswered(options, model, asked, replies, folder)
    outputs = [
        Output(other.instruction, replies[str(number)].text, model, other.dataset)
        for number, other in enumerate(asked)
    ]
    write_outputs(folder, outputs)
    made = {
        "model": options.openai_engine,
        "engine": "service",
        "max_new_tokens": options.max_new_tokens,
        "unanswered": len(unanswered),
        **how,
    }
    facts = keep_facts(folder / GENERATION, made, folder / OUTPUTS)
    return Answers(outputs, facts, model, model_folder, str(folder), unanswered)


def _check_maker(folder: Path, service_model: str | None) -> None:
    """Check that a folder holds no answers of another model behind an address, or of one where a model here
    is to answer (None).

    Raises:
        UserError: it does; they would be written over.
    """
    kept = read_stamp(folder / GENERATION) or {}
    by_service = kept.get("engine") == "service"
    if (
        kept
        and (by_service or service_model)
        and (kept.get("model") if by_service else None) != service_model
    ):
        raise UserError(
            f"{folder} holds the answers of {kept.get('model')}; put those of another model into a folder of "
            "their own with --save_dir"
        )


def _unanswered(
    options: AlpacaEvalOptions,
    model: str,
    asked: Sequence[Output],
    replies: Mapping[str, "ChatReply"],
    folder: Path,
) -> dict[str, str]:
    """Return the instructions that a service left without an answer, and why; list them in a file.

    Raises:
        UserError: they are too many, or some were never asked.
    """
    why: dict[str, str] = {}
    for number, other in enumerate(asked):
        reply = replies[str(number)]
        if reply.error is not None:
            why[other.instruction] = reply.error
        elif not reply.text.strip():
            ends = f" (finish_reason {reply.finish_reason})" if reply.finish_reason else ""
            cut = (
                ": it ran out of --max_new_tokens before any text" if reply.finish_reason == "length" else ""
            )
            why[other.instruction] = f"the answer is empty{ends}{cut}"
    not_asked = sum(not reply.asked for reply in replies.values())
    if not_asked or len(why) > options.max_empty_share * len(asked):
        from eval.verdict_text import commonest

        listed = "".join(f"\n  - {count} times: {reason}" for reason, count in commonest(why.values()))
        raise UserError(
            f"{model} did not answer {len(why)} of {len(asked)} instructions, more than --max_empty_share "
            f"{options.max_empty_share:g} allows:{listed}\nThe other answers are kept: the same command goes "
            "on from there (--ask_refused_again asks what was refused once more, --max_new_tokens sets the"
            " room for an answer)"
        )
    path = folder / UNANSWERED
    if why:
        rows = [{"instruction": instruction, "reason": reason} for instruction, reason in why.items()]
        write_json(path, rows, ascii_only=True)
        logger.warning(
            "%s left %d of %d instructions without an answer; they are in %s and are not judged. The first: "
            "%s",
            model,
            len(why),
            len(asked),
            path,
            next(iter(why.values())),
        )
    else:
        path.unlink(missing_ok=True)
    return why


def write_outputs(folder: Path, outputs: Sequence[Output]) -> None:
    """Write model_outputs.json, in the package's format."""
    write_json(folder / OUTPUTS, [asdict(output) for output in outputs], ascii_only=True)


def _generate(
    options: AlpacaEvalOptions, asked: Sequence[Output], folder: Path, model: str
) -> tuple[list[Output], dict[str, Any]]:
    """Return the answers, and which engine and chat format made them, how many were cut off, their tokens."""
    from instruction_modelling.generation.engine import Request, Sampling, complete_all, open_engine

    with open_engine(options) as engine:
        requests = [
            Request(
                str(number),
                engine.chat_ids([{"role": "user", "content": other.instruction}])
                if options.use_chat_format
                else engine.plain_ids(other.instruction),
            )
            for number, other in enumerate(asked)
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
        Output(other.instruction, completion.text, model, other.dataset)
        for other, completion in zip(asked, completions, strict=True)
    ]
    return outputs, {**facts, "cut_off": cut, "tokens": sum(completion.tokens for completion in completions)}
