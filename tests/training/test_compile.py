"""Compiled layers compute the run that uncompiled ones do, and are compiled once for all lengths."""

from typing import Any

import numpy as np
import pytest
import torch
from model_families import FAMILIES
from step_samples import (
    LENGTHS,
    PER_EXAMPLE,
    random_data,
    random_model,
    relative,
    run_step,
    tiny_llama,
    weigh,
    wrap,
)
from torch._dynamo.utils import counters

from instruction_modelling.errors import UserError
from instruction_modelling.models import attention, attention_op, block_attention, compiled
from instruction_modelling.models.adapters import add_lora
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.hidden_states import PackedRow, hidden_states
from instruction_modelling.training.loss_model import LossModel
from instruction_modelling.training.plan import GlobalBatch, Layout

# Steps of other numbers of examples, tokens and micro-batches; one of a single example, one filled up.
STEPS = [([0, 1, 2, 3, 4, 5, 6, 7], 60, 1), ([4], 60, 1), ([1, 2], 60, 1), ([5, 6, 7, 0], 200, 16)]


@pytest.fixture(autouse=True)
def fresh_graphs() -> None:
    torch._dynamo.reset()
    counters.clear()


def llama(**named: Any) -> LossModel:
    return wrap(tiny_llama(PER_EXAMPLE, num_hidden_layers=3), **named)


def rounded() -> LossModel:
    model = llama()
    model.round_once_a_step()
    return model.train()


def with_lora() -> LossModel:
    torch.manual_seed(0)
    model = wrap(add_lora(tiny_llama(PER_EXAMPLE, num_hidden_layers=3), 4, 8, 0.0))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def with_checkpointing() -> LossModel:
    model: Any = llama()
    model.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.model.enable_input_require_grads()
    return model


MODELS: dict[str, Any] = {
    "llama": llama,
    "mistral, window 5": lambda: wrap(random_model(FAMILIES["mistral, window 5"](), PER_EXAMPLE)),
    "weights rounded once": rounded,
    "LoRA": with_lora,
    "gradient checkpointing": with_checkpointing,
    "KL": lambda: llama(kl_weight=0.5, base=tiny_llama(PER_EXAMPLE, seed=1, num_hidden_layers=3)),
}


def compare(make: Any, half: bool, backend: str) -> int:
    """Compare losses and gradients of `STEPS` by compiled layers with those by others; return the number of
    graphs that were compiled."""
    weighted, plain, quick = weigh(random_data()), make(), make()
    quick.compile_layers(backend)
    for examples, most, multiple in STEPS:
        step = GlobalBatch(0, np.array(examples))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, gradient = run_step(plain, step_micro_batches(weighted, step, Layout(True, 1, most)))
            filled = Layout(True, 1, most, multiple=multiple)
            own_loss, own = run_step(quick, step_micro_batches(weighted, step, filled))
        assert own_loss == pytest.approx(loss, rel=5e-3 if half else 1e-6)
        assert relative(own, gradient) < (0.03 if half else 3e-6)
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("llama", False),
        ("KL", False),
        pytest.param("llama", True, marks=pytest.mark.slow),
        *(
            pytest.param(name, name == "weights rounded once", marks=pytest.mark.slow)
            for name in MODELS
            if name not in ("llama", "KL")
        ),
    ],
)
def test_compiled_layers_give_the_losses_and_gradients_of_others(name: str, half: bool) -> None:
    """In one graph for all layers and lengths; in another for the KL term's pass without gradients, and for
    the first layer beside adapters, whose input has no gradient."""
    graphs = compare(MODELS[name], half, "aot_eager")
    assert graphs == (2 if name in ("KL", "LoRA") else 1)
    assert not counters["graph_break"]


@pytest.mark.slow
def test_kernels_of_the_compiler_give_the_losses_and_gradients_of_others() -> None:
    assert compare(llama, False, "inductor") == 1
    assert compare(llama, True, "inductor") == 2


