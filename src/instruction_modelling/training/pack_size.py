"""How many tokens a packed micro-batch holds where nobody says: what the device computes quickest, as far as
its memory goes."""

import logging
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    import torch

    from instruction_modelling.options import FinetuneOptions

logger = logging.getLogger(__name__)

# On a CPU longer packs only make tensors that no cache holds (docs/LOG.md, 2026-11-26).
ON_CPU = 1024
# On a GPU a pack is a power of two within these: larger ones make no product quicker.
LEAST_ON_GPU, MOST_ON_GPU = 2048, 16384
# What a token keeps for the backward pass, in bytes for each number of a layer's width (Llama 1B and 7B take
# 65 and 58, computed), and the part of a GPU's memory that all of them may take.
BYTES_A_NUMBER, PART_OF_MEMORY = 65, 0.4
# With --gradient_checkpointing a layer keeps its input alone, in float32.
BYTES_CHECKPOINTED = 4
# A compiled layer's kernels are quickest at multiples of so many tokens.
COMPILED_MULTIPLE = 128


def pack_limit(options: "FinetuneOptions", device: "torch.device", longest: int) -> int:
    """Return the most tokens of a packed micro-batch: --max_tokens_per_device, or what suits the device, but
    no less than the longest row.

    Args:
        longest: tokens of the longest row.

    Raises:
        UserError: --max_tokens_per_device does not hold the longest row.
    """
    limit = options.max_tokens_per_device
    if not options.packing:
        return limit or longest
    if limit is None:
        limit = max(longest, _default(options, device))
        logger.info("packs of up to %d tokens (--max_tokens_per_device)", limit)
    if limit < longest:
        raise UserError(
            f"--max_tokens_per_device {limit}: the longest row has {longest} tokens; raise it, or cut "
            f"rows with --max_seq_length"
        )
    return limit


def _default(options: "FinetuneOptions", device: "torch.device") -> int:
    if device.type != "cuda":
        return ON_CPU
    import torch

    memory = torch.cuda.get_device_properties(device).total_memory
    size = BYTES_CHECKPOINTED if options.gradient_checkpointing else BYTES_A_NUMBER
    numbers = _numbers_a_token(options.config_name or options.model_name_or_path)
    if numbers is None:
        return LEAST_ON_GPU
    fits = int(memory * PART_OF_MEMORY / (size * numbers))
    return min(MOST_ON_GPU, max(LEAST_ON_GPU, 1 << (max(1, fits).bit_length() - 1)))


def _numbers_a_token(name: str) -> int | None:
    """Return layers x width of a model by its configuration; None where that cannot be read, of which loading
    the model says more."""
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
        return int(config.num_hidden_layers) * int(config.hidden_size)
    except (OSError, ValueError, AttributeError):
        return None
