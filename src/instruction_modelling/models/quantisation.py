"""4-bit weights and 8-bit optimiser states, by bitsandbytes (QLoRA: Dettmers et al., arXiv 2305.14314)."""

import importlib.util
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


def require_bitsandbytes(flag: str, device: "torch.device") -> None:
    """Check that bitsandbytes can do what a flag asks for.

    Raises:
        UserError: it is missing, or does not know the device; says what to do.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{flag} needs bitsandbytes: pip install -r requirements-gpu.txt, or leave the flag out"
        )
    import bitsandbytes

    # Releases that do not say which devices they know know GPUs alone.
    known = getattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    if device.type not in known:
        raise UserError(
            f"{flag}: bitsandbytes {bitsandbytes.__version__} does not run on this device ({device.type}; it "
            f"knows {', '.join(sorted(known))}): leave the flag out"
        )


def four_bit_loading(device: "torch.device") -> dict[str, Any]:
    """Return what `from_pretrained` needs to load a model's linear layers as 4-bit weights (NF4) onto
    `device`.

    Raises:
        UserError: bitsandbytes is missing or does not know the device.
    """
    require_bitsandbytes("--use_qlora", device)
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def prepare_to_train(model: Any, gradient_checkpointing: bool) -> Any:
    """Return a model of 4-bit weights, frozen and ready for adapters."""
    import bitsandbytes
    from peft import prepare_model_for_kbit_training

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # On some CPUs a first pass in evaluation mode repacks the weights, and no gradient passes through
            # them afterwards.
            module.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )


def merged(tuned: Any, dtype: "torch.dtype") -> "nn.Module":
    """Return the model of a LoRA wrapper in `dtype`, its adapters added to the values that its 4-bit weights
    stand for. The wrapper cannot be used afterwards.
    """
    model = tuned.get_base_model()
    _put_back_trained_modules(model)
    added = {}
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "get_delta_weight"):
            added[name] = layer.get_delta_weight(layer.active_adapters[0]).detach()
            model.set_submodule(name, layer.get_base_layer())
    model = model.dequantize()
    for name, delta in added.items():
        weight = model.get_submodule(name).weight
        weight.data = (weight.data.float() + delta.float()).to(dtype)
    return model.to(dtype)


def _put_back_trained_modules(model: "nn.Module") -> None:
    """Put what was trained of embeddings and head, rows of them or the whole, in their places."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "token_adapter"):
            module.token_adapter.merge()  # type: ignore[union-attr, operator]
            model.set_submodule(name, module.token_adapter.get_base_layer())  # type: ignore[union-attr, operator]
        elif hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
            model.set_submodule(name, next(iter(module.modules_to_save.values())))  # type: ignore[union-attr, operator]
