"""Decoder layers compiled one by one, so that all layers of a kind share their kernels."""

import importlib.util
import os
import shutil

import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.attention import VARLEN
from instruction_modelling.models.loading import causal_model


def require_compiler(device: torch.device, implementation: str) -> None:
    """Check that torch.compile can build kernels for a device, and that of an attention it can.

    Args:
        implementation: as `models.attention` names it.

    Raises:
        UserError: a compiler is missing, or the attention cannot be compiled.
    """
    if device.type == "cuda" and implementation != VARLEN:
        # torch 2.13 does not know the shapes of the memory-efficient kernel's gradients.
        raise UserError(
            f"--compile: {implementation}, the attention of packed examples here, cannot be compiled; give "
            "--mixed_precision bf16 on a GPU that has it, or leave --compile out"
        )
    if device.type == "cuda":
        missing = None if importlib.util.find_spec("triton") else "the triton package"
    else:
        names = [os.environ.get("CXX", "g++"), "clang++"]
        missing = None if any(map(shutil.which, names)) else "a C++ compiler (g++)"
    if missing:
        raise UserError(f"--compile needs {missing}, which is not here: install it, or leave --compile out")


def compile_layers(model: nn.Module, backend: str = "inductor") -> int:
    """Have each decoder layer compiled in place at its first call, for any number of tokens; return how many.

    Raises:
        UserError: it is not known which modules are the layers.
    """
    causal = causal_model(model)
    kinds = set(getattr(causal, "_no_split_modules", None) or ())
    layers = [module for module in causal.modules() if type(module).__name__ in kinds]
    if not layers:
        raise UserError(
            f"--compile: transformers does not say which modules of {type(causal).__name__} are its layers; "
            "leave --compile out"
        )
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
    return len(layers)
