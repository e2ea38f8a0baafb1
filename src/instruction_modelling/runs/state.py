"""What training changes, by name and whole, wherever it is sharded: trained weights and the optimiser's
state.

An entry is `weight/NAME` or `KEY/NAME`, KEY being the optimiser's name for a part of a parameter's state
(AdamW: exp_avg, exp_avg_sq, step). Entries are full tensors, of weights in float32 (bfloat16 under
--weights_in bf16), so they fit any number of processes and any way of sharding. Frozen weights have none."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError
from instruction_modelling.training.sharding import is_deepspeed

if TYPE_CHECKING:
    from accelerate import Accelerator

WEIGHT = "weight"


def training_state(accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any) -> "TrainingState":
    """Return the state of a prepared model and its prepared optimiser.

    Raises:
        UserError: DeepSpeed shards by another stage than 3.
    """
    weights = {
        name: weight
        for name, weight in accelerator.unwrap_model(model).named_parameters()
        if weight.requires_grad
    }
    if is_deepspeed(accelerator):
        return Zero3State(weights, model)
    return TrainingState(weights, getattr(optimizer, "optimizer", optimizer))


class TrainingState:
    """The state of a model that each process holds whole, or that FSDP2 has sharded.

    Args:
        weights: the trained parameters by name.
        optimizer: torch's (or bitsandbytes') optimiser over them.
    """

    def __init__(self, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer):
        self.weights, self._optimizer = weights, optimizer

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each whole trained weight, by name."""
        return {name: tuple(weight.shape) for name, weight in self.weights.items()}

    def formats(self) -> dict[str, torch.dtype]:
        """Return the number format that each trained weight is stored in, by name."""
        return {name: weight.dtype for name, weight in self.weights.items()}

    def bytes(self) -> int:
        """Return about how many bytes `entries` take."""
        states = sum(
            value.numel() * value.element_size()
            for weight in self.weights.values()
            for value in self._optimizer.state.get(weight, {}).values()
            if torch.is_tensor(value)
        )
        return states + sum(weight.numel() * weight.element_size() for weight in self.weights.values())

    def full_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every trained weight by name, whole, in its own format; every process has to go through all
        of them."""
        for name, weight in self.weights.items():
            yield name, _whole(weight.detach())

    def entries(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every entry, whole, on the device where it is; plain numbers as tensors without dimensions.

        A sharded one is an all-gather, which waits for every process, so every process has to go through all
        of them."""
        for name, weight in self.weights.items():
            yield f"{WEIGHT}/{name}", _whole(weight.detach())
            for key, value in sorted(self._optimizer.state.get(weight, {}).items()):
                yield f"{key}/{name}", _whole(value) if torch.is_tensor(value) else torch.tensor(float(value))

    def restore(self, read: Callable[[str], torch.Tensor], stored: Mapping[str, tuple[int, ...]]) -> None:
        """Put stored entries in the place of the present ones.

        Args:
            read: gives an entry by its name, whole, on the CPU.
            stored: the names of all entries and their shapes.
        """
        self._optimizer.state.clear()
        keys = _keys_by_name(stored)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(_like(weight, read(f"{WEIGHT}/{name}")))
                state = {key: self._state_value(weight, read(f"{key}/{name}")) for key in keys.get(name, [])}
                if state:
                    self._optimizer.state[weight] = state

    def _state_value(self, weight: torch.Tensor, value: torch.Tensor) -> Any:
        if value.ndim == 0:
            return self._count(value, weight.device)
        if value.shape == weight.shape:
            return _like(weight, value)
        return value.to(weight.device)

    def _count(self, value: torch.Tensor, device: torch.device) -> Any:
        """Return a count of steps as the optimiser at hand keeps it: torch's in a tensor, others in a plain
        number."""
        of_torch = type(self._optimizer).__module__.startswith("torch.optim")
        of_torch = getattr(self._optimizer, "counts_in_tensors", of_torch)
        return value.to(device, torch.float32) if of_torch else int(value)


