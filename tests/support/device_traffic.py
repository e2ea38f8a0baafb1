"""A device that computes nothing, torch's `meta`, and what a program sends to it and reads from it."""

import contextlib
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

aten = torch.ops.aten
DEVICE = torch.device("meta")
# Operations whose result's value or shape the program has to wait for.
READS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.nonzero_static,
    aten.masked_select,
    aten.is_nonzero,
    aten.equal,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.bincount,
    aten.repeat_interleave,
}


class Traffic(TorchDispatchMode):
    """While it is entered: every operation that makes the program wait for the device, by the place in the
    code that asks for it, and every copy to the device. What is read back is what was sent, and else 1."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.waiting_sends: list[str] = []
        self.sends = 0
        self._sent = WeakTensorKeyDictionary()

    def __enter__(self) -> "Traffic":
        """Begin; `meta` has no autocast, and torch refuses to be asked about it, so it is off there."""
        self._patch = pytest.MonkeyPatch()
        enabled, autocast = torch.is_autocast_enabled, torch.autocast

        def is_enabled(*device: str) -> bool:
            return device != (DEVICE.type,) and enabled(*device)

        def context(device: str, *arguments: Any, **keywords: Any) -> Any:
            return (
                contextlib.nullcontext()
                if device == DEVICE.type
                else autocast(device, *arguments, **keywords)
            )

        self._patch.setattr(torch, "is_autocast_enabled", is_enabled)
        self._patch.setattr(torch, "autocast", context)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        self._patch.undo()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        on_device = any(
            t.device == DEVICE for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)
        )
        packet = func.overloadpacket
        if packet in (aten._to_copy, aten.copy_):
            return self._copy(func, args, kwargs)
        if packet is aten._efficient_attention_backward:
            # torch 2.13's own function for this device takes another list of arguments than its caller gives.
            return *(torch.empty_like(states) for states in args[1:4]), None
        if on_device and packet in READS:
            self.reads.append(f"{packet} in {_place()}")
            if packet is aten._local_scalar_dense:
                return torch.ones((), dtype=args[0].dtype).item()
        return func(*args, **kwargs)

    def _copy(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        made = func.overloadpacket is aten._to_copy
        source = args[0] if made else args[1]
        target = (kwargs.get("device") or source.device) if made else args[0].device
        target = torch.device(target)
        if source.device != DEVICE and target == DEVICE:
            self.sends += 1
            if not kwargs.get("non_blocking", len(args) > 2 and args[2]):
                self.waiting_sends.append(_place())
        if source.device == DEVICE and target != DEVICE:
            self.reads.append(f"{func.overloadpacket} in {_place()}")
            values = self._sent.get(source, torch.ones(source.shape, dtype=source.dtype))
            return values.to(kwargs.get("dtype") or source.dtype) if made else args[0].copy_(values)
        result = func(*args, **kwargs)
        if made and source.device != DEVICE and target == DEVICE:
            self._sent[result] = source.clone()
        return result


def _place() -> str:
    """Return the innermost function outside torch and this file that is at work."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and frame.filename != __file__:
            return f"{Path(frame.filename).name}: {frame.name}"
    return "?"
