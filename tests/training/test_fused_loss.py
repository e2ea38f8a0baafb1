"""The loss whose gradient is made in the forward pass is the loss: against autograd over whole logits."""

from typing import Any

import pytest
import torch
from step_samples import (
    EXAMPLES,
    PER_EXAMPLE,
    VOCABULARY,
    random_data,
    relative,
    run_step,
    tiny_llama,
    weigh,
    wrap,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from instruction_modelling.models.adapters import AdapterReach, add_lora
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training import fused_loss as fused
from instruction_modelling.training import loss as losses
from instruction_modelling.training import loss_model
from instruction_modelling.training.batches import MicroBatch, step_micro_batches
from instruction_modelling.training.fused_loss import can_fuse, fused_loss
from instruction_modelling.training.hidden_states import output_head
from instruction_modelling.training.loss import OutputHead, rows_at_once
from instruction_modelling.training.plan import GlobalBatch, Layout

TARGETS, WIDTH = 23, 12
# The width of the tiny model's states.
STATE = 24
WHOLE = Layout(True, 1, 1000)


def sample(
    dtype: torch.dtype, bias: bool = False
) -> tuple[torch.Tensor, nn.Linear, torch.Tensor, torch.Tensor]:
    """Hidden states, a layer, targets, and coefficients of both signs, some of them 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = torch.randn(TARGETS, WIDTH, dtype=dtype, requires_grad=True)
        linear = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
        targets, coefficients = torch.randint(VOCABULARY, (TARGETS,)), torch.randn(TARGETS)
    coefficients[::5] = 0
    return hidden, linear, targets, coefficients


def by_autograd(
    hidden: torch.Tensor, linear: nn.Linear, targets: torch.Tensor, coefficients: torch.Tensor
) -> torch.Tensor:
    """The loss from the whole logits, written out."""
    logits = hidden @ linear.weight.T + (0 if linear.bias is None else linear.bias)
    logs = logits - logits.exp().sum(dim=1, keepdim=True).log()
    return -(coefficients * logs[range(TARGETS), targets]).sum()


@pytest.mark.parametrize("rows", [1, 3, 8, 1000])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_in_chunks_it_is_the_gradient_of_autograd(
    monkeypatch: pytest.MonkeyPatch, rows: int, bias: bool
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", rows * VOCABULARY)
    hidden, linear, targets, coefficients = sample(torch.float64, bias)
    loss, nll = fused_loss(hidden, targets, coefficients, linear)
    assert nll.dtype == torch.float64 and not nll.requires_grad
    expected = by_autograd(hidden, linear, targets, coefficients)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-13)
    wanted = [hidden, *linear.parameters()]
    for own, other in zip(
        torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        assert relative(own, other) < 1e-13


def test_what_multiplies_the_loss_multiplies_the_gradient_once() -> None:
    gradients = {}
    for factor in (1.0, 4.0):
        hidden, linear, targets, coefficients = sample(torch.float32, bias=True)
        loss, _ = fused_loss(hidden, targets, coefficients, linear)
        # Two micro-batches' worth: the layer's gradient adds up.
        again, _ = fused_loss(hidden, targets, coefficients, linear)
        (loss * factor).backward()
        (again * factor).backward()
        gradients[factor] = [hidden.grad, *(weight.grad for weight in linear.parameters())]
    for one, four in zip(gradients[1.0], gradients[4.0], strict=True):
        assert one is not None and four is not None and torch.equal(4 * one, four)


def test_a_second_backward_pass_is_refused() -> None:
    hidden, linear, targets, coefficients = sample(torch.float32)
    loss, _ = fused_loss(hidden, targets, coefficients, linear)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


def test_in_bfloat16_it_is_no_further_from_the_truth_than_the_head_run_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 4 * VOCABULARY)
    hidden, linear, targets, coefficients = sample(torch.float64)
    truth = torch.autograd.grad(by_autograd(hidden, linear, targets, coefficients), [hidden, linear.weight])
    hidden, linear = hidden.detach().float().requires_grad_(), linear.float()
    with torch.autocast("cpu", torch.bfloat16):
        fused, own_nll = fused_loss(hidden, targets, coefficients, linear)
        nll, _ = losses.token_losses(hidden, targets, OutputHead(linear, VOCABULARY))
        twice = (coefficients * nll).sum()
    assert own_nll.dtype == torch.float32
    torch.testing.assert_close(own_nll, nll.detach(), rtol=0, atol=1e-6)
    own, other = (torch.autograd.grad(each, [hidden, linear.weight]) for each in (fused, twice))
    for of_fused, of_twice, true in zip(own, other, truth, strict=True):
        assert of_fused.dtype == torch.float32
        assert relative(of_fused, true) < 0.02
        assert relative(of_fused, true) < 1.1 * relative(of_twice, true)


# -- in a model --------------------------------------------------------------------------------------------


class _HeadsWork(TorchDispatchMode):
    """How often the head's size is multiplied, counted in positions, and the most positions of which there
    are logits, or anything as wide, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.multiplied = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            left, right = args[-2:]
            if VOCABULARY in (*left.shape, *right.shape):
                self.multiplied += left.shape[0] * left.shape[1] * right.shape[1] // (STATE * VOCABULARY)
        # The weight, turned round, is no logits.
        if isinstance(out, torch.Tensor) and out.shape[1:] == (VOCABULARY,) and len(out) != STATE:
            self.most = max(self.most, len(out))
        return out


def micro_batch(instruction: float = 1.0) -> MicroBatch:
    weighted = weigh(random_data(), WeightPolicy(instruction))
    (batch,) = step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), WHOLE)
    return batch


