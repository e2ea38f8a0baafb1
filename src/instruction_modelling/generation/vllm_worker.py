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
    """Sends a message."""
    ANSWERS.write(json.dumps({"vllm_worker": message}) + "\n")
    ANSWERS.flush()


def memory_share() -> float:
    """The share of the memory that vLLM may take: of a GPU its usual one, on a CPU half of what nobody else
    uses."""
    import torch

    if torch.cuda.is_available():
        return 0.9
    with open("/proc/meminfo", encoding="ascii") as handle:
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in handle}
    return max(0.05, 0.5 * sizes["MemAvailable"] / sizes["MemTotal"])


def main() -> None:
    """Loads the model, then serves requests until no more come."""
    settings = json.loads(sys.stdin.readline())
    try:
        from vllm import LLM, SamplingParams, TokensPrompt

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
        say(
            {
                "error": f"{type(error).__name__}: "
                f"{str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
            }
        )
        return
    say({"ready": True})
    for line in sys.stdin:
        work = json.loads(line)
        sampling, ends = work["sampling"], set(work["end_ids"])
        engine = model.llm_engine
        under_way: dict[str, tuple[str, int]] = {}
        try:
            for request in work["requests"]:
                for sample in range(sampling["samples"]):
                    name = f"{len(under_way)}"
                    under_way[name] = (request["key"], sample)
                    room = (
                        settings["max_model_len"] - len(request["ids"])
                        if settings["max_model_len"]
                        else sampling["max_new_tokens"]
                    )
                    draws = hashlib.sha256(f"{request['seed']} {sample} {request['key']}".encode()).digest()[
                        :4
                    ]
                    engine.add_request(
                        name,
                        TokensPrompt(prompt_token_ids=request["ids"]),
                        SamplingParams(
                            temperature=sampling["temperature"],
                            top_p=sampling["top_p"],
                            seed=int.from_bytes(draws, "big"),
                            max_tokens=min(sampling["max_new_tokens"], room),
                            stop=list(sampling["stop"]) or None,
                            stop_token_ids=sorted(ends),
                            ignore_eos=True,
                            include_stop_str_in_output=True,
                        ),
                    )
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        key, sample = under_way[output.request_id.split("-")[0]]
                        ids = list(output.outputs[0].token_ids)
                        end = next((place for place, token in enumerate(ids) if token in ends), None)
                        say(
                            {
                                "key": key,
                                "sample": sample,
                                "ids": ids[:end],
                                "tokens": len(ids) if end is None else end + 1,
                                "stopped": end is not None,
                            }
                        )
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})
            return


if __name__ == "__main__":
    main()
