"""The golden run: eleven small trainings whose every number is kept in golden_run.json, so that no change
moves one unseen.

    python tests/support/golden_run.py                      compare with the record; exit 1 where a number
    differs python tests/support/golden_run.py --renew "REASON"     write a new record; the reason and the
    largest difference stay in it

A tiny Llama in float32 on a CPU with one thread, six steps of up to eight of 19 sample rows. On a machine
like the recorded one (processor, torch, thread) every number must be the same to the last bit; elsewhere to
1e-5, relatively, which is what another order of float32 sums may do over six steps of these arms.

Renew the record only where a change is meant to alter numbers (another kernel, another order of sums), and
say why."""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
RECORD = TESTS / "training" / "golden_run.json"
TOLERANCE = 1e-5
ROWS, STEPS = 19, 6

PACKED = ("--packing", "--max_tokens_per_device", "400")
LORA = ("--use_lora", "--lora_rank", "4", "--lora_dropout", "0")
KL = ("--apply_kl_div_loss", "--kl_penalty_ctl", "0.3")
ARMS: dict[str, tuple[str, ...]] = {
    "IT padded": (),
    "IT packed": PACKED,
    "IM padded": ("--use_lm_loss",),
    "IM packed": ("--use_lm_loss", *PACKED),
    "IM weight 0.3 packed": ("--instruction_loss_weight", "0.3", *PACKED),
    "IM weight 0.3, per token, response denominator, padded left": (
        "--instruction_loss_weight",
        "0.3",
        "--loss_normalization",
        "token",
        "--loss_denominator",
        "response",
        "--padding_side",
        "left",
    ),
    "IM NEFTune packed": ("--use_lm_loss", "--neftune_alpha", "5", *PACKED),
    "IM KL padded": ("--use_lm_loss", *KL),
    "IT LoRA packed": (*LORA, *PACKED),
    "IM KL LoRA padded": ("--use_lm_loss", *KL, *LORA),
    "released recipe IM padded": ("--use_lm_loss", "--recipe", "released"),
}


def environment() -> dict[str, Any]:
    """Return what decides the last bits of a sum on a CPU."""
    import torch

    names = (
        [
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return {
        "cpu": names[0] if names else "unknown",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": 1,
    }


def calm_tiny_model(folder: Path) -> Path:
    """Save the tests' tiny model with smaller weights: one step's rounding then does not grow in the next."""
    from safetensors.torch import load_file, save_file
    from tiny import make_tiny_model

    path = make_tiny_model(folder) / "model.safetensors"
    weights = {name: weight * 0.3 if weight.ndim > 1 else weight for name, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def measure(folder: Path) -> dict[str, dict[str, Any]]:
    """Run every arm in `folder`; its losses and gradient norms by step, and the hash and size of the final
    weights."""
    from training_runs import finetune, metrics, sample_rows, weights, write_rows

    model = calm_tiny_model(folder / "model")
    rows = write_rows(folder / "rows.jsonl", sample_rows(ROWS))
    measured = {}
    for number, (arm, flags) in enumerate(ARMS.items()):
        run = finetune(
            model,
            rows,
            folder / f"arm{number}",
            "--per_device_train_batch_size",
            4,
            "--gradient_accumulation_steps",
            2,
            "--max_seq_length",
            256,
            "--max_train_steps",
            STEPS,
            "--learning_rate",
            "1e-3",
            "--weight_decay",
            "0.1",
            *flags,
        )
        steps = [line for line in metrics(run) if "loss" in line]
        final = weights(run)
        digest = hashlib.sha256()
        for name in sorted(final):
            digest.update(name.encode() + final[name].numpy().tobytes())
        measured[arm] = {
            "losses": [line["loss"] for line in steps],
            "grad_norms": [line["grad_norm"] for line in steps],
            "kl": [line["kl"] for line in steps if "kl" in line],
            "weights_norm": sum(float(weight.double().square().sum()) for weight in final.values()) ** 0.5,
            "weights_sha256": digest.hexdigest(),
        }
    return measured


def largest_difference(
    measured: dict[str, dict[str, Any]], recorded: dict[str, dict[str, Any]]
) -> tuple[float, str]:
    """Return the largest relative difference of any number that both have, and which number it is."""
    worst, where = 0.0, "none"
    for arm in measured.keys() & recorded.keys():
        for part in ("losses", "grad_norms", "kl", "weights_norm"):
            values, expected = (
                x[arm][part] if isinstance(x[arm][part], list) else [x[arm][part]]
                for x in (measured, recorded)
            )
            if len(values) != len(expected):
                return float("inf"), f"{arm}: {part} has {len(values)} values, not {len(expected)}"
            for step, (value, right) in enumerate(zip(values, expected, strict=True), start=1):
                # A KL near 0 is a difference of logarithms near 10, and has their rounding.
                difference = abs(value - right) / max(abs(right), 1e-2)
                if not difference <= worst:
                    worst, where = difference, f"{arm}: {part} of step {step}, {value!r} for {right!r}"
    return worst, where


def problems(measured: dict[str, dict[str, Any]], record: dict[str, Any]) -> list[str]:
    """Return what differs from the record, one line an arm, by the rule that holds on this machine."""
    recorded = record["arms"]
    found = [
        f"{arm}: in only one of measurement and record" for arm in sorted(measured.keys() ^ recorded.keys())
    ]
    if environment() == record["environment"]:
        return found + [
            f"{arm}: not the same bits ({largest_difference({arm: measured[arm]}, recorded)[1]})"
            for arm in measured
            if arm in recorded and measured[arm] != recorded[arm]
        ]
    difference, where = largest_difference(measured, recorded)
    return found + ([f"{difference:.3g} apart: {where}"] if difference > TOLERANCE else [])


def main() -> int:
    """Compare, or renew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--renew", metavar="REASON", help="write the record anew, for this reason")
    reason = parser.parse_args().renew
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder))
    before = json.loads(RECORD.read_text()) if RECORD.exists() else {"arms": {}, "renewals": []}
    if reason:
        difference, where = largest_difference(measured, before["arms"])
        renewals = [*before["renewals"], {"reason": reason, "largest_difference": difference, "where": where}]
        RECORD.write_text(
            json.dumps({"environment": environment(), "arms": measured, "renewals": renewals}, indent=1)
            + "\n"
        )
        print(f"renewed; largest difference from the former record: {difference:.3g} ({where})")
        return 0
    found = problems(measured, before)
    print("\n".join(found) or "every number is the record's")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
