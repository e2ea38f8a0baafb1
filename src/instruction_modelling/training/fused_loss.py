"""The loss of a plain output head, with its gradient made in the forward pass.

Where the loss is the sum of c_t nll_t with coefficients known beforehand, the gradient of a chunk's logits is
c_t (softmax - one at the target), so it is at hand as soon as the logits are. What `training.loss` computes
twice, the head forward, is computed here once, and no logits outlive their chunk. Liger-Kernel's fused linear
cross-entropy (arXiv 2410.10989) does so for a mean over tokens."""

import functools
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from instruction_modelling.training.loss import OutputHead, rows_at_once

# On a CPU the softmax takes so many logits at a time: 2 MiB in float32 stay in a core's cache.
SOFTMAX_AT_ONCE = 2**19
# On a CPU the head's gradient is added up so many entries at a time, for the same reason.
GRADIENT_AT_ONCE = 2**21


def can_fuse(head: OutputHead, owner: nn.Module) -> bool:
    """Return whether `fused_loss` computes what this output head computes, and gradients are wanted at all.

    It does for a plain linear layer that nobody hooks into, with nothing behind it. It does not for one with
    adapters or other wrappers, of 4-bit weights, with scaled or capped logits, or where ZeRO-3 or FSDP2
    gathers weights around a module's forward.

    Args:
        owner: the module whose forward pass asks, which FSDP2 would shard as a whole.
    """
    from torch.distributed.fsdp import FSDPModule

    linear = head.linear
    if not torch.is_grad_enabled() or type(linear) is not nn.Linear or isinstance(owner, FSDPModule):
        return False
    hooks = (
        linear._forward_hooks,
        linear._forward_pre_hooks,
        linear._backward_hooks,
        linear._backward_pre_hooks,
    )
    weight = linear.weight
    # A forward of the module's own is what accelerate's hooks leave; `ds_id` is ZeRO-3's.
    unseen = any(hooks) or "forward" in vars(linear) or hasattr(weight, "ds_id")
    return not unseen and type(weight) is nn.Parameter and type(weight.data) is torch.Tensor


