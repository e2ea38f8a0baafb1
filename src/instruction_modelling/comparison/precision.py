"""The number format that arms are trained in where nobody names one."""

import functools
from typing import Literal

Precision = Literal["bf16", "no"]


@functools.cache
def quickest_precision() -> Precision:
    """Return bf16 where the GPU, or without one the processor, multiplies bfloat16, and no elsewhere: what is
    emulated takes several times as long as float32 (docs/LOG.md has the figures)."""
    import torch

    if torch.cuda.is_available():
        multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # amx_bf16, avx512_bf16 and Arm's names for the same.
        multiplies = any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return "bf16" if multiplies else "no"
