"""Reading a model's configuration or tokenizer without importing what models are made of.

transformers asks of every configuration whether it knows the activation that is named there, and to answer
imports its activations and, through them, distributed tensors, a compiler and more: two fifths of the time of
a script that wants a tokenizer alone."""

import sys
from collections.abc import KeysView
from types import ModuleType
from typing import Any

# Of transformers' activations, those of nearly all language models.
COMMON = frozenset({"silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "relu2", "swish"})
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