def fused_loss(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    coefficients: torch.Tensor,
    linear: nn.Linear,
    compiled: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of c_t nll_t, a scalar with gradient, and the NLL of each target in nats, float32[T] or
    wider, without.

    Args:
        hidden: [T, H], the last hidden state at the position before each target; T is 1 or more.
        targets: int64[T], token ids.
        coefficients: float32[T], c_t.
        linear: the layer of a head that `can_fuse`.
        compiled: whether one compiled kernel is to go over a chunk's logits, as on a GPU with --compile.
    """
    rows = rows_at_once(linear.out_features, len(targets), hidden.device)
    loss, nll = _FusedLoss.apply(hidden, linear.weight, linear.bias, targets, coefficients, rows, compiled)
    return loss, nll


class _FusedLoss(torch.autograd.Function):
    """Gradients of states, weight and bias, made in the forward pass and handed out in the backward pass."""

    @staticmethod
    def forward(  # noqa: PLR0913 (what has a gradient has to be an argument of its own)
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        coefficients: torch.Tensor,
        rows: int,
        compiled: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute what `fused_loss` returns, and keep the gradients that are wanted."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wanted = (*ctx.needs_input_grad[:2], bias is not None and ctx.needs_input_grad[2])
        with torch.autocast(device, enabled=False):
            nll, ctx.gradients = _chunks(
                hidden, weight, bias, targets, coefficients, rows, dtype, wanted, compiled
            )
        ctx.mark_non_differentiable(nll)
        ctx.set_materialize_grads(False)
        return (coefficients * nll).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor, _: None) -> tuple[torch.Tensor | None, ...]:
        """Hand out the gradients, multiplied by that of the loss; a second time there are none.

        Raises:
            RuntimeError: this is the second time.
        """
        # Without a copy: what nothing else holds, autograd takes for its own.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the loss of a micro-batch has one backward pass only")
        # To look at the number would make a GPU wait.
        if scale.device.type != "cpu" or float(scale) != 1.0:
            for gradient in filter(lambda g: g is not None, gradients):
                gradient.mul_(scale)
        return (*gradients, None, None, None, None)


def _chunks(  # noqa: PLR0913 (the forward pass's own arguments)
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    coefficients: torch.Tensor,
    rows: int,
    dtype: torch.dtype,
    wanted: tuple[bool, bool, bool],
    compiled: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """Return the NLL of each target, and the gradients of hidden states, weight and bias that are `wanted`.

    Args:
        dtype: what products are computed in. Each is rounded to it once; what they add up to over chunks is
            float32 or wider.
    """
    wide = torch.promote_types(dtype, torch.float32)
    states, matrix = hidden.to(dtype), weight.to(dtype)
    nll = torch.empty(len(targets), dtype=wide, device=hidden.device)
    of_hidden = torch.empty_like(hidden) if wanted[0] else None
    of_weight = torch.empty_like(weight, dtype=wide) if wanted[1] else None
    of_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and wanted[2] else None
    # Chunks of one size: a small last one would read and write the whole weight for a few rows.
    rows = -(-len(targets) // -(-len(targets) // rows))
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        logits = nn.functional.linear(states[part], matrix, None if bias is None else bias.to(dtype))
        of_part = (targets[part], coefficients[part], wide)
        if compiled:
            nll[part], logits = _compiled_gradient()(logits, *of_part)
        else:
            nll[part] = _put_gradient(logits, *of_part)
        if of_hidden is not None:
            of_hidden[part] = logits @ matrix
        if of_weight is not None:
            _add_outer(of_weight, logits, states[part], first=start == 0)
        if of_bias is not None:
            of_bias += logits.sum(dim=0, dtype=wide)
        # Else they would live until the next chunk's are made.
        del logits
    of_layer = [None if own is None else own.to(weight.dtype) for own in (of_weight, of_bias)]
    return nll, (of_hidden, *of_layer)


def _put_gradient(
    logits: torch.Tensor, targets: torch.Tensor, coefficients: torch.Tensor, wide: torch.dtype
) -> torch.Tensor:
    """Put the gradient of the sum of c_t nll_t in the place of the logits, [T, vocabulary]; return the NLL of
    each target, [T]."""
    nll = torch.empty(len(targets), dtype=wide, device=logits.device)
    step = max(1, SOFTMAX_AT_ONCE // logits.shape[1]) if logits.device.type == "cpu" else len(targets)
    for start in range(0, len(targets), step):
        part = slice(start, start + step)
        own, target, c = logits[part], targets[part], coefficients[part].to(wide)
        at = torch.arange(len(target), device=logits.device)
        shares = torch.softmax(own, dim=-1, dtype=wide)
        # The largest logit and its share give the logarithm of the sum, without another pass over all.
        largest, where = own.max(dim=-1)
        nll[part] = largest.to(wide) - own[at, target].to(wide) - shares[at, where].log()
        of_target = shares[at, target].mul_(c).sub_(c).to(own.dtype)
        torch.mul(shares, c[:, None], out=own)
        own[at, target] = of_target
    return nll


@functools.cache
def _compiled_gradient() -> Any:
    """Return `_gradient_in_one` as one kernel."""
    return torch.compile(_gradient_in_one)


def _gradient_in_one(
    logits: torch.Tensor, targets: torch.Tensor, coefficients: torch.Tensor, wide: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `_put_gradient` does, NLL and gradient, written for a compiler to make one kernel of.

    Not in place: inductor (torch 2.11, on a CPU) then took the targets' logits from what was overwritten."""
    values = logits.to(wide)
    total = torch.logsumexp(values, dim=-1, keepdim=True)
    nll = (total - values.gather(1, targets[:, None]))[:, 0]
    is_target = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    gradient = ((values - total).exp() - is_target.to(wide)) * coefficients[:, None].to(wide)
    return nll, gradient.to(logits.dtype)


def _add_outer(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, first: bool) -> None:
    """Add left.T @ right to `total`, [vocabulary, H], which the `first` such sum overwrites."""
    if total.dtype == left.dtype:
        total.addmm_(left.T, right, beta=0 if first else 1)
        return
    if total.device.type == "cuda" and _adds_wide():
        keywords: dict[str, Any] = {"beta": 0 if first else 1, "out_dtype": total.dtype}
        torch.addmm(total, left.T, right, out=total, **keywords)
        return
    step = max(1, GRADIENT_AT_ONCE // total.shape[1]) if total.device.type == "cpu" else len(total)
    for start in range(0, len(total), step):
        part = slice(start, start + step)
        product = left[:, part].T @ right
        if first:
            total[part] = product
        else:
            total[part] += product


@functools.cache
def _adds_wide() -> bool:
    """Return whether this torch adds products of 16-bit numbers to a float32 sum as they are made, so that
    they are neither rounded nor written first."""
    total, one = (torch.zeros(8, 8, device="cuda", dtype=d) for d in (torch.float32, torch.bfloat16))
    try:
        torch.addmm(total, one, one, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return True
