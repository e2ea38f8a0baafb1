"""What the device decides where the user says nothing, and how a run says which device it has."""

import logging
import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


def chosen_precision(asked_for: Literal["no", "bf16"] | None) -> str | None:
    """Return what to compute in, as `Accelerator` takes it: what --mixed_precision asks for; None where the
    launcher has said it; else bf16 on a GPU that computes in it, and None on other devices."""
    import torch

    if asked_for or os.environ.get("ACCELERATE_MIXED_PRECISION"):
        return asked_for
    # An emulated bfloat16 (GPUs before Ampere) would be slower than float32.
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if bf16 else None


def compute_deterministically() -> None:
    """Have torch choose algorithms that give the same bits every time, and refuse operations that have none;
    called before anything runs on a GPU, since cuBLAS reads its setting when it starts.

    Attention's backward passes (flash, memory-efficient and varlen) take theirs from the same switch."""
    import torch

    # What cuBLAS needs to sum in one order (its documentation, "Results Reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Read by transformers for the flash-attn package.
    os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it is written, so filling it first only takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def device_words(accelerator: "Accelerator", asked_for: str | None) -> str:
    """Return the device and the precision of a run in words, and warn of float32 on a GPU that nobody asked
    for.

    Args:
        asked_for: what --mixed_precision says.
    """
    device, half = accelerator.device, accelerator.mixed_precision == "bf16"
    launched = not asked_for and bool(os.environ.get("ACCELERATE_MIXED_PRECISION"))
    if device.type == "cuda" and launched and accelerator.mixed_precision == "no":
        logger.warning(
            "the launcher says float32, which a GPU computes several times slower than bfloat16: give "
            "--mixed_precision bf16, or no to hear this no more"
        )
    by_default = half and not asked_for and not launched
    chosen = " (this GPU's default; --mixed_precision no for float32)" if by_default else ""
    return f"{device}, {'bfloat16' if half else 'float32'}{chosen}"


def sent(tensor: "torch.Tensor", device: "torch.device | str") -> "torch.Tensor":
    """Return a tensor of the CPU on `device`, without waiting for what that computes.

    A GPU copies memory that the system may move only once it has come to rest, and the program waits; pages
    that are pinned are read while both go on.
    """
    import torch

    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
