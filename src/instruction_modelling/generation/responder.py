"""Prompts of rows, and a model's responses to them.

A row's prompt is what the model saw in training before the response: the messages before the last assistant
message, rendered with the chat format's generation prompt and encoded as in training. A response ends at an
end token of the chat format or of the model's generation config. The rest of that config (temperature,
repetition penalty, ...) is not used. At temperature 0 the most likely token is taken; above it, each row
draws from a random generator of its own, keyed by (seed, row), so that neither the batch size nor a restart
changes what is drawn."""

import gc
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.chat.spans import Rendered
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.generation.responses import Response
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.tokens.encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


# -- prompts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """What a model is given for a row: the rendered text and its token ids; `reference` is the row's own
    response, None where it has none. `gap`: a prompt/completion row whose training text has a space after the
    prompt."""

    row: int
    id: str
    text: str
    ids: list[int]
    instruction: str
    reference: str | None
    gap: bool = False


def split_reference(conversation: Conversation) -> tuple[Conversation, str | None]:
    """The conversation before its final assistant message, and that message's content.

    Where the last message is not an assistant's, the whole conversation and None; a final message of tool
    calls alone has no reference either. A prompt/completion row stays whole: rendering takes its prompt
    alone.

    Raises:
        RowRefused: nothing stands before the response.
    """
    last = conversation.messages[-1]
    if last.role != "assistant":
        return conversation, None
    reference = None if last.tool_calls and not last.content else last.content
    if conversation.plain:
        return conversation, reference
    if len(conversation.messages) == 1:
        raise RowRefused(
            "no prompt", "its only message is the assistant's; a response needs an instruction before it"
        )
    return replace(conversation, messages=conversation.messages[:-1]), reference


def make_prompts(
    conversations: Sequence[Conversation],
    chat_format: ChatFormat,
    encoder: TextEncoder,
    max_seq_length: int,
    max_new_tokens: int,
    positions: int | None,
) -> tuple[list[Prompt], list[BadRow]]:
    """The prompts of conversations in their order, and the rows that have none.

    Args:
        max_seq_length: tokens a prompt may have, BOS counted; longer ones are refused, never cut.
        max_new_tokens: tokens that must fit after the prompt.
        positions: tokens that the model can place, None for no limit.
    """
    prompts: list[Prompt] = []
    refused: list[BadRow] = []
    for conversation in conversations:
        try:
            prompt = _prompt(conversation, chat_format, encoder)
            _check_length(len(prompt.ids), max_seq_length, max_new_tokens, positions)
            prompts.append(prompt)
        except RowRefused as error:
            refused.append(
                BadRow(conversation.row, conversation.line, conversation.id, error.reason, error.detail)
            )
    return prompts, refused


def _prompt(conversation: Conversation, chat_format: ChatFormat, encoder: TextEncoder) -> Prompt:
    history, reference = split_reference(conversation)
    rendered: Rendered = chat_format.render(history, generation_prompt=True)
    ids = encoder.encode([rendered])[0].ids.tolist()
    if not ids:
        raise RowRefused("no prompt", "its prompt is empty and the tokenizer puts nothing in front of it")
    user = [message.content for message in history.messages if message.role == "user"]
    gap = conversation.plain and not rendered.text[-1:].isspace()
    return Prompt(
        conversation.row, conversation.id, rendered.text, ids, user[-1] if user else "", reference, gap
    )


def _check_length(tokens: int, max_seq_length: int, max_new_tokens: int, positions: int | None) -> None:
    if tokens > max_seq_length:
        raise RowRefused(
            "prompt too long",
            f"its prompt has {tokens} tokens and --max_seq_length is {max_seq_length}; "
            "a cut prompt would be another question",
        )
    if positions is not None and tokens + max_new_tokens > positions:
        raise RowRefused(
            "prompt too long",
            f"its prompt of {tokens} tokens and --max_new_tokens {max_new_tokens} do not "
            f"fit the model's {positions} positions",
        )


def prompts_sha256(prompts: Sequence[Prompt]) -> str:
    """The hex digest of the prompts' rows and token ids."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(f"{prompt.row} {prompt.ids}\n".encode())
    return digest.hexdigest()


