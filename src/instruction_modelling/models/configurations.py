"""Importing of transformers what is needed: for a configuration or a tokenizer nothing that models are made
of, for a language model nothing that only others need.

transformers asks of every configuration whether it knows the activation that is named there, and to answer
imports its activations and, through them, distributed tensors, a compiler and more: two fifths of the time of
a script that wants a tokenizer alone."""

import os
import sys
from collections.abc import KeysView
from types import ModuleType
from typing import Any

# Of transformers' activations, those of nearly all language models.
COMMON = frozenset({"silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "relu2", "swish"})
_MODELS = "transformers.modeling_utils"
_ACTIVATIONS, _VALIDATORS = "transformers.activations", "transformers.utils.type_validators"


class Activations:
    """What transformers' checks of configurations read of its table of activations; the table itself is
    imported where a name is not a common one."""

    def __len__(self) -> int:
        """Return 1: there are some."""
        return 1

    def __contains__(self, name: object) -> bool:
        """Return whether an activation has this name."""
        return name in COMMON or name in self.keys()

    def keys(self) -> KeysView[str]:
        """Return every name."""
        from transformers.activations import ACT2FN

        return ACT2FN.keys()


def read_configurations_alone() -> None:
    """Have transformers' checks of configurations, where they are not imported yet, import no models."""
    if _VALIDATORS in sys.modules or _ACTIVATIONS in sys.modules:
        return
    stand_in: Any = ModuleType(_ACTIVATIONS)
    stand_in.ACT2FN = Activations()
    sys.modules[_ACTIVATIONS] = stand_in
    try:
        import transformers.utils.type_validators  # noqa: F401
    finally:
        del sys.modules[_ACTIVATIONS]


def import_models_alone() -> None:
    """Import what transformers makes language models of, where that is not imported yet, without what it has
    beside: scipy's optimisers, which losses of models that find objects take, and, in a single process,
    torch's sharded checkpoints, which ours (`runs.checkpoints`) do without."""
    if _MODELS in sys.modules:
        return
    import transformers.utils as offered
    from transformers.distributed import utils as sharded

    left_out: list[tuple[Any, str]] = [(offered, "is_scipy_available")]
    if os.environ.get("WORLD_SIZE", "1") == "1":
        left_out.append((sharded, "_check_distributed_checkpointing_available"))
    before = {name: getattr(module, name) for module, name in left_out if hasattr(module, name)}
    for module, name in left_out:
        if name in before:
            setattr(module, name, lambda: False)
    try:
        import transformers.modeling_utils  # noqa: F401
    finally:
        for module, name in left_out:
            if name in before:
                setattr(module, name, before[name])
