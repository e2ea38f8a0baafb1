"""Completions by transformers: batches by length, halved where memory runs out."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from instruction_modelling.cpu import keep_freed_memory, use_quicker_float32
from instruction_modelling.errors import UserError, is_out_of_memory
from instruction_modelling.generation.base import Completion, Engine, Request, Sampling, cut_at_stop
from instruction_modelling.generation.draws import KeyedSampler, draw_seed
from instruction_modelling.generation.prefill import prefilled
from instruction_modelling.models.attention import generating
from instruction_modelling.models.loading import load_model

# A stop string is looked for in this many tokens at the end of a completion.
_STOP_TOKENS = 24


class _Draw(NamedTuple):
    """One sample of a request."""

    request: Request
    sample: int


class TransformersEngine(Engine):
    """A model in this process, on the GPU if there is one.

    The model's own generation config decides nothing but the end tokens: its temperature, penalties and the
    like are not used.
    """

    name = "transformers"
    model: Any = None

    def load(self) -> None:
        """Load the model where that has not been done.

        Raises:
            UserError: it cannot be loaded.
        """
        if self.model is not None:
            return
        from transformers import GenerationConfig

        device, dtype = device_and_dtype(self.options.dtype)
        if device.type == "cpu":
            use_quicker_float32()
            # The cache of keys and values is copied into a larger one at each token.
            keep_freed_memory()
        model: Any = load_model(str(self.options.model_name_or_path), dtype)
        self.model = model.to(device).eval()
        # generate() takes what a config leaves open from the model's own.
        self.model.generation_config = GenerationConfig()

    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        self.load()
        self._check_vocabulary(requests)
        # One call generates for all prompts of a batch up to one number of tokens.
        by_limit: dict[int, list[_Draw]] = {}
        for request in requests:
            limit = sampling.max_new_tokens
            if self.position_limit is not None:
                limit = min(limit, self.position_limit - len(request.ids))
            by_limit.setdefault(limit, []).extend(_Draw(request, k) for k in range(sampling.samples))
        for limit in sorted(by_limit, reverse=True):
            yield from self._complete_in_batches(by_limit[limit], replace(sampling, max_new_tokens=limit))

    def _check_vocabulary(self, requests: Sequence[Request]) -> None:
        embeddings = int(self.model.get_input_embeddings().weight.shape[0])
        for request in requests:
            if max(request.ids) >= embeddings:
                raise UserError(
                    f"the prompt {request.key} holds token {max(request.ids)} and the model has embeddings "
                    f"of {embeddings} tokens only: the tokenizer is not the model's; name its own"
                )

    def _complete_in_batches(self, draws: Sequence[_Draw], sampling: Sampling) -> Iterator[Completion]:
        """Yield the completions of all draws, the longest prompts first.

        Where memory runs out, the batch is halved and so are those after it.
        """
        # Sorting keeps the order of equals.
        waiting = sorted(draws, key=lambda draw: -len(draw.request.ids))
        batch_size, done = self.options.eval_batch_size, 0
        while done < len(waiting):
            batch = waiting[done : done + batch_size]
            completions = self._batch_if_it_fits(batch, sampling)
            if completions is not None:
                done += len(batch)
                yield from completions
                continue
            if len(batch) == 1:
                request = batch[0].request
                raise UserError(
                    f"the prompt {request.key} ({len(request.ids)} tokens) does not fit into memory even "
                    "alone; use --dtype bfloat16 or a smaller --max_new_tokens, or leave such prompts out"
                )
            batch_size = len(batch) // 2
            self.warn(f"out of memory with {len(batch)} prompts at once: going on with {batch_size}")
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _batch_if_it_fits(self, batch: Sequence[_Draw], sampling: Sampling) -> list[Completion] | None:
        # Memory is freed by the caller, after the exception and what it refers to are gone.
        try:
            return self.complete_batch(batch, sampling)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def stream(self, request: Request, sampling: Sampling, show: Callable[[str], None]) -> Completion:
        """Return the completion of one request; `show` takes its text piece by piece as it comes, words that
        are not whole yet held back. Stop strings are not looked for.

        Raises:
            UserError: as `complete`.
        """
        self.load()
        self._check_vocabulary([request])
        limit = sampling.max_new_tokens
        if self.position_limit is not None:
            limit = min(limit, self.position_limit - len(request.ids))
        draw = _Draw(request, 0)
        (completion,) = self.complete_batch([draw], replace(sampling, max_new_tokens=limit, stop=()), show)
        return completion

    @torch.no_grad()
    def complete_batch(
        self, batch: Sequence[_Draw], sampling: Sampling, show: Callable[[str], None] | None = None
    ) -> list[Completion]:
        """Return the completions of a batch, computed at once, padded on the left; of a single one, `show`
        takes the text as it comes."""
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        device, pad = self.model.device, min(self.end_ids, default=0)
        width = max(len(draw.request.ids) for draw in batch)
        ids = torch.full((len(batch), width), pad)
        mask = torch.zeros_like(ids)
        for row, draw in enumerate(batch):
            ids[row, width - len(draw.request.ids) :] = torch.tensor(draw.request.ids)
            mask[row, width - len(draw.request.ids) :] = 1
        hooks: dict[str, Any] = {}
        if sampling.temperature > 0:
            seeds = [draw_seed(*draw) for draw in batch]
            sampler = KeyedSampler(seeds, sampling.temperature, sampling.top_p, device)
            hooks["logits_processor"] = LogitsProcessorList([sampler])  # type: ignore[list-item]
        if sampling.stop:
            criteria = [self._stopped_at(width, sampling.stop)]
            hooks["stopping_criteria"] = StoppingCriteriaList(criteria)  # type: ignore[arg-type]
        if show:
            hooks["streamer"] = _streamer(self.tokenizer, show)
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=self.end_ids or None,
            pad_token_id=pad,
        )
        ids, mask = ids.to(device), mask.to(device)
        with generating():
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=prefilled(self.model, ids, mask),
                generation_config=config,
                **hooks,
            )
        return [
            self.completion(draw, new, sampling.stop)
            for draw, new in zip(batch, output[:, width:].tolist(), strict=True)
        ]

    def _stopped_at(self, width: int, stop: Sequence[str]) -> Callable[..., torch.Tensor]:
        """Return what tells, of each row of ids [R, T] behind `width` tokens of prompt, whether a stop string
        is in its last tokens."""

        def stopped(input_ids: torch.Tensor, scores: object, **others: object) -> torch.Tensor:
            tails = self.tokenizer.batch_decode(
                input_ids[:, max(width, input_ids.shape[1] - _STOP_TOKENS) :],
                clean_up_tokenization_spaces=False,
            )
            return torch.tensor(
                [any(text in tail for text in stop) for tail in tails], device=input_ids.device
            )

        return stopped

    def completion(self, draw: _Draw, new: list[int], stop: Sequence[str]) -> Completion:
        """Return the completion that the generated ids `new` are, padding behind its end left out."""
        end = next((index for index, id_ in enumerate(new) if id_ in self.end_ids), None)
        whole = self.tokenizer.decode(new[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        text, is_cut = cut_at_stop(str(whole), stop)
        tokens = len(new) if end is None else end + 1
        if is_cut:
            # Behind a row that is done, generation writes padding until the whole batch is.
            tokens = next(
                (
                    count
                    for count in range(1, tokens)
                    if any(string in str(self.tokenizer.decode(new[:count])) for string in stop)
                ),
                tokens,
            )
        return Completion(draw.request.key, draw.sample, text, tokens, end is not None or is_cut)

    def close(self) -> None:
        """Let go of the model."""
        self.model = None


def _streamer(tokenizer: Any, show: Callable[[str], None]) -> Any:
    """Return what transformers gives each token to, and which gives text that is whole to `show`."""
    from transformers import TextStreamer

    class Shown(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if text:
                show(text)

    return Shown(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def device_and_dtype(choice: str | None) -> tuple[torch.device, torch.dtype]:
    """Return the device to run on and the number format of the weights there; `choice` is float32, bfloat16,
    or auto or None for bfloat16 on a GPU that has it, else float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if choice in (None, "auto"):
        choice = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return device, getattr(torch, str(choice))
