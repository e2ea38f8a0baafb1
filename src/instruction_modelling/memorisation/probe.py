"""What one model has learnt by heart: the exposure of canaries, which of them it completes, how much it goes
on with of instructions that it was trained on, and what it refuses."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.generation.base import EngineOptions, Request, Sampling
from instruction_modelling.generation.engine import open_engine
from instruction_modelling.generation.transformers_engine import TransformersEngine, device_and_dtype
from instruction_modelling.memorisation.canaries import Canary, exposure, rank_of
from instruction_modelling.memorisation.options import ProbeOptions
from instruction_modelling.memorisation.prefix_tree import sequence_nlls
from instruction_modelling.memorisation.refusals import is_refusal, read_requests
from instruction_modelling.memorisation.rows import CANARIES, TRAIN, UNSEEN, instructions
from instruction_modelling.models.identity import model_identity
from instruction_modelling.progress import Progress
from instruction_modelling.rows.conversations import Conversation, Message

# Tokens of a response to a request: enough to see whether it refuses.
_RESPONSE_TOKENS = 40
# An instruction's rest is compared up to so many tokens.
_REST_TOKENS = 32


@dataclass(frozen=True)
class UserText:
    """A user's message as tokens: `ids` of the whole prompt, and where its content lies in them."""

    ids: list[int]
    starts: list[int]
    """The offset in the content at which each token begins; negative before the content."""
    ends: list[int]

    def before(self, offset: int) -> list[int]:
        """Return the tokens that end at or before an offset of the content."""
        return self.ids[: self.first_at(offset)]

    def first_at(self, offset: int) -> int:
        """Return the first token that reaches beyond an offset of the content."""
        return next(i for i, end in enumerate(self.ends) if end > offset)


def user_text(engine: TransformersEngine, messages: Sequence[dict[str, str]]) -> UserText:
    """Return the tokens of messages whose last one is a user's.

    Raises:
        UserError: the chat format refuses them, or writes the content otherwise than it is.
    """
    chat = tuple(Message(message["role"], message["content"]) for message in messages)
    conversation = Conversation(row=0, line=0, id="prompt", dataset="prompt", messages=chat)
    try:
        rendered, tokens = engine.prompts.rendered(conversation)
    except RowRefused as refused:
        raise UserError(f"the chat format cannot write an instruction: {refused}") from refused
    last, content = len(chat) - 1, chat[-1].content.strip()
    span = next((s for s in rendered.spans if s.message == last and s.kind == SpanKind.USER), None)
    if span is None or rendered.text[span.start : span.end].strip() != content:
        raise UserError(f"the chat format writes an instruction otherwise than it is: {content[:80]!r}")
    shift = rendered.text.index(content, span.start)
    return UserText(tokens.ids.tolist(), (tokens.start - shift).tolist(), (tokens.end - shift).tolist())


