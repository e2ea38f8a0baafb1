"""Run by the Python of vLLM's environment: completes the requests that come on standard input. Imports
nothing of the project."""

import hashlib
import json
import os
import sys
from typing import Any

# What others print to standard output must not mix with the messages.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(message: dict[str, Any]) -> None:
    """Send a message to the process that started this one."""
    ANSWERS.write(json.dumps({"vllm_worker": message}) + "\n")
    ANSWERS.flush()


def memory_share() -> float:
    """Return the share of the memory that vLLM may take: 0.9 of a GPU (vLLM's usual one), on a CPU half of
    what is free."""
    import torch

    if torch.cuda.is_available():
        return 0.9
    with open("/proc/meminfo", encoding="ascii") as handle:
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in handle}
    return max(0.05, 0.5 * sizes["MemAvailable"] / sizes["MemTotal"])


def main() -> None:
    """Load the model, then serve requests until no more come."""
    settings = json.loads(sys.stdin.readline())
    try:
        from vllm import LLM

        model = LLM(
            model=settings["model"],
            tokenizer=settings["tokenizer"],
            dtype=settings["dtype"],
            max_model_len=settings["max_model_len"],
            generation_config="vllm",
            enable_prefix_caching=True,
            seed=0,
            gpu_memory_utilization=memory_share(),
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else ""
        say({"error": f"{type(error).__name__}: {reason}"})
        return
    say({"ready": True})
    for line in sys.stdin:
        try:
            complete(model.llm_engine, json.loads(line), settings["max_model_len"])
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})
            return


def complete(engine: Any, work: dict[str, Any], position_limit: int | None) -> None:
    """Complete the requests of a message, and say each completion as it is finished.

    Args:
        engine: vLLM's.
        work: {"requests", "sampling", "end_ids"}.
        position_limit: the most tokens of prompt and completion; None for no limit.
    """
    from vllm import SamplingParams, TokensPrompt

    sampling, ends = work["sampling"], set(work["end_ids"])
    under_way: dict[str, tuple[str, int]] = {}
    for request in work["requests"]:
        limit = sampling["max_new_tokens"]
        if position_limit:
            limit = min(limit, position_limit - len(request["ids"]))
        for sample in range(sampling["samples"]):
            name = f"{len(under_way)}"
            under_way[name] = (request["key"], sample)
            draw = hashlib.sha256(f"{request['seed']} {sample} {request['key']}".encode()).digest()
            engine.add_request(
                name,
                TokensPrompt(prompt_token_ids=request["ids"]),
                SamplingParams(
                    temperature=sampling["temperature"],
                    top_p=sampling["top_p"],
                    seed=int.from_bytes(draw[:4], "big"),
                    max_tokens=limit,
                    stop=list(sampling["stop"]) or None,
                    stop_token_ids=sorted(ends),
                    ignore_eos=True,
                    include_stop_str_in_output=True,
                ),
            )
    while engine.has_unfinished_requests():
        for output in engine.step():
            if not output.finished:
                continue
            key, sample = under_way[output.request_id.split("-")[0]]
            ids = list(output.outputs[0].token_ids)
            end = next((index for index, token in enumerate(ids) if token in ends), None)
            say(
                {
                    "key": key,
                    "sample": sample,
                    "ids": ids[:end],
                    "tokens": len(ids) if end is None else end + 1,
                    "stopped": end is not None,
                }
            )


if __name__ == "__main__":
    main()