def test_one_graph_holds_the_one_call_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own operation over all examples, by its shapes alone."""
    monkeypatch.setattr(attention, "_FLASH_MULTIPLE", 2)
    model = tiny_llama(attention.VARLEN, num_hidden_layers=3, dtype=torch.bfloat16).to("meta")
    compiled.compile_layers(model, "aot_eager")
    for examples in ([0, 1, 2], [4], [5, 6, 7, 1]):
        (batch,) = step_micro_batches(
            weigh(random_data()), GlobalBatch(0, np.array(examples)), Layout(True, 1, 999)
        )
        batch = batch.to("meta")
        assert batch.boundaries is not None and batch.lengths is not None
        packed = PackedRow(batch.boundaries, batch.lengths, compiled=True)
        hidden_states(model, batch.input_ids, batch.position_ids, None, packed).sum().backward()
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@pytest.mark.parametrize(("window", "chunk"), [(0, 0), (4, 0), (0, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_operation_is_the_attention(dtype: torch.dtype, window: int, chunk: int) -> None:
    """Output and gradients to rounding, and torch's own checks of an operation."""
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(1, 30, heads, 8, generator=draw).to(dtype).transpose(1, 2) for heads in (4, 2, 2)]
    edges = torch.tensor([0, 1, 12, 30], dtype=torch.int32)
    lengths = block_attention.in_chunks([1, 11, 18], chunk or None)
    one_call: Any = attention_op.packed_attention
    by_blocks: Any = block_attention.packed_attention
    results = []
    for own in (True, False):
        leaves: Any = [one.clone().requires_grad_() for one in states]
        if own:
            out = one_call(*leaves, edges, 0.3, window, chunk, dtype)
        else:
            out = by_blocks(*leaves, lengths, 0.3, window or None, dtype)
        (out * torch.arange(8).to(dtype)).sum().backward()
        results.append([out.detach(), *(one.grad for one in leaves)])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype == dtype
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    leaves = [one.clone().requires_grad_() for one in states]
    torch.library.opcheck(attention_op.packed_attention, (*leaves, edges, 0.3, window, chunk, dtype))


def test_a_pack_is_filled_up_by_an_example_without_a_loss() -> None:
    weighted, step = weigh(random_data()), GlobalBatch(0, np.arange(4))
    (plain,) = step_micro_batches(weighted, step, Layout(True, 1, 999))
    (filled,) = step_micro_batches(weighted, step, Layout(True, 1, 999, multiple=16))
    total = sum(LENGTHS[:4])
    assert total == 33 and plain.lengths is not None
    assert filled.input_ids.shape == filled.position_ids.shape == (1, 48)
    assert filled.lengths == (*plain.lengths, 15)
    assert filled.boundaries is not None and filled.boundaries.tolist()[-2:] == [33, 48]
    assert filled.position_ids[0, 33:].tolist() == list(range(15))
    assert filled.real_tokens == plain.real_tokens == 33 and filled.example_spans == plain.example_spans
    assert torch.equal(filled.logit_positions, plain.logit_positions)
    steps = [run_step(wrap(tiny_llama(PER_EXAMPLE)), [batch]) for batch in (plain, filled)]
    assert steps[0][0] == pytest.approx(steps[1][0], rel=1e-6)
    assert relative(steps[0][1], steps[1][1]) < 1e-6
    (whole,) = step_micro_batches(weighted, step, Layout(True, 1, 999, multiple=11))
    assert whole.lengths == plain.lengths


def test_what_cannot_be_compiled_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def problems(**given: Any) -> list[str]:
        return FinetuneOptions("m", train_file=["f.jsonl"], compile=True, **given).check()

    assert problems(packing=True) == []
    assert problems() == ["--compile: give --packing too"]
    assert "--use_qlora" in problems(packing=True, use_qlora=True)[0]
    assert "--use_flash_attn" in problems(packing=True, use_flash_attn=True)[0]
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for name in (PER_EXAMPLE, attention.EFFICIENT):
        with pytest.raises(UserError, match=f"{name}.*--mixed_precision bf16"):
            compiled.require_compiler(cuda, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="triton"):
        compiled.require_compiler(cuda, attention.VARLEN)
    compiled.require_compiler(cpu, PER_EXAMPLE)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        compiled.require_compiler(cpu, PER_EXAMPLE)
    model = tiny_llama(PER_EXAMPLE)
    monkeypatch.setattr(model, "_no_split_modules", None)
    with pytest.raises(UserError, match="LlamaForCausalLM"):
        compiled.compile_layers(model)
