"""Tiny models that learn a few chats by heart, and what transformers alone makes of the folder they leave."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from template_toys import toy_tokenizer
from training_runs import finetune, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

# More than any turn of these chats has.
MANY = 150


def learn_by_heart(  # noqa: PLR0913 (what differs between the tests that train)
    folder: Path,
    templates: str | dict[str, str],
    rows: list[dict[str, Any]],
    variables: Mapping[str, Any] | None = None,
    steps: int = 100,
    flags: Sequence[object] = (),
) -> Path:
    """Train a new model on rows, by src/finetune.py, until it knows them; return the run's folder.

    Its tokenizer has the signs of the templates, and words of what they write as tokens, so that sequences
    stay short.

    Args:
        templates: of the tokenizer: one, or several by name.
        variables: --chat_template_kwargs.
        flags: further ones of src/finetune.py.
    """
    bytes_only, given = toy_tokenizer(templates), dict(variables or {})
    texts = [
        bytes_only.apply_chat_template(
            deepcopy(row["messages"]), tools=row.get("tools"), tokenize=False, **given
        )
        for row in rows
    ]
    tokenizer = toy_tokenizer(templates, tuple(map(str, texts)), 1200)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    arguments: list[object] = ["--max_train_steps", steps, "--per_device_train_batch_size", len(rows)]
    arguments += ["--gradient_accumulation_steps", 1, "--learning_rate", 5e-3, "--max_seq_length", 4096]
    arguments += ["--lr_scheduler_type", "linear", "--warmup_ratio", 0.1, *flags]
    if variables:
        arguments += ["--chat_template_kwargs", json.dumps(given)]
    return finetune(folder / "model", write_rows(folder / "rows.jsonl", rows), folder / "run", *arguments)


@dataclass
class Reopened:
    """A model as transformers opens it, with nothing but the files of its folder."""

    model: Any
    tokenizer: Any

    @classmethod
    def from_folder(cls, folder: Path) -> "Reopened":
        """Return the model of a folder."""
        return cls(AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))

    def stops(self) -> set[str]:
        """Return the tokens with which it stops, of its generation config."""
        ends = self.model.generation_config.eos_token_id
        return set(self.tokenizer.convert_ids_to_tokens([ends] if isinstance(ends, int) else ends))

    @torch.no_grad()
    def answer(self, messages: list[dict[str, Any]], tools: list[Any] | None = None) -> list[int]:
        """Return the ids that it writes when it is asked with these messages."""
        asked = self.tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        written = self.model.generate(**asked, max_new_tokens=MANY)
        return written[0, asked["input_ids"].shape[1] :].tolist()
