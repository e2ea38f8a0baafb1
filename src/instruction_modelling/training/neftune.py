"""NEFTune (Jain et al., arXiv 2310.05914): uniform noise on the input embeddings while training."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from instruction_modelling.training.devices import sent
from instruction_modelling.training.seeding import derived_seed

if TYPE_CHECKING:
    import torch

    from instruction_modelling.training.batches import ExampleSpan, MicroBatch

DRAWING_THREADS = 4


def example_noise(key: tuple[int, ...], length: int, width: int, alpha: float) -> "torch.Tensor":
    """Return alpha / sqrt(L d) x U(-1, 1), float32[length, width], on the CPU (its Algorithm 1).

    L is the example's own length and d the width, so neither packing nor padding nor a resumed run changes an
    example's noise; nor does the device, whose generators draw other numbers from one seed.

    Args:
        key: (seed, step, example), and the number of the sequence where it is not the example's first; it
            alone decides the draw.
    """
    import torch

    generator = torch.Generator().manual_seed(derived_seed(*key))
    uniform = torch.rand(length, width, generator=generator, dtype=torch.float32)
    return uniform.mul_(2).sub_(1).mul_(alpha / math.sqrt(length * width))


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
        return output + self._drawn(batch, output.shape, output.device).to(output.dtype)

    def _drawn(self, batch: "MicroBatch", shape: "torch.Size", device: "torch.device") -> "torch.Tensor":
        """Return the noise of a micro-batch, float32[R, L, d], on its device."""
        import torch

        on_gpu = device.type == "cuda"
        noise = torch.zeros(shape, dtype=torch.float32, pin_memory=on_gpu)

        def draw(span: "ExampleSpan") -> None:
            key = (self._seed, batch.step, span.example, *([span.part] if span.part else []))
            noise[span.row, span.start : span.start + span.length] = example_noise(
                key, span.length, shape[-1], self._alpha
            )

        if device.type == "cpu":
            for span in batch.example_spans:
                draw(span)
        else:
            # One core draws about as slowly as a GPU trains a model of 1B.
            with ThreadPoolExecutor(DRAWING_THREADS) as pool:
                list(pool.map(draw, batch.example_spans))
        return sent(noise, device)
