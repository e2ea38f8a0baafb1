"""How far vLLM and transformers agree: the share of identical greedy completions, and how close the call was
where they part.

    python src/compare_engines.py --model_name_or_path models/SmolLM2-135M-Instruct --eval_file
    data/sample/brief_answers_test.jsonl

Both complete the same prompt ids with the same stops. Where two completions differ, the model's logits at the
first differing token say how much the token that one engine took was ahead of the other's: rounding explains
gaps of about 1e-3 in float32; larger ones mean that something else differs."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.generation.base import EngineOptions, Request, Sampling

if TYPE_CHECKING:
    from instruction_modelling.generation.base import Completion
    from instruction_modelling.generation.transformers_engine import TransformersEngine


@dataclass
class EngineComparisonOptions(EngineOptions):
    """Comparison."""

    eval_file: str = "data/sample/brief_answers_test.jsonl"
    """Conversations whose prompts are completed."""
    num_rows: int = 32
    """The first rows of the file."""
    max_new_tokens: int = 64
    """Tokens a completion may have."""
    json: str | None = None
    """Write what was found to this file."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        return self.engine_problems() + [
            f"--{name} must be 1 or more"
            for name in ("num_rows", "max_new_tokens")
            if getattr(self, name) < 1
        ]


def main() -> int:
    """Complete the prompts with both engines, compare the completions, and report."""
    options = parse_options(EngineComparisonOptions)
    from instruction_modelling.files.whole import write_json

    if options.dtype == "auto":
        options.dtype = "float32"
    result = compare_engines(options)
    print(
        f"{result['identical']} of {result['rows']} greedy completions are identical "
        f"({result['share']:.1%}), {options.dtype}, up to {options.max_new_tokens} tokens"
    )
    for parting in result["differ"]:
        print(
            f"  row {parting['row']}: part at token {parting['token']}: {parting['transformers']!r} was "
            f"{parting['gap']:.2g} ahead of {parting['vllm']!r}"
        )
    if options.json:
        write_json(Path(options.json), result)
    sys.stdout.flush()
    return 0


def compare_engines(options: EngineComparisonOptions) -> dict[str, Any]:
    """Return how many completions are identical, and where and how closely the others part."""
    from instruction_modelling.generation.engine import open_engine
    from instruction_modelling.generation.prompts import split_reference
    from instruction_modelling.generation.transformers_engine import TransformersEngine
    from instruction_modelling.rows.conversations import read_conversations

    rows = read_conversations(options.eval_file).conversations[: options.num_rows]
    if not rows:
        raise UserError(f"--eval_file {options.eval_file}: has no usable rows")
    sampling = Sampling(options.max_new_tokens)
    with open_engine(replace(options, use_vllm=True)) as vllm:
        requests = [
            Request(
                str(row.row),
                vllm.chat_ids(
                    [
                        {"role": message.role, "content": message.content}
                        for message in split_reference(row)[0].messages
                    ]
                ),
            )
            for row in rows
        ]
        by_vllm = {completion.key: completion for completion in vllm.complete(requests, sampling)}
    with open_engine(replace(options, use_vllm=False)) as engine:
        assert isinstance(engine, TransformersEngine)
        here = {completion.key: completion for completion in engine.complete(requests, sampling)}
        partings = [
            parting
            for request in requests
            if (parting := find_parting(engine, request, by_vllm[request.key], here[request.key]))
        ]
    identical = len(requests) - len(partings)
    return {
        "model": options.model_name_or_path,
        "dtype": options.dtype,
        "rows": len(requests),
        "max_new_tokens": options.max_new_tokens,
        "identical": identical,
        "share": identical / len(requests),
        "differ": partings,
    }


def find_parting(
    engine: "TransformersEngine", request: Request, by_vllm: "Completion", here: "Completion"
) -> dict[str, Any] | None:
    """Return where two completions of a request part, and the logits' gap there; None where they do not."""
    import torch

    if by_vllm.text == here.text:
        return None
    ids = [
        engine.tokenizer(completion.text, add_special_tokens=False)["input_ids"]
        for completion in (by_vllm, here)
    ]
    index = next((k for k, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), min(map(len, ids)))
    prompt = torch.tensor([request.ids + ids[1][:index]], device=engine.model.device)
    with torch.no_grad():
        logits = engine.model(prompt, use_cache=False).logits[0, -1].float()
    # A completion that has ended took an end token.
    end = max(engine.end_ids, key=lambda token: float(logits[token]))
    taken = [tokens[index] if index < len(tokens) else end for tokens in ids]
    return {
        "row": request.key,
        "token": index,
        "vllm": str(engine.tokenizer.decode([taken[0]])),
        "transformers": str(engine.tokenizer.decode([taken[1]])),
        "gap": float(logits[taken[1]] - logits[taken[0]]),
    }


if __name__ == "__main__":
    run_main(main)
