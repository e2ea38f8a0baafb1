"""Rows made of chance, models of a few thousand weights, and one optimiser step's gradient: what the step
tests share."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training.batches import MicroBatch, step_micro_batches
from instruction_modelling.training.loss_model import KLTerm, LossModel
from instruction_modelling.training.neftune import NeftuneNoise
from instruction_modelling.training.plan import GlobalBatch, Layout
from instruction_modelling.training.seeding import derived_seed

VOCABULARY = 61
LENGTHS = (5, 17, 9, 2, 23, 12, 7, 14)
POLICY = WeightPolicy(instruction=0.37, response=1.3, template=0.05)
PER_EXAMPLE = "sdpa_per_example"
# A step of all eight rows in some order, and its noise.
STEP, SEED, ALPHA = 3, 11, 5.0
EXAMPLES = np.array([4, 0, 7, 2, 1, 6, 5, 3])
RESPONSE = {SpanKind.ASSISTANT, SpanKind.END, SpanKind.REASONING, SpanKind.TOOL_CALLS, SpanKind.OPENING}
BY_KIND = {
    SpanKind.TEMPLATE: POLICY.template,
    SpanKind.TOOLS: POLICY.template,
    SpanKind.SYSTEM: POLICY.instruction,
    SpanKind.USER: POLICY.instruction,
    SpanKind.TOOL: 0.0,
    SpanKind.TEXT: 1.0,
    SpanKind.USER_END: 0.0,
    **dict.fromkeys(RESPONSE, POLICY.response),
}


def random_data(lengths: Sequence[int] = LENGTHS, seed: int = 0, vocabulary: int = VOCABULARY) -> EncodedData:
    """Rows of random ids, kinds and message weights; the last token of each is a response token of weight
    1."""
    draw = np.random.default_rng(seed)
    total = sum(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    kinds = draw.integers(0, len(SpanKind), total).astype(np.int8)
    messages = draw.integers(-1, 3, total).astype(np.int16)
    kinds[offsets[1:] - 1], messages[offsets[1:] - 1] = SpanKind.END, -1
    return EncodedData(
        ids=draw.integers(0, vocabulary, total).astype(np.int32),
        kinds=kinds,
        messages=messages,
        positions=np.full(total, -1, dtype=np.int32),
        owned=np.ones(total, dtype=bool),
        offsets=offsets,
        sequence_offsets=offsets,
        first_sequence=np.arange(len(lengths) + 1),
        rows=np.arange(len(lengths)),
        tokens_cut=np.zeros(len(lengths), dtype=np.int64),
        row_ids=[f"row {i}" for i in range(len(lengths))],
        datasets=["" for _ in lengths],
        changed_messages=[[] for _ in lengths],
        message_roles=[["system", "user", "assistant"] for _ in lengths],
        message_weights=[[float(w) for w in draw.choice([0.0, 0.25, 1.0, 1.7], 3)] for _ in lengths],
    )


def weigh(
    data: EncodedData,
    policy: WeightPolicy = POLICY,
    normalization: str = "example",
    denominator: str = "nonzero",
) -> WeightedData:
    """The data with its tokens' weights."""
    return WeightedData(data, data.weights(policy), normalization, denominator)


def tiny_llama(
    attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> Any:
    """A random Llama of 11,000 weights."""
    from transformers import LlamaConfig

    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.15,
        "tie_word_embeddings": False,
    }
    return random_model(LlamaConfig(**{**settings, **changes}), attention, seed, dtype)


def random_model(
    config: Any, attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float32
) -> Any:
    """A model of this configuration with random weights."""
    from transformers import AutoModelForCausalLM

    from instruction_modelling.models import attention as per_example

    per_example.register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model.config.use_cache = False
    return model.to(dtype).train()


def wrap(model: Any, alpha: float = 0.0, seed: int = 0, kl_weight: float = 0.0, **kl: Any) -> LossModel:
    """Return the model with its loss, with NEFTune where alpha is not 0 and with a `KLTerm` of `kl` where its
    weight is not."""
    from instruction_modelling.models.loading import causal_model

    noise = NeftuneNoise(causal_model(model).get_input_embeddings(), alpha, seed) if alpha else None
    return LossModel(model, KLTerm(kl_weight, **kl) if kl_weight else None, noise)


def run_step(model: LossModel, batches: Sequence[MicroBatch]) -> tuple[float, torch.Tensor]:
    """The loss of a step and the gradient of its trainable weights, flat, from the micro-batches one by
    one."""
    model.zero_grad(set_to_none=True)
    loss = 0.0
    for batch in batches:
        if model.noise:
            model.noise.expect(batch)
        out = model(**batch.tensors())
        out["loss"].backward()
        loss += float(out["loss"].detach())
    if model.noise:
        model.noise.expect(None)
    return loss, flat_gradient(model)


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """The gradients of the trainable weights end to end, float64; a weight without one counts as 0."""
    return torch.cat(
        [
            (torch.zeros_like(w) if w.grad is None else w.grad).detach().double().flatten()
            for w in model.parameters()
            if w.requires_grad
        ]
    )


def token_nlls(
    model: LossModel, weighted: WeightedData, layout: Layout, examples: Sequence[int]
) -> dict[int, np.ndarray]:
    """The NLL of each example's tokens of non-zero weight, in their order."""
    found: dict[int, list[float]] = {int(i): [] for i in examples}
    with torch.no_grad():
        for batch in step_micro_batches(weighted, GlobalBatch(0, np.asarray(examples)), layout):
            if model.noise:
                model.noise.expect(batch)
            nll = model(**batch.tensors())["nll"]
            for value, number in zip(nll.tolist(), batch.example_of_target.tolist(), strict=True):
                found[batch.example_spans[number].example].append(value)
    return {example: np.array(values) for example, values in found.items()}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def plain_log_probabilities(model: Any, data: EncodedData, example: int, alpha: float = 0.0) -> torch.Tensor:
    """log p(. | tokens before), [n, vocabulary], of one example alone, by transformers' own forward."""
    ids = torch.from_numpy(data.ids[data.span(example)].astype(np.int64))[None]
    inputs = model.get_input_embeddings()(ids)
    if alpha:
        generator = torch.Generator().manual_seed(derived_seed(SEED, STEP, example))
        uniform = torch.rand(ids.shape[1], inputs.shape[-1], generator=generator) * 2 - 1
        inputs = inputs + alpha / math.sqrt(ids.shape[1] * inputs.shape[-1]) * uniform
    return torch.log_softmax(model(inputs_embeds=inputs, use_cache=False).logits[0], dim=-1)


def own_weights(data: EncodedData, example: int, by_kind: dict[SpanKind, float] | None = None) -> list[float]:
    """The weight of each token of an example, from the definition alone."""
    at = data.span(example)
    weights = []
    for place, (kind, message) in enumerate(
        zip(data.kinds[at].tolist(), data.messages[at].tolist(), strict=True)
    ):
        factor = 1.0 if message == -1 else data.message_weights[example][message]
        weights.append(0.0 if place == 0 else (by_kind or BY_KIND)[SpanKind(kind)] * factor)
    return weights
