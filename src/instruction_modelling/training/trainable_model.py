"""From a model's name to a module that can be trained: attention, embeddings, adapters, KL term, noise."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError
from instruction_modelling.models import frozen, loading, quantisation
from instruction_modelling.models.adapters import AdapterReach, add_lora
from instruction_modelling.models.compiled import require_compiler
from instruction_modelling.options import kl_term
from instruction_modelling.training.hidden_states import output_head
from instruction_modelling.training.loss_model import KLTerm, LossModel
from instruction_modelling.training.neftune import NeftuneNoise
from instruction_modelling.training.sharding import is_sharded, refuse_sharded_token_rows

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.options import FinetuneOptions

logger = logging.getLogger(__name__)


def model_loader(options: "FinetuneOptions", accelerator: "Accelerator") -> Callable[..., Any]:
    """Return the function that loads the model to tune in the format of its weights; it takes more of
    `from_pretrained`'s keywords."""
    cuda = accelerator.device.type == "cuda"
    attention = loading.pick_attention(
        options.packing, options.use_flash_attn, cuda, accelerator.mixed_precision == "bf16"
    )
    if options.compile:
        require_compiler(accelerator.device, attention)
    dtype = torch.bfloat16 if options.weights_in == "bf16" else torch.float32
    return partial(loading.load_model, options.model_name_or_path, dtype, attention, options.config_name)


def trainable_model(
    options: "FinetuneOptions",
    accelerator: "Accelerator",
    tokenizer: "PreTrainedTokenizerBase",
    model: Any,
    load: Callable[[], Any],
) -> LossModel:
    """Return a loaded model with its loss, as the options say.

    Args:
        load: loads the same model again, for the KL term.

    Raises:
        UserError: the adapters do not fit the model, or the launcher.
    """
    if not options.compile:
        # A compiled layer is fused in any case, and cannot look into kernels that are given.
        loading.use_fused_layers(model)
    new_tokens = loading.fit_embeddings(model, tokenizer, options.seed)
    adapters = options.use_lora or options.use_qlora
    kl = _kl_of(options, accelerator, tokenizer, load)
    if options.use_qlora:
        model = quantisation.prepare_to_train(model, options.gradient_checkpointing)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if adapters:
        if options.tokenizer_name:
            unknown = loading.tokens_unknown_to(options.model_name_or_path, tokenizer)
            new_tokens = sorted({*new_tokens, *unknown})
        refuse_sharded_token_rows(accelerator, new_tokens)
        model = _with_adapters(options, model, new_tokens)
    if accelerator.mixed_precision == "bf16" and not is_sharded(accelerator):
        _hold_frozen_weights(options, model, kl)
    noise = None
    if options.neftune_alpha:
        embeddings = loading.causal_model(model).get_input_embeddings()
        noise = NeftuneNoise(embeddings, options.neftune_alpha, options.seed)
    return LossModel(model, kl, noise)


def _kl_of(
    options: "FinetuneOptions",
    accelerator: "Accelerator",
    tokenizer: "PreTrainedTokenizerBase",
    load: Callable[[], Any],
) -> KLTerm | None:
    """Return the KL term, of no weight where it is measured alone; None where it is neither."""
    weight = options.kl_penalty_ctl if options.apply_kl_div_loss else 0.0
    if options.eval_kl and is_sharded(accelerator):
        raise UserError(
            "--eval_kl: not under DeepSpeed or FSDP; measure with src/compute_loss.py --base_model"
        )
    if not (weight or options.eval_kl):
        return None
    # Adapters can be switched off; fully tuned weights are gone, so the base is loaded beside them.
    base = None if options.use_lora or options.use_qlora else load()
    if base is not None:
        loading.fit_embeddings(base, tokenizer, options.seed)
    if weight:
        logger.info("added to the loss: %s", kl_term(options.as_dict()))
    return KLTerm(weight, options.kl_direction, base, options.kl_estimator or "exact")


def model_to_score(name: str, base: str | None, dtype: torch.dtype, attention: str) -> LossModel:
    """Return a model with its loss, to be scored, and the model before tuning to measure its distance from.

    Raises:
        UserError: one cannot be loaded, or they have different vocabularies.
    """
    model = loading.load_model(name, dtype, attention)
    if base is None:
        return LossModel(model)
    before = loading.load_model(base, dtype, attention)
    sizes = [output_head(each).vocabulary for each in (model, before)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"--base_model {base}: has a vocabulary of {sizes[1]:,} tokens and {name} one of {sizes[0]:,}: "
            "between distributions over different tokens there is no KL divergence; give the model that was "
            "tuned"
        )
    return LossModel(model, KLTerm(0.0, base=before))


def _hold_frozen_weights(options: "FinetuneOptions", model: Any, kl: KLTerm | None) -> None:
    """Hold what bfloat16 rounds at every use, and nothing trains, in two bytes a number."""
    if kl and kl.base is not None:
        frozen.hold_in_half(kl.base.requires_grad_(False), saved=False)
    if options.use_lora and not options.use_dora:
        # DoRA computes with the weights themselves: the lengths of their vectors.
        frozen.hold_in_half(model)


def _with_adapters(options: "FinetuneOptions", model: Any, new_tokens: list[int]) -> Any:
    """Return the model with adapters; rows of `new_tokens` are trained with them."""
    targets, whole = options.lora_target_modules or ["all-linear"], options.lora_modules_to_save or []
    reach = AdapterReach(targets, whole, options.use_dora, new_tokens)
    # Fresh adapters are the seed's alone, whatever loading has drawn.
    torch.manual_seed(options.seed)
    return add_lora(model, options.lora_rank, options.lora_alpha, options.lora_dropout, reach)
