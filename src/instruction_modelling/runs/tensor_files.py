"""Tensors as the parts of a safetensors file.

The library makes a file of them in one copy of all, or writes it by itself; checkpoints are hashed and
written through `files.durable`, straight from the tensors' memory."""

import json
from collections.abc import Mapping

import torch

# Number formats by the names that safetensors gives them, in the order in which it stores them: those of
# many bytes first, so that each is aligned.
DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PLACES = {name: place for place, name in enumerate(DTYPES)}


def file_parts(tensors: Mapping[str, torch.Tensor]) -> list[memoryview]:
    """Return what a safetensors file of these tensors consists of, in order: its header, then each tensor's
    own memory, which is not copied.

    Args:
        tensors: on the CPU and contiguous.

    Raises:
        KeyError: safetensors has no name for a number format.
    """
    names = {name: _NAMES[tensor.dtype] for name, tensor in tensors.items()}
    ordered = sorted(tensors, key=lambda name: (_PLACES[names[name]], name))
    header, offset = {}, 0
    for name in ordered:
        end = offset + tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": names[name],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    memory = [tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data for name in ordered]
    return [memoryview(len(text).to_bytes(8, "little") + text), *memory]
