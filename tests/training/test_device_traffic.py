"""A step waits for its device once, at its end; what it sends there, it sends without waiting."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from device_traffic import DEVICE, Traffic
from script_loader import load_script
from step_samples import ALPHA, EXAMPLES, SEED, STEP, random_data, tiny_llama, weigh, wrap

from instruction_modelling.models import attention
from instruction_modelling.training.at_hand import AtHand
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout
from instruction_modelling.training.row_losses import row_losses
from instruction_modelling.training.step_totals import NllSums

# Two micro-batches or more of eight rows.
LAYOUTS = {"packed": Layout(True, 1, 40), "padded": Layout(False, 4, 0)}


def accelerator(device: torch.device) -> Any:
    return SimpleNamespace(
        device=device,
        num_processes=1,
        process_index=0,
        is_fsdp2=False,
        state=SimpleNamespace(deepspeed_plugin=None),
        gradient_state=SimpleNamespace(_set_sync_gradients=lambda last: None),
        no_sync=lambda model: torch.enable_grad(),
        unwrap_model=lambda model: model,
        backward=lambda loss: loss.backward(),
    )


def a_step(layout: str, kernel: str = "sdpa", **arm: Any) -> tuple[Traffic, int, dict[str, Any]]:
    """One step of src/finetune.py on a device that computes nothing: its traffic, the number of its
    micro-batches and its line in metrics.jsonl."""
    attention.register()
    weighted = weigh(random_data())
    # FlashAttention takes 16 bits alone, and heads of a multiple of eight.
    dtype, width = (torch.bfloat16, 32) if kernel == attention.VARLEN else (torch.float32, 24)
    model = wrap(tiny_llama(kernel, dtype=dtype, hidden_size=width), **arm).to(DEVICE)
    options = SimpleNamespace(seed=SEED, clip_grad_norm=1.0, apply_kl_div_loss=False)
    run = SimpleNamespace(
        options=options,
        accelerator=accelerator(DEVICE),
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), foreach=True),
        window=NllSums(weighted.data.datasets),
        done=STEP,
        at_hand=AtHand(),
    )
    batches = step_micro_batches(weighted, GlobalBatch(STEP, EXAMPLES), LAYOUTS[layout])
    with Traffic() as traffic:
        line = load_script("finetune").train_step(run, batches)
    return traffic, len(batches), line


# transformers asks the device whether a padded batch has padding, before the first layer.
MASK = "aten._local_scalar_dense in masking_utils.py: _ignore_causal_mask_sdpa"
END = "aten._to_copy in step_totals.py: over_ranks"


@pytest.mark.parametrize(
    "arm",
    [{}, {"alpha": ALPHA}, {"kl_weight": 0.3, "base": tiny_llama(seed=1)}],
    ids=["plain", "NEFTune", "KL"],
)
def test_a_step_reads_from_its_device_once_and_never_waits_to_send(arm: dict[str, Any]) -> None:
    traffic, micro_batches, line = a_step("padded", **arm)
    passes = 2 * micro_batches if "base" in arm else micro_batches
    assert traffic.reads == [MASK] * passes + [END]
    assert micro_batches >= 2 and line["loss"] == line["grad_norm"] == 1.0
    # Of each micro-batch seven tensors and the columns of its targets, and its noise; at the end its counts.
    assert traffic.sends == micro_batches * (8 + ("alpha" in arm)) + 1
    assert traffic.waiting_sends == []


@pytest.mark.parametrize("kernel", [attention.PER_EXAMPLE, attention.VARLEN, attention.EFFICIENT])
def test_a_packed_step_reads_from_its_device_once(kernel: str) -> None:
    traffic, micro_batches, line = a_step("packed", kernel, alpha=ALPHA)
    assert traffic.reads == [END]
    assert micro_batches >= 2 and line["loss"] == line["grad_norm"] == 1.0
    # Boundaries go there in place of a mask, and the noise with them.
    assert traffic.sends == micro_batches * 9 + 1
    assert traffic.waiting_sends == []


def test_reading_a_number_or_a_tensor_in_a_micro_batch_is_seen() -> None:
    with Traffic() as traffic:
        there = torch.arange(4).to(DEVICE, non_blocking=True)
        assert there.tolist() == [0, 1, 2, 3] and int(there.max()) == 1 and there.cpu()[3] == 3
        torch.ones(2).to(DEVICE)
        with pytest.raises(NotImplementedError):
            there.nonzero()
    here = "test_device_traffic.py: test_reading_a_number_or_a_tensor_in_a_micro_batch_is_seen"
    assert traffic.reads == [
        f"aten.{name} in {here}" for name in ("_to_copy", "_local_scalar_dense", "_to_copy", "nonzero")
    ]
    assert (traffic.sends, traffic.waiting_sends) == (2, [here])


def test_scoring_reads_once_for_all_micro_batches_that_are_laid_out_together() -> None:
    model = wrap(tiny_llama()).to(DEVICE)
    with Traffic() as traffic:
        scored = row_losses(model, random_data(), LAYOUTS["padded"], accelerator(DEVICE))
    assert traffic.reads == [MASK, MASK, "aten._to_copy in row_losses.py: row_losses"]
    assert [set(row["nll"].values()) for row in scored] == [{1.0}] * len(EXAMPLES)