def fuses(model: nn.Module) -> bool:
    return can_fuse(output_head(model), model)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_model_gets_the_gradient_of_the_head_run_twice(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    """The brute-force tests of steps run this path too; here are a padded vocabulary and tied weights."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 5 * VOCABULARY)
    found = []
    for fuse in (True, False):
        changes = {"tie_word_embeddings": tied, "vocab_size": VOCABULARY + 3}
        model = wrap(tiny_llama(PER_EXAMPLE, dtype=torch.float64, **changes))
        assert fuses(model.model)
        if not fuse:
            monkeypatch.setattr(loss_model, "can_fuse", lambda head, owner: False)
        found.append(run_step(model, [micro_batch()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert relative(found[0][1], found[1][1]) < 1e-12


def test_the_head_runs_once_and_on_tokens_with_a_loss_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = micro_batch(0.0), micro_batch(1.0)
    assert few.tokens_with_loss < many.tokens_with_loss < many.real_tokens
    for fuse, products, products_if_frozen in ((True, 3, 2), (False, 4, 3)):
        if not fuse:
            monkeypatch.setattr(loss_model, "can_fuse", lambda head, owner: False)
        for batch in (few, many):
            # Logits, and the gradients of states and weight; a frozen weight's is not made.
            tuned = wrap(add_lora(tiny_llama(PER_EXAMPLE), 2, 4, 0.0))
            for model, times in ((wrap(tiny_llama(PER_EXAMPLE)), products), (tuned, products_if_frozen)):
                with _HeadsWork() as seen:
                    run_step(model, [batch])
                assert seen.multiplied == times * batch.tokens_with_loss
                assert seen.most == batch.tokens_with_loss


def test_no_more_logits_exist_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 4 * VOCABULARY + 3)
    with _HeadsWork() as seen:
        run_step(wrap(tiny_llama(PER_EXAMPLE)), [micro_batch()])
    assert seen.most == 4


def test_without_gradients_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(tiny_llama(PER_EXAMPLE))
    with_gradient = model(**micro_batch().tensors())
    monkeypatch.setattr(loss_model, "fused_loss", None)
    with torch.no_grad():
        out = model(**micro_batch().tensors())
    assert not out["loss"].requires_grad
    torch.testing.assert_close(out["nll"], with_gradient["nll"], atol=1e-6, rtol=0)


def test_a_device_decides_how_many_logits_exist_at_once() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert rows_at_once(49_152, 4096, cpu) == rows_at_once(49_152, 10**6, cpu) == 682
    # On a GPU an eighth of the whole at most, and 2^27 in all.
    assert [rows_at_once(128_000, n, cuda) for n in (1, 100, 2048, 8192, 32_768)] == [1, 13, 256, 1024, 1048]
    assert rows_at_once(2**28, 8192, cuda) == 1


# -- heads that are not fused ------------------------------------------------------------------------------


def test_what_is_not_a_plain_layer_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fuses(tiny_llama())
    with torch.no_grad():
        assert not fuses(tiny_llama())

    hooked = tiny_llama()
    hooked.lm_head.register_forward_pre_hook(lambda module, inputs: None)
    own_forward = tiny_llama()
    own_forward.lm_head.forward = own_forward.lm_head.forward
    of_zero_3 = tiny_llama()
    of_zero_3.lm_head.weight.ds_id = 0
    adapted = add_lora(tiny_llama(), 2, 4, 0.0, AdapterReach(["q_proj", "lm_head"]))
    trained_whole = add_lora(tiny_llama(), 2, 4, 0.0, AdapterReach(modules_to_save=["lm_head"]))
    new_rows = add_lora(tiny_llama(), 2, 4, 0.0, AdapterReach(new_tokens=[3, 5]))
    for model in (hooked, own_forward, of_zero_3, adapted, trained_whole, new_rows):
        assert not fuses(model)

    for scaling in ("logit_scale", "logits_scaling", "final_logit_softcapping"):
        model = tiny_llama()
        setattr(model.config, scaling, 3.0)
        assert not fuses(model)
        setattr(model.config, scaling, None)
        assert fuses(model)


@pytest.mark.parametrize("reach", [{"modules_to_save": ["lm_head"]}, {"new_tokens": [3, 5]}], ids=str)
def test_a_wrapped_head_trains_as_autograd_says(reach: dict[str, Any]) -> None:
    batch, tuned = micro_batch(), add_lora(tiny_llama(PER_EXAMPLE), 2, 4, 0.0, AdapterReach(**reach))
    loss, gradient = run_step(wrap(tuned), [batch])
    tuned.zero_grad()
    logits = tuned(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        cu_seq_lens_q=batch.boundaries,
    ).logits[0, batch.logit_positions]
    nll = nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    expected = (batch.coefficients * nll).sum()
    parts = torch.autograd.grad(expected, [w for w in tuned.parameters() if w.requires_grad])
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert relative(gradient, torch.cat([part.flatten() for part in parts])) < 1e-5


def test_a_model_sharded_as_a_whole_is_not_fused() -> None:
    """FSDP2 makes a class of its own of the module that it shards."""
    from torch.distributed.fsdp import FSDPModule

    class Sharded(FSDPModule, nn.Module):
        def __new__(cls, *arguments: Any) -> Any:
            return nn.Module.__new__(cls)

    assert not can_fuse(output_head(tiny_llama()), Sharded())
    assert can_fuse(output_head(tiny_llama()), nn.Module())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_kernel_for_a_chunk_computes_what_several_do(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 5 * VOCABULARY)
    monkeypatch.setattr(
        fused, "_compiled_gradient", lambda: torch.compile(fused._gradient_in_one, backend="aot_eager")
    )
    found = []
    for compiled in (False, True):
        hidden, linear, targets, coefficients = sample(dtype, bias=True)
        loss, nll = fused_loss(hidden, targets, coefficients, linear, compiled)
        found.append([nll, *torch.autograd.grad(loss, [hidden, *linear.parameters()])])
    for one, other in zip(*found, strict=True):
        assert relative(one, other) < (1e-13 if dtype == torch.float64 else 1e-6)
