"""How far vLLM and transformers agree: the share of identical greedy completions, and how close the call was
where they part.

    python src/compare_engines.py --model_name_or_path models/SmolLM2-135M-Instruct --eval_file
    data/sample/brief_answers_test.jsonl

Both complete the same prompt ids with the same stops. Where two completions differ, the model's logits at the
first differing token say how much the token that one engine took was ahead of the other's: rounding explains
gaps of about 1e-3 in float32; larger ones mean that something else differs."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.generation.engine import EngineOptions

if TYPE_CHECKING:
    from instruction_modelling.generation.engine import Completion, Engine, Request


@dataclass
class CompareOptions(EngineOptions):
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
        """Every problem of the options, in words."""
        return self.engine_problems() + [
            f"--{name} must be 1 or more"
            for name in ("num_rows", "max_new_tokens")
            if getattr(self, name) < 1
        ]


def main() -> int:
    """Completes with both, compares, reports."""
    options = parse_options(CompareOptions)
    from dataclasses import replace

    from instruction_modelling.generation.engine import Request, Sampling, open_engine
    from instruction_modelling.generation.responder import split_reference
    from instruction_modelling.rows.conversations import read_conversations
    from instruction_modelling.runs.folder import write_aside

    if options.dtype == "auto":
        options.dtype = "float32"
    rows = read_conversations(options.eval_file).conversations[: options.num_rows]
    if not rows:
        raise UserError(f"--eval_file {options.eval_file}: has no usable rows")
    done: dict[str, dict[str, Completion]] = {}
    requests: list[Request] = []
    for use_vllm in (True, False):
        with open_engine(replace(options, use_vllm=use_vllm)) as engine:
            requests = [
                Request(
                    str(row.row),
                    engine.chat_ids(
                        [
                            {"role": message.role, "content": message.content}
                            for message in split_reference(row)[0].messages
                        ]
                    ),
                )
                for row in rows
            ]
            done[engine.name] = {
                one.key: one for one in engine.complete(requests, Sampling(options.max_new_tokens))
            }
            if not use_vllm:
                found = [
                    part
                    for request in requests
                    if (
                        part := parting(
                            engine, request, done["vllm"][request.key], done["transformers"][request.key]
                        )
                    )
                ]
    same = len(requests) - len(found)
    result = {
        "model": options.model_name_or_path,
        "dtype": options.dtype,
        "rows": len(requests),
        "max_new_tokens": options.max_new_tokens,
        "identical": same,
        "share": same / len(requests),
        "differ": found,
    }
    print(
        f"{same} of {len(requests)} greedy completions are identical ({result['share']:.1%}), "
        f"{options.dtype}, up to {options.max_new_tokens} tokens"
    )
    for part in found:
        print(
            f"  row {part['row']}: part at token {part['token']}: {part['transformers']!r} was "
            f"{part['gap']:.2g} ahead of {part['vllm']!r}"
        )
    if options.json:
        write_aside(Path(options.json), json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return 0


def parting(
    engine: "Engine", request: "Request", one: "Completion", other: "Completion"
) -> dict[str, Any] | None:
    """Where two completions of a request part, and the logits' gap there; None where they do not."""
    import torch

    if one.text == other.text:
        return None
    ids = [
        engine.tokenizer(completion.text, add_special_tokens=False)["input_ids"]
        for completion in (one, other)
    ]
    place = next((at for at, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), min(map(len, ids)))
    model = engine._model  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = (
            model(torch.tensor([request.ids + ids[1][:place]], device=model.device), use_cache=False)
            .logits[0, -1]
            .float()
        )
    # A completion that has ended took an end token.
    end = max(engine.end_ids, key=lambda token: float(logits[token]))
    taken = [own[place] if place < len(own) else end for own in ids]
    return {
        "row": request.key,
        "token": place,
        "vllm": str(engine.tokenizer.decode([taken[0]])),
        "transformers": str(engine.tokenizer.decode([taken[1]])),
        "gap": float(logits[taken[1]] - logits[taken[0]]),
    }


if __name__ == "__main__":
    run_main(main)
