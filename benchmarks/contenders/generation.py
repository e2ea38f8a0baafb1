"""Answers to prompts, greedily."""

from pathlib import Path
from typing import Any

from benchmarks.gate import Gate, repeat
from benchmarks.work import Work

PROMPTS = 32


def ours(gate: Gate, work: Work) -> None:
    """Answer by the engine that src/generate.py and the benchmarks use, with the batch size of its
    own, in float32; a turn is all prompts."""
    from instruction_modelling.generation.base import EngineOptions, Request, Sampling
    from instruction_modelling.generation.engine import open_engine

    engine = open_engine(EngineOptions(model_name_or_path=work.model, dtype="float32"))
    prompts = [engine.chat_ids(messages) for messages in prompt_messages(work)]
    requests = [Request(str(number), ids) for number, ids in enumerate(prompts)]
    sampling = Sampling(max_new_tokens=new_tokens(work))

    def once(name: str) -> dict[str, Any]:
        return {"new_tokens": sum(answer.tokens for answer in engine.complete(requests, sampling))}

    repeat(gate, once)


def plain(gate: Gate, work: Work) -> None:
    """Answer the same prompts with transformers' generate, in batches by length, padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from instruction_modelling.generation.base import EngineOptions
    from instruction_modelling.generation.engine import open_engine

    engine = open_engine(EngineOptions(model_name_or_path=work.model, dtype="float32"))
    prompts = sorted((engine.chat_ids(messages) for messages in prompt_messages(work)), key=len, reverse=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    model = model.to(device).eval()
    pad = min(engine.end_ids)
    config = GenerationConfig(
        max_new_tokens=new_tokens(work), do_sample=False, eos_token_id=engine.end_ids, pad_token_id=pad
    )

    @torch.no_grad()
    def once(name: str) -> dict[str, Any]:
        size = work.settings["contenders"][name]["size"]
        count = 0
        for start in range(0, len(prompts), size):
            group = prompts[start : start + size]
            width = max(map(len, group))
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in group], device=device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in group], device=device)
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            count += sum(answer_length(row, engine.end_ids) for row in output[:, width:].tolist())
        return {"new_tokens": count}

    repeat(gate, once)


def answer_length(new: list[int], ends: list[int]) -> int:
    """Return how many of the new tokens belong to the answer, its end counted."""
    return next((number for number, id_ in enumerate(new, start=1) if id_ in ends), len(new))


def new_tokens(work: Work) -> int:
    """Return the most tokens of an answer."""
    return 32 if work.quick else 64


def prompt_messages(work: Work) -> list[list[dict[str, str]]]:
    """Return the first prompts of the file of long rows that are not long themselves."""
    from instruction_modelling.rows.conversations import read_conversations

    first = [c.messages[0] for c in read_conversations(Path(work.settings["long"])).conversations]
    short = [message for message in first if len(message.content) < 1000]
    return [[{"role": message.role, "content": message.content}] for message in short[:PROMPTS]]