class Zero3State(TrainingState):
    """The state of a model sharded by DeepSpeed ZeRO-3, whose optimiser works on flat float32 parts of groups
    of weights."""

    def __init__(self, weights: dict[str, torch.nn.Parameter], engine: Any):
        """Take the weights by name and DeepSpeed's engine over them.

        Raises:
            UserError: the engine shards by another stage than 3.
        """
        if engine.zero_optimization_stage() != 3:
            raise UserError(
                f"the DeepSpeed configuration asks for ZeRO stage {engine.zero_optimization_stage()}; use "
                "stage 3 (ds_configs/stage3_no_offloading_accelerate.conf), whose parts checkpoints can be "
                "made of"
            )
        super().__init__(weights, engine.optimizer.optimizer)
        self._zero = engine.optimizer

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each whole trained weight, by name."""
        return {name: tuple(weight.ds_shape) for name, weight in self.weights.items()}  # type: ignore[attr-defined]

    def formats(self) -> dict[str, torch.dtype]:
        """Return float32 for each trained weight, whatever is computed in."""
        return dict.fromkeys(self.weights, torch.float32)

    def bytes(self) -> int:
        """Return about how many bytes `entries` take, in float32 with two states per weight."""
        states = 2 if any(self._flat_state(weight) for weight in self.weights.values()) else 0
        return sum(weight.ds_numel * 4 * (1 + states) for weight in self.weights.values())  # type: ignore[attr-defined]

    def full_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every trained weight by name, gathered from its float32 parts."""
        for name, weight in self.weights.items():
            yield name, self._zero.get_full_hp_param(weight)

    def entries(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every entry, gathered from its float32 parts."""
        for name, weight in self.weights.items():
            yield f"{WEIGHT}/{name}", self._zero.get_full_hp_param(weight)
            for key, value in sorted(self._flat_state(weight).items()):
                if torch.is_tensor(value) and value.ndim:
                    yield f"{key}/{name}", self._zero.get_full_hp_param(weight, key)
                else:
                    yield f"{key}/{name}", value if torch.is_tensor(value) else torch.tensor(float(value))

    def restore(self, read: Callable[[str], torch.Tensor], stored: Mapping[str, tuple[int, ...]]) -> None:
        """Put each process's parts of stored entries in the place of the present ones."""
        zero, keys = self._zero, _keys_by_name(stored)
        zero.checkpoint_event_prologue()
        for name, weight in self.weights.items():
            self._put(weight, read(f"{WEIGHT}/{name}"))
            state = self._optimizer.state[self._flat(weight)]
            for key in keys.get(name, []):
                value = read(f"{key}/{name}")
                if value.ndim == 0:
                    # One count for all the weights of a group: they are always stepped together.
                    state[key] = self._count(value, self._flat(weight).device)
                    continue
                if key not in state:
                    state[key] = torch.zeros_like(self._flat(weight))
                self._put(weight, value, key)
        self._compute_with_restored()
        zero.checkpoint_event_epilogue()

    def _put(self, weight: torch.nn.Parameter, value: torch.Tensor, key: str | None = None) -> None:
        """Write this process's part of a whole value. DeepSpeed's own function refuses sizes that the number
        of processes does not divide."""
        part, _ = self._zero._get_fp32_opt_state_partition(
            weight, release_swap_buffers=False, optim_state_key=key
        )
        begin = part.numel() * self._zero._get_param_partition_rank(weight)
        of_process = value.flatten()[begin : begin + part.numel()]
        part.data[: len(of_process)].copy_(of_process)

    def _compute_with_restored(self) -> None:
        """Copy the float32 parts to those that the forward pass gathers."""
        zero = self._zero
        for group, flat in enumerate(zero.fp32_partitioned_groups_flat):
            computed = zero.fp16_partitioned_groups_flat[group]
            computed.data.copy_(flat.data)
            parts = zero.unflatten(computed, zero.fp16_partitioned_groups[group])
            for part, value in zip(zero.fp16_partitioned_groups[group], parts, strict=True):
                part.data = value.data

    def _flat(self, weight: torch.nn.Parameter) -> torch.Tensor:
        group, _, _ = self._zero.grad_position[self._zero.get_param_id(weight)]
        return self._zero.fp32_partitioned_groups_flat[group]

    def _flat_state(self, weight: torch.nn.Parameter) -> dict[str, Any]:
        return self._optimizer.state.get(self._flat(weight), {})


class TrainedWeights(TrainingState):
    """The weights of a state alone, without what the optimiser has beside them."""

    def __init__(self, state: TrainingState):
        """Take the state that they are of."""
        super().__init__(state.weights, state._optimizer)
        self._state = state

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each whole trained weight, by name."""
        return self._state.shapes()

    def formats(self) -> dict[str, torch.dtype]:
        """Return the number format that each trained weight is stored in, by name."""
        return self._state.formats()

    def bytes(self) -> int:
        """Return how many bytes `entries` take."""
        formats = self.formats()
        return sum(math.prod(shape) * formats[name].itemsize for name, shape in self.shapes().items())

    def full_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every trained weight by name, whole; every process has to go through all of them."""
        return self._state.full_weights()

    def entries(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every entry; every process has to go through all of them."""
        for name, weight in self.full_weights():
            yield f"{WEIGHT}/{name}", weight

    def restore(self, read: Callable[[str], torch.Tensor], stored: Mapping[str, tuple[int, ...]]) -> None:
        """Put stored weights in the place of the present ones; the optimiser begins anew."""
        self._state.restore(read, stored)


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _like(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return the value on the weight's device, sharded as the weight is; its dtype stays."""
    if not hasattr(weight, "device_mesh"):
        return value.to(weight.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)  # type: ignore[attr-defined]


def _keys_by_name(stored: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for entry in stored:
        key, name = entry.split("/", 1)
        if key != WEIGHT:
            keys.setdefault(name, []).append(key)
    return keys
