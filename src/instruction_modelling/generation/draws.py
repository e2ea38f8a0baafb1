"""Drawing tokens so that a draw depends on the request and the sample alone.

Each row of a batch has a random generator of its own, so neither the batch size nor a restart changes what is
drawn."""

import hashlib
from collections.abc import Sequence

import torch

from instruction_modelling.generation.base import Request


class KeyedSampler:
    """A logits processor that turns "take the largest score" into drawing from the softmax.

    With E_i exponentially distributed, argmax_i (s_i - log E_i) is a draw from softmax(s) (the Gumbel-max
    trick).

    Args:
        seeds: of each row's generator, [R].
        temperature: above 0.
        top_p: see `keep_top_p`.
        device: where the scores are.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, device: torch.device):
        self.temperature, self.top_p = temperature, top_p
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return float32 scores [R, V] whose argmax is the drawn token; `input_ids` [R, T] are not used."""
        scores = keep_top_p(scores.float() / self.temperature, self.top_p)
        noise = torch.empty_like(scores)
        for row, generator in enumerate(self._generators):
            noise[row].exponential_(generator=generator)
        return scores - noise.log()


def keep_top_p(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return scores [R, V] with -inf for all but the smallest set of tokens whose probabilities sum to at
    least `top_p`."""
    if top_p >= 1:
        return scores
    ordered, index = scores.sort(dim=-1, descending=True)
    share = ordered.softmax(dim=-1)
    before = share.cumsum(dim=-1) - share
    return scores.masked_fill((before >= top_p).scatter(-1, index, before >= top_p), float("-inf"))


def draw_seed(request: Request, sample: int) -> int:
    """Return the seed (63 bits) of one sample of a request, from the request's seed and key."""
    # Hashed twice, else the same command would draw other completions than those already measured.
    inner = hashlib.sha256(f"{request.seed} {sample} {request.key}".encode()).digest()[:7]
    outer = hashlib.sha256(f"0 {int.from_bytes(inner)}".encode()).digest()[:8]
    return int.from_bytes(outer) >> 1
