"""NEFTune (Jain et al., arXiv 2310.05914): uniform noise on the input embeddings while training."""

import math
from typing import TYPE_CHECKING

from instruction_modelling.training.seeding import derived_seed

if TYPE_CHECKING:
    import torch

    from instruction_modelling.training.batches import MicroBatch


def example_noise(
    key: tuple[int, ...], length: int, width: int, alpha: float, device: "torch.device | str" = "cpu"
) -> "torch.Tensor":
    """Return alpha / sqrt(L d) x U(-1, 1), float32[length, width] (its Algorithm 1).

    L is the example's own length and d the width, so neither packing nor padding nor a resumed run changes an
    example's noise.

    Args:
        key: (seed, step, example), and the number of the sequence where it is not the example's first; it
            alone decides the draw.
    """
    import torch

    generator = torch.Generator(device=device).manual_seed(derived_seed(*key))
    uniform = torch.rand(length, width, generator=generator, device=device, dtype=torch.float32)
    return (uniform * 2 - 1) * (alpha / math.sqrt(length * width))


class NeftuneNoise:
    """A hook on the input embeddings that adds the noise of the expected micro-batch while training."""

    def __init__(self, embeddings: "torch.nn.Module", alpha: float, seed: int):
        self._alpha, self._seed = alpha, seed
        self._batch: MicroBatch | None = None
        embeddings.register_forward_hook(self._add)

    def expect(self, batch: "MicroBatch | None") -> None:
        """Name the micro-batch whose embeddings come next; None for no noise."""
        self._batch = batch

    def _add(
        self, module: "torch.nn.Module", inputs: object, output: "torch.Tensor"
    ) -> "torch.Tensor | None":
        batch = self._batch
        if batch is None or not module.training:
            return None
        import torch

        noise = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
        for span in batch.example_spans:
            noise[span.row, span.start : span.start + span.length] = example_noise(
                (self._seed, batch.step, span.example, *([span.part] if span.part else [])),
                span.length,
                output.shape[-1],
                self._alpha,
                output.device,
            )
        return output + noise.to(output.dtype)
