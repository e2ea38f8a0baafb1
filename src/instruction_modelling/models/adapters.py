"""Low-rank adapters (LoRA, DoRA): putting them on a model, and adding them to its weights."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# The classes of layers that adapters go on.
LINEAR = ("Linear", "Conv1D", "Linear4bit")


@dataclass(frozen=True)
class AdapterReach:
    """What is trained beside the usual adapters, or instead of them."""

    target_modules: Sequence[str] = ("all-linear",)
    """Names of layers that get adapters, or their last parts; `all-linear`: every linear layer but the
    head."""
    modules_to_save: Sequence[str] = ()
    """Names of layers, or their last parts, that are trained whole."""
    dora: bool = False
    """Train the length of each weight vector by itself (DoRA, Liu et al., arXiv 2402.09353)."""
    new_tokens: Sequence[int] = ()
    """Ids of tokens that the model has not learnt: their rows of embeddings and head are trained."""


def add_lora(
    model: "PreTrainedModel", rank: int, alpha: float, dropout: float, reach: AdapterReach = AdapterReach()
) -> Any:
    """Return the model with trainable low-rank adapters (Hu et al., arXiv 2106.09685).

    Args:
        alpha: the adapters' output is multiplied by alpha / rank.
        dropout: before the adapters, 0 to 1.

    Raises:
        UserError: the model has no layer of a name, or one that adapters do not fit.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    _check_names(model, reach)
    rows, whole = _new_rows(model, reach)
    targets = _targets(model, reach)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        # peft divides it by the rank, whatever number it is.
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        modules_to_save=[*reach.modules_to_save, *whole] or None,
        trainable_token_indices=rows or None,
        # A head that is the embeddings stays them.
        ensure_weight_tying=_tied(model) and bool(whole or reach.modules_to_save),
        use_dora=reach.dora,
        bias="none",
    )
    try:
        with warnings.catch_warnings():
            # Rows of tied weights are tied in any case, and of layers that are not tied there is none to tie.
            warnings.filterwarnings("ignore", message=".*ensure_weight_tying.*")
            # peft's way of asking, which transformers will drop: nothing that a user could mend.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            tuned = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"adapters do not fit this model: {error}") from error
    if reach.new_tokens:
        logger.info(
            "%d tokens that the model has not learnt are trained with the adapters", len(reach.new_tokens)
        )
    return tuned


def _tied(model: "PreTrainedModel") -> bool:
    """Return whether the output head is the embeddings' weight."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embeddings, "weight", 0)


def _targets(model: "PreTrainedModel", reach: AdapterReach) -> list[str]:
    """Return the names by which peft finds the layers that get adapters: full names where a model has towers
    for images or sound, or linear layers that do more than multiply (Llama-4's router), which get none."""
    targets, inner = list(reach.target_modules), {id(module) for module in backbone(model).modules()}
    head, every = model.get_output_embeddings(), targets == ["all-linear"]
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) or _plain_linear(m)}
    if all((id(m) in inner and _plain_linear(m)) or m is head for m in linear.values()):
        return targets
    return [
        name
        for name, module in linear.items()
        if _plain_linear(module)
        and (
            id(module) in inner
            if every
            else (id(module) in inner or module is head)
            and any(f".{name}".endswith(f".{target}") for target in targets)
        )
    ]


def _plain_linear(module: nn.Module) -> bool:
    return type(module).__name__ in LINEAR


def _check_names(model: "PreTrainedModel", reach: AdapterReach) -> None:
    modules = dict(model.named_modules())
    for flag, names in (
        ("lora_target_modules", reach.target_modules),
        ("lora_modules_to_save", reach.modules_to_save),
    ):
        for name in names:
            if name == "all-linear":
                if len(names) > 1 or flag != "lora_target_modules":
                    raise UserError(f"--{flag}: all-linear stands alone, for --lora_target_modules only")
                continue
            named = [module for path, module in modules.items() if f".{path}".endswith(f".{name}")]
            if not named:
                raise UserError(f"--{flag} {name}: the model has no layer of this name")
            if flag == "lora_modules_to_save":
                continue
            wrong = [type(module).__name__ for module in named if not _plain_linear(module)]
            if wrong:
                raise UserError(
                    f"--{flag} {name}: adapters go on linear layers, and this is a {wrong[0]} "
                    "(--lora_modules_to_save trains it whole)"
                )
            if _tied(model) and model.get_output_embeddings() in named:
                raise UserError(
                    f"--{flag} {name}: the head is the embeddings' weight, which adapters on it would part "
                    "from them (--lora_modules_to_save trains both whole)"
                )


def _new_rows(model: "PreTrainedModel", reach: AdapterReach) -> tuple[dict[str, list[int]], list[str]]:
    """Return which rows of which modules are trained for the new tokens, and which modules are trained whole
    for them: where peft's own layer for rows would not compute what the module does."""
    if not reach.new_tokens:
        return {}, []
    names = {module: name for name, module in model.named_modules()}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    own = [module for module in (embeddings, head) if module is not None]
    saved = [m for m in own if any(f".{names[m]}".endswith(f".{n}") for n in reach.modules_to_save)]
    if _tied(model):
        # One weight: where either is trained whole, its rows are.
        own = [] if saved else [embeddings]
    own = [m for m in own if m not in saved]
    # peft computes a head by rows without its bias.
    exact = isinstance(embeddings, nn.Embedding) and type(head) is nn.Linear and head.bias is None
    if not exact:
        return {}, [names[module] for module in own]
    return {names[module]: list(reach.new_tokens) for module in own}, []