def end_token_ids(
    tokenizer: "PreTrainedTokenizerBase", end_strings: Sequence[str], model_ends: int | Sequence[int] | None
) -> list[int]:
    """The ids that end a response, ascending: the chat format's end tokens and those of the model's
    generation config.

    Args:
        end_strings: the chat format's.
        model_ends: the config's `eos_token_id`.
    """
    ids = {model_ends} if isinstance(model_ends, int) else set(model_ends or ())
    for text in end_strings:
        id_ = tokenizer.convert_tokens_to_ids(text)
        # What the vocabulary lacks comes back as the unknown token, which ends nothing.
        if isinstance(id_, int) and tokenizer.convert_ids_to_tokens(id_) == text:
            ids.add(id_)
    return sorted(ids)


def model_limits(name: str) -> tuple[Any, int | None]:
    """The end tokens of the model's generation config, and how many positions it has (None: no limit).

    Raises:
        UserError: there is no model of that name.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model_name_or_path {name}: no model there: {str(error).strip().splitlines()[0]}"
        ) from error
    try:
        ends = GenerationConfig.from_pretrained(name).eos_token_id
    except (OSError, ValueError):
        ends = getattr(config.get_text_config(), "eos_token_id", None)
    return ends, getattr(config.get_text_config(), "max_position_embeddings", None)


def model_state(name: str) -> dict[str, Any] | None:
    """Size and time of a model folder's weights, by which a continued run knows that they are the same; None
    on the hub, where the name stands for them."""
    folder = Path(name)
    if not folder.is_dir():
        return None
    weights = sorted(p for pattern in ("config.json", "*.safetensors", "*.bin") for p in folder.glob(pattern))
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in weights}


# -- responses --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen: temperature 0 takes the most likely one; above it, one is drawn from the
    smallest set of tokens whose probability reaches `top_p`."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class KeyedSampler:
    """Turns "take the largest score" into drawing from the softmax, each row with its own random generator.

    With E_i exponentially distributed, argmax_i (s_i - log E_i) is a draw from softmax(s).
    """

    def __init__(self, rows: Sequence[int], decoding: Decoding, device: torch.device):
        self.temperature, self.top_p = decoding.temperature, decoding.top_p
        self._generators = []
        for row in rows:
            key = hashlib.sha256(f"{decoding.seed} {row}".encode()).digest()
            self._generators.append(torch.Generator(device).manual_seed(int.from_bytes(key[:8]) >> 1))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [R, V] whose argmax is the drawn token; `input_ids` is what generation passes along."""
        scores = keep_top_p(scores.float() / self.temperature, self.top_p)
        noise = torch.empty_like(scores)
        for row, generator in enumerate(self._generators):
            noise[row].exponential_(generator=generator)
        return scores - noise.log()