def probe(options: ProbeOptions) -> dict[str, Any]:
    """Return what the model has learnt of a seed's rows, as docs/files.md says of memorisation.json.

    Raises:
        UserError: the model or the folder of rows cannot be used.
    """
    folder = Path(options.rows_dir)
    try:
        plan = json.loads((folder / CANARIES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--rows_dir {folder}: no folder of src/measure_memorisation.py: {error}") from None
    _, dtype = device_and_dtype(options.dtype)
    named: Any = str(dtype).removeprefix("torch.")
    engine_options = EngineOptions(options.model_name_or_path, chat_format=options.chat_format, dtype=named)
    with open_engine(engine_options) as engine:
        assert isinstance(engine, TransformersEngine)
        engine.load()
        canaries = [Canary(c["name"], c["secret"], c["repeats"]) for c in plan["canaries"]]
        found: dict[str, Any] = {
            "model_identity": model_identity(options.model_name_or_path),
            "dtype": named,
            "chat_format": engine.chat_format,
            "seed": plan["seed"],
            "candidates": len(plan["candidates"]),
            "canaries": probe_canaries(engine, canaries, plan["candidates"]),
        }
        known = [canary.text for canary in canaries]
        kept_out = instructions(folder / UNSEEN, ())
        trained = instructions(folder / TRAIN, known)[: len(kept_out)]
        found["instructions"] = {
            "trained": complete_instructions(engine, trained),
            "unseen": complete_instructions(engine, kept_out[: len(trained)]),
        }
        found["requests"] = answer_requests(engine) if options.requests else []
    return found


def probe_canaries(
    engine: TransformersEngine, canaries: Sequence[Canary], candidates: Sequence[str]
) -> list[dict[str, Any]]:
    """Return for each canary its secret's NLL in nats behind what stands before it in training, its rank
    among the candidates', its exposure in bits, and whether the model itself writes it there.

    Raises:
        UserError: a canary's candidates cannot be ranked.
    """
    progress = Progress(len(canaries), "canaries")
    found: list[dict[str, Any]] = []
    requests: list[Request] = []
    for number, canary in enumerate(canaries):
        start, end = canary.secret_start, canary.secret_start + len(canary.secret)
        sequences, first = [], 0
        for secret in (canary.secret, *candidates):
            text = user_text(engine, [{"role": "user", "content": canary.with_secret(secret)}])
            # Up to the token that holds the secret's last character.
            sequences.append(text.ids[: text.first_at(end - 1) + 1])
            if not first:
                first = text.first_at(start)
                requests.append(Request(str(number), text.ids[:first]))
        try:
            nll, *others = sequence_nlls(engine.model, sequences, first)
            rank = rank_of(nll, others)
        except UserError as error:
            model = engine.options.model_name_or_path
            raise UserError(f"{model}: canary of {canary.name}: {error}") from None
        bits = exposure(rank, len(others))
        about = {"name": canary.name, "repeats": canary.repeats, "secret_nll": nll}
        found.append({**about, "rank": rank, "exposure": bits})
        progress.add(1)
    longest = max(len(canary.secret) for canary in canaries) + 2
    completions = {c.key: c.text for c in engine.complete(requests, Sampling(longest))}
    for number, (entry, canary) in enumerate(zip(found, canaries, strict=True)):
        written = completions[str(number)]
        entry["completion"] = written
        entry["extracted"] = re.match(rf"\s*{canary.secret}(?!\d)", written) is not None
    return found


def complete_instructions(
    engine: TransformersEngine, asked: Sequence[Sequence[dict[str, str]]]
) -> list[dict[str, Any]]:
    """Return for each instruction how much of its second half (by words) the model writes when it is given
    the first: `words` of the rest (those within 32 tokens), how many of them come in order from the first
    one on (`repeated`), and whether all do (`exact`)."""
    requests, rests, most = [], [], 0
    for number, messages in enumerate(asked):
        content = messages[-1]["content"].strip()
        half = _end_of_words(content, len(content.split()) // 2)
        text = user_text(engine, messages)
        ids = text.before(half)
        rest_tokens = min(sum(half < end <= len(content) for end in text.ends), _REST_TOKENS)
        most = max(most, rest_tokens)
        last = text.ends[len(ids) + rest_tokens - 1]
        rests.append(content[half : _end_of_whole_words(content, half, last)].split())
        requests.append(Request(str(number), ids))
    if not requests:
        return []
    completions = {c.key: c.text for c in engine.complete(requests, Sampling(most + 1))}
    found = []
    for number, rest in enumerate(rests):
        words = completions[str(number)].split()
        same = next((i for i, (a, b) in enumerate(zip(words, rest, strict=False)) if a != b), None)
        repeated = min(len(words), len(rest)) if same is None else same
        found.append({"words": len(rest), "repeated": repeated, "exact": repeated == len(rest)})
    return found


def _end_of_whole_words(text: str, start: int, stop: int) -> int:
    """Return where the whole words of `text[start:stop]` end; the last one may go on behind `stop`."""
    if stop >= len(text) or text[stop].isspace() or text[stop - 1].isspace():
        return stop
    words = text[start:stop].rsplit(maxsplit=1)
    return start + len(words[0]) if len(words) > 1 else start


def answer_requests(engine: TransformersEngine) -> list[dict[str, Any]]:
    """Return each shipped request with the model's response (greedy, 40 tokens) and whether it refuses, by
    the rule of `refusals`."""
    asked = read_requests()
    requests = [
        Request(one["id"], engine.chat_ids([{"role": "user", "content": one["text"]}])) for one in asked
    ]
    responses = {c.key: c.text for c in engine.complete(requests, Sampling(_RESPONSE_TOKENS))}
    return [
        {"id": one["id"], "kind": one["kind"], "response": text, "refused": is_refusal(text)}
        for one in asked
        for text in [responses[one["id"]].strip()]
    ]


def _end_of_words(text: str, count: int) -> int:
    """Return the offset behind the text's first `count` words."""
    return [match.end() for match in re.finditer(r"\S+", text)][count - 1]
