"""The losses of a row's tokens by plain transformers, one row at a time, in the Tülu format."""

from pathlib import Path
from typing import Any

import torch


def row_nlls(folder: Path, row: dict[str, Any]) -> dict[str, list[float]]:
    """The NLLs of a row's tokens by kind: one row at a time, kinds by the place of each token's last
    character."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    text, kinds = "<s>", ["template"] * 3
    for i, message in enumerate(row["messages"]):
        end = "</s>" if message["role"] == "assistant" else ""
        newline = "\n" if i + 1 < len(row["messages"]) else ""
        content = message["content"].strip()
        for part, kind in (
            (f"<|{message['role']}|>\n", "template"),
            (content, message["role"]),
            (end, "end"),
            (newline, "template"),
        ):
            text += part
            kinds += [kind] * len(part)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    with torch.no_grad():
        logs = torch.log_softmax(model(input_ids=ids).logits[0], dim=-1)
    out: dict[str, list[float]] = {}
    for t in range(1, ids.shape[1]):
        kind = kinds[encoded["offset_mapping"][t][1] - 1]
        out.setdefault(kind, []).append(-float(logs[t - 1, ids[0, t]]))
    out["response"] = out["assistant"] + out["end"]
    return out