def before_tuning(module: nn.Module) -> nn.Module:
    """Return the module that peft has wrapped, as it was before tuning, or the module itself."""
    if hasattr(module, "token_adapter"):
        return module.token_adapter.get_base_layer()  # type: ignore[union-attr, operator]
    if hasattr(module, "modules_to_save"):
        return module.original_module  # type: ignore[return-value]
    return module.base_layer if hasattr(module, "lora_A") else module  # type: ignore[return-value]


@dataclass(frozen=True)
class AdapterLayers:
    """Where a LoRA wrapper has adapters, by the names of its layers."""

    scaling: Mapping[str, Mapping[str, float]]
    """Layer to {adapter: its scaling}."""
    transposed: frozenset[str] = frozenset()
    """Layers whose weight is [in, out] (GPT-2's)."""
    token_rows: Mapping[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)
    """Module of which single rows are trained, to {adapter: the ids}."""


def adapter_layers(tuned: nn.Module) -> AdapterLayers:
    """Return where a LoRA wrapper has adapters."""
    lora = {name: layer for name, layer in tuned.named_modules() if hasattr(layer, "lora_A")}
    rows = {name: layer for name, layer in tuned.named_modules() if hasattr(layer, "trainable_tokens_delta")}
    return AdapterLayers(
        {name: layer.scaling for name, layer in lora.items()},  # type: ignore[misc]
        frozenset(name for name, layer in lora.items() if getattr(layer, "fan_in_fan_out", False)),
        {name: _indices(layer) for name, layer in rows.items()},
    )


def _indices(layer: Any) -> dict[str, list[int]]:
    return {adapter: list(ids) for adapter, ids in layer.token_indices.items()}


def merge_adapters(state: dict[str, torch.Tensor], layers: AdapterLayers) -> dict[str, torch.Tensor]:
    """Return the weights of the model inside a LoRA wrapper: each adapter's scaling x B A (Hu et al., arXiv
    2106.09685) added in float32, rows put back at the vectors' learnt lengths under DoRA (Liu et al., arXiv
    2402.09353), trained rows and modules in the place of what they were.

    Args:
        state: the wrapper's weights by name, whole.
    """
    weights = {name: weight for name, weight in state.items() if not _of_adapter(name)}
    for layer, scales in layers.scaling.items():
        name = f"{layer}.base_layer.weight"
        for adapter, scale in scales.items():
            up, down = (state[f"{layer}.lora_{side}.{adapter}.weight"].float() for side in "BA")
            added = scale * (up @ down)
            if layer in layers.transposed:
                added = added.T
            weights[name] = weights[name].to(up.device, torch.float32) + added
            lengths = state.get(f"{layer}.lora_magnitude_vector.{adapter}.weight")
            if lengths is not None:
                weights[name] = _with_lengths(weights[name], lengths, layer in layers.transposed)
    _put_trained_rows(weights, state, layers)
    _put_trained_modules(weights, state)
    return {_plain_name(name): weight for name, weight in weights.items()}


def _put_trained_rows(
    weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor], layers: AdapterLayers
) -> None:
    """Put the trained rows of embeddings and heads in the place of what they were."""
    trained: dict[tuple[int, int], torch.Tensor] = {}
    for module, rows in layers.token_rows.items():
        name = f"{module}.base_layer.weight"
        for adapter, ids in rows.items():
            vectors = state.get(f"{module}.trainable_tokens_delta.{adapter}")
            if vectors is None:
                continue
            # A weight with two names stays one weight.
            key = (weights[name].data_ptr(), vectors.data_ptr())
            if key not in trained:
                index = torch.tensor(ids, device=weights[name].device)
                trained[key] = weights[name].index_copy(0, index, vectors.to(weights[name]))
            weights[name] = trained[key]


def _put_trained_modules(weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    """Put the modules that are trained whole in the place of what they were."""
    for name in list(weights):
        if ".original_module." in name:
            prefix, weight = name.split(".original_module.")
            whole = next(
                (n for n in state if n.startswith(f"{prefix}.modules_to_save.") and n.endswith(f".{weight}")),
                None,
            )
            if whole:
                weights[name] = state[whole]


def _of_adapter(name: str) -> bool:
    parts = (".lora_A.", ".lora_B.", ".lora_magnitude_vector.", ".trainable_tokens_", ".modules_to_save.")
    return any(part in name for part in parts)


def _with_lengths(weight: torch.Tensor, lengths: torch.Tensor, transposed: bool) -> torch.Tensor:
    """Return a weight, [out, in] or transposed, with its vectors of each output at these lengths, [out]."""
    weight = weight.T if transposed else weight
    scaled = weight * (lengths.to(weight).flatten() / weight.norm(dim=1))[:, None]
    return scaled.T if transposed else scaled


def _plain_name(name: str) -> str:
    name = name.removeprefix("base_model.model.")
    for part in (".token_adapter.base_layer.", ".original_module.", ".base_layer."):
        name = name.replace(part, ".")
    return name
