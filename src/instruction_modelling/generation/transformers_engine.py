"""Completions by transformers: batches by length, halved where memory runs out."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.generation.engine import Completion, Engine, EngineOptions, Request, Sampling
from instruction_modelling.generation.responder import Decoding, Prompt, Responder
from instruction_modelling.models.loading import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TransformersEngine(Engine):
    """A model in this process, on the GPU if there is one."""

    name = "transformers"

    def __init__(
        self,
        options: EngineOptions,
        tokenizer: "PreTrainedTokenizerBase",
        end_ids: Sequence[int],
        room: int | None,
    ):
        """Raises:
        UserError: the model cannot be loaded.
        """
        import torch

        super().__init__(options, tokenizer, end_ids, room)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        dtype = options.dtype if options.dtype != "auto" else "bfloat16" if half else "float32"
        model: Any = load_model(str(options.model_name_or_path), getattr(torch, dtype))
        self._model: Any = model.to(device)

    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        # What is left of the model behind its prompt decides how many tokens a request may have.
        by_room: dict[int, list[Request]] = {}
        for request in requests:
            left = (
                sampling.max_new_tokens
                if self.room is None
                else min(sampling.max_new_tokens, self.room - len(request.ids))
            )
            by_room.setdefault(left, []).append(request)
        for most in sorted(by_room, reverse=True):
            yield from self._complete_up_to(most, by_room[most], sampling)

    def _complete_up_to(
        self, most: int, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[Completion]:
        drawn = {
            _draw(request, sample): (request, sample)
            for request in requests
            for sample in range(sampling.samples)
        }
        prompts = [Prompt(row, request.key, "", request.ids, "", None) for row, (request, _) in drawn.items()]
        responder = Responder(
            self._model,
            self.tokenizer,
            self.end_ids,
            Decoding(most, sampling.temperature, sampling.top_p),
            sampling.stop,
        )
        responder.check_vocabulary(prompts)
        for batch in responder.answer_all(prompts, self.options.eval_batch_size):
            for response in batch:
                request, sample = drawn[response.row]
                yield Completion(
                    request.key, sample, response.response, int(response.tokens or 0), bool(response.finished)
                )

    def close(self) -> None:
        """Lets go of the model."""
        self._model = None


def _draw(request: Request, sample: int) -> int:
    """What keys the draws of a sample: the request's key and seed, and which of its samples it is."""
    return int.from_bytes(hashlib.sha256(f"{request.seed} {sample} {request.key}".encode()).digest()[:7])