def keep_top_p(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Scores [R, V] with -inf for all but the smallest set of tokens whose probabilities sum to at least
    `top_p`."""
    if top_p >= 1:
        return scores
    ordered, index = scores.sort(dim=-1, descending=True)
    share = ordered.softmax(dim=-1)
    before = share.cumsum(dim=-1) - share
    return scores.masked_fill((before >= top_p).scatter(-1, index, before >= top_p), float("-inf"))


def response_of(prompt: Prompt, text: str, tokens: int, finished: bool) -> Response:
    """The response to a prompt: the text that was generated, without the space a prompt/completion row has
    before it."""
    return Response(
        row=prompt.row,
        id=prompt.id,
        prompt=prompt.text,
        instruction=prompt.instruction,
        response=text.removeprefix(" ") if prompt.gap else text,
        reference=prompt.reference,
        tokens=tokens,
        finished=finished,
    )


class Responder:
    """A model that answers prompts in batches.

    Args:
        model: a causal language model, on its device; its generation config is replaced by an empty one.
        end_ids: the tokens that end a response, see `end_token_ids`.
        stop: texts that end a response too and are not part of it.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        end_ids: Sequence[int],
        decoding: Decoding,
        stop: Sequence[str] = (),
    ):
        from transformers import GenerationConfig

        self.model, self.tokenizer, self.decoding, self.stop = model.eval(), tokenizer, decoding, tuple(stop)
        self.end_ids = frozenset(end_ids)
        # generate() takes what a config leaves open from the model's own.
        model.generation_config = GenerationConfig()
        self._pad = min(self.end_ids, default=0)
        self._config = GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=sorted(self.end_ids) or None,
            pad_token_id=self._pad,
        )

    def check_vocabulary(self, prompts: Sequence[Prompt]) -> None:
        """Raises `UserError` where a prompt holds a token that the model has no embedding of."""
        rows = int(self.model.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type]
        for prompt in prompts:
            if max(prompt.ids) >= rows:
                raise UserError(
                    f"row {prompt.row} holds token {max(prompt.ids)} and the model has embeddings of {rows} "
                    "tokens only: the tokenizer is not the model's (--tokenizer_name)"
                )

    def answer_all(
        self, prompts: Sequence[Prompt], batch_size: int, warn: Callable[[str], None] = logger.warning
    ) -> Iterator[list[Response]]:
        """The responses to all prompts, batch by batch, the longest prompts first.

        Where memory runs out, the batch is halved and so are those after it.

        Raises:
            UserError: a single prompt does not fit into memory.
        """
        waiting = sorted(prompts, key=lambda prompt: (-len(prompt.ids), prompt.row))
        done = 0
        while done < len(waiting):
            batch = waiting[done : done + batch_size]
            answers = self._answer_if_it_fits(batch)
            if answers is not None:
                done += len(batch)
                yield answers
                continue
            if len(batch) == 1:
                raise UserError(
                    f"row {batch[0].row} (a prompt of {len(batch[0].ids)} tokens) does not fit into memory "
                    "even alone; use --dtype bfloat16 or a smaller --max_new_tokens, or leave such rows out "
                    "with --max_seq_length and --max_bad_rows"
                )
            batch_size = len(batch) // 2
            warn(
                f"out of memory with {len(batch)} prompts at once: going on with {batch_size} (--batch_size)"
            )
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _answer_if_it_fits(self, batch: Sequence[Prompt]) -> list[Response] | None:
        # Memory is freed by the caller, after the exception and what it refers to are gone.
        try:
            return self.answer(batch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
        return None

    @torch.no_grad()
    def answer(self, batch: Sequence[Prompt]) -> list[Response]:
        """The responses to prompts, computed at once, padded on the left."""
        device = self.model.device
        width = max(len(prompt.ids) for prompt in batch)
        ids = torch.full((len(batch), width), self._pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, width - len(prompt.ids) :] = 1
        sampling: dict[str, Any] = {}
        if self.decoding.temperature > 0:
            from transformers import LogitsProcessorList

            sampler = KeyedSampler([prompt.row for prompt in batch], self.decoding, device)
            sampling["logits_processor"] = LogitsProcessorList([sampler])  # type: ignore[list-item]
        if self.stop:
            from transformers import StoppingCriteriaList

            sampling["stopping_criteria"] = StoppingCriteriaList([self._stopped_at(width)])  # type: ignore[list-item]
        output = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),  # type: ignore[operator]
            generation_config=self._config,
            **sampling,
        )
        return [
            self._response(prompt, new) for prompt, new in zip(batch, output[:, width:].tolist(), strict=True)
        ]

    def _stopped_at(self, width: int) -> Callable[..., torch.Tensor]:
        """Tells of each row of ids [R, T], prompts of `width` tokens included, whether a stop string is in
        its last tokens."""

        def stopped(input_ids: torch.Tensor, scores: object, **others: object) -> torch.Tensor:
            tails = self.tokenizer.batch_decode(
                input_ids[:, max(width, input_ids.shape[1] - _STOP_TOKENS) :],
                clean_up_tokenization_spaces=False,
            )
            return torch.tensor(
                [any(text in tail for text in self.stop) for tail in tails], device=input_ids.device
            )

        return stopped

    def _response(self, prompt: Prompt, new: list[int]) -> Response:
        end = next((place for place, id_ in enumerate(new) if id_ in self.end_ids), None)
        text = str(
            self.tokenizer.decode(new[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
        cut = min((place for place in map(text.find, self.stop) if place >= 0), default=None)
        tokens = len(new) if end is None else end + 1
        if cut is not None:
            # Behind a row that is done, generation writes padding until the whole batch is.
            tokens = next(
                (
                    count
                    for count in range(1, tokens)
                    if any(one in str(self.tokenizer.decode(new[:count])) for one in self.stop)
                ),
                tokens,
            )
        return response_of(prompt, text[:cut], tokens, end is not None or cut is not None)


# A stop string is looked for in this many tokens at the end of a response.
_STOP_TOKENS = 24
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error).lower() for words in _MEMORY_WORDS
    )
