"""litgpt's model, loss and precision in the steps of its full finetuning (`litgpt.finetune.full.fit`)."""

from typing import Any

from benchmarks.contenders.plain_loop import micro_batches, padded
from benchmarks.counts import add_counts, count_batch
from benchmarks.gate import Gate, repeat
from benchmarks.work import Work


def train(gate: Gate, work: Work) -> None:
    """Train on the prepared tokens, padded as litgpt pads them; a turn is an update."""
    import torch
    from lightning.fabric import Fabric
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    (own,) = work.settings["contenders"].values()
    precision = "bf16-mixed" if work.settings["precision"] == "bf16" else "32-true"
    fabric = Fabric(devices=1, precision=precision)
    rows, hub = work.tokens(), hub_model(work.model)
    model: Any = GPT(litgpt_config(hub.config, work.max_seq_length))
    model.load_state_dict(converted(hub, model.config), strict=True)
    # Head and embeddings are one weight there too, where they are in the model.
    if hub.config.tie_word_embeddings:
        model.lm_head.weight = model.transformer.wte.weight
    del hub
    model = fabric.setup_module(model)
    model.max_seq_length = max(len(row["input_ids"]) for row in rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, betas=(0.9, 0.98), eps=1e-6, fused=True)
    optimizer = fabric.setup_optimizers(optimizer)
    steps = 0

    def once(name: str) -> dict[str, Any]:
        nonlocal steps
        start = steps * work.examples % len(rows)
        steps += 1
        groups = micro_batches(rows[start : start + work.examples], own["size"])
        losses, counts = [], []
        for group in groups:
            batch = padded(group)
            counts.append(count_batch(batch["labels"], batch["attention_mask"]))
            logits = model(batch["input_ids"].to(fabric.device))
            loss = chunked_cross_entropy(logits[..., :-1, :], batch["labels"][..., 1:].to(fabric.device))
            fabric.backward(loss / len(groups))
            losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": sum(losses) / len(losses), **add_counts(counts)}

    repeat(gate, once)


def hub_model(name: str) -> Any:
    """Return the model as transformers has it, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)


def litgpt_config(config: Any, length: int) -> Any:
    """Return litgpt's configuration of a Llama model."""
    from litgpt.config import Config

    return Config(
        name="llama",
        block_size=max(length, config.max_position_embeddings),
        vocab_size=config.vocab_size,
        padded_vocab_size=config.vocab_size,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_query_groups=config.num_key_value_heads,
        n_embd=config.hidden_size,
        head_size=config.head_dim,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=config.rms_norm_eps,
        mlp_class_name="LLaMAMLP",
        intermediate_size=config.intermediate_size,
        rope_base=int(config.rope_parameters["rope_theta"]),
    )


def converted(hub: Any, config: Any) -> dict[str, Any]:
    """Return transformers' weights under litgpt's names, by its own conversion."""
    import torch
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama

    weights: dict[str, Any] = {}
    copy_weights_hf_llama(config, {}, weights, dict(hub.state_dict()))
    for layer in range(config.n_layer):
        name = f"model.layers.{layer}.self_attn."
        parts = [hub.state_dict()[f"{name}{one}_proj.weight"] for one in "qkv"]
        weights[f"transformer.h.{layer}.attn.qkv.weight"] = torch.cat(parts)
    return weights
