"""A model's responses to the instructions of a file.

    python src/generate.py --model_name_or_path output/it --eval_file data/sample/brief_answers_test.jsonl \\
        --output_dir output/it/eval/test

A row's prompt is everything before its last assistant message, rendered and encoded as in training; that
message is the reference. A row that ends with another role is a prompt as a whole and has no reference. A
response ends at the chat format's end token or one of the model's own; nothing else of the model's generation
config is used.

Writes responses.jsonl, a line per row, and generation.json, how they were made. A stopped run goes on where
it was when the same command is given again. Runs on the GPU if there is one, else on the CPU. """

import logging
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main

if TYPE_CHECKING:
    import torch

    from instruction_modelling.chat.formats import ChatFormat
    from instruction_modelling.generation.responder import Decoding, Prompt
    from instruction_modelling.generation.responses import Response, ResponseWriter
    from instruction_modelling.rows.conversations import ConversationFile

logger = logging.getLogger("generate")


@dataclass
class GenerateOptions:
    """Options."""

    model_name_or_path: str
    """Folder or hub name of the model."""
    eval_file: str
    """JSON Lines (or one JSON array) of conversations, in any shape that training takes."""
    output_dir: str
    """Where responses.jsonl and generation.json go; a run's own place is RUN/eval/train or RUN/eval/test."""
    tokenizer_name: str | None = None
    """Folder or hub name of the tokenizer (default: the model's)."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template if it has one, else tulu), tulu, tokenizer, or a Jinja file."""
    max_seq_length: int = 2048
    """Tokens a prompt may have, BOS counted; a row with more cannot be used, and is never cut."""
    max_new_tokens: int = 256
    """Tokens a response may have, its end token counted."""
    temperature: float = 0.0
    """0 takes the most likely token; above 0, tokens are drawn, and the same --seed draws the same ones."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens whose probability reaches this."""
    seed: int = 0
    """With the row's number, decides what is drawn."""
    num_rows: int | None = None
    """The first rows of the file only (default: all)."""
    batch_size: int = 16
    """Prompts answered at once; halved where memory runs out."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights (default: bfloat16 on a GPU that has it, else float32)."""
    use_vllm: bool = False
    """Answer with vLLM, in its own environment (bash scripts/setup_vllm.sh), instead of transformers."""
    max_bad_rows: int = 0
    """Rows that may be unusable, too long ones included, before the run stops; each is listed with its
    reason."""
    overwrite_output: bool = False
    """Replace the responses of another run in --output_dir."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = [
            f"--{name} {getattr(self, name)}: must be 1 or more"
            for name in ("max_seq_length", "max_new_tokens", "num_rows", "batch_size")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        problems += [
            f"--{name} {getattr(self, name)}: must be 0 or more"
            for name in ("seed", "max_bad_rows")
            if getattr(self, name) < 0
        ]
        if not 0 <= self.temperature < float("inf"):
            problems.append(f"--temperature {self.temperature}: must be a finite number, 0 or more")
        if not 0 < self.top_p <= 1:
            problems.append(f"--top_p {self.top_p}: must be above 0 and at most 1")
        elif self.top_p < 1 and self.temperature == 0:
            problems.append(
                f"--top_p {self.top_p} does nothing at --temperature 0: give a temperature or leave it out"
            )
        return problems


def main() -> int:
    """Options, prompts, responses, files."""
    options = parse_options(GenerateOptions)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        generate(options)
    except KeyboardInterrupt:
        logger.info(
            "stopped; the answers so far are kept in %s: the same command goes on from there",
            options.output_dir,
        )
        return 130
    return 0


def generate(options: GenerateOptions) -> "list[Response]":
    """Answers the file's rows that have no answer yet, and writes them all; gives the responses in row
    order."""
    from instruction_modelling.chat.formats import load_chat_format
    from instruction_modelling.generation.responder import (
        Decoding,
        end_token_ids,
        model_limits,
        model_state,
        prompts_sha256,
    )
    from instruction_modelling.generation.responses import ResponseWriter
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.rows.conversations import read_conversations

    file = first_rows(read_conversations(options.eval_file), options.num_rows)
    model_ends, positions = model_limits(options.model_name_or_path)
    tokenizer = load_tokenizer(options.tokenizer_name or options.model_name_or_path)
    chat_format = load_chat_format(options.chat_format, tokenizer)
    prompts, left_out = usable_prompts(options, file, chat_format, tokenizer, positions)
    end_ids = end_token_ids(tokenizer, chat_format.end_strings, model_ends)
    device, dtype = place(options.dtype)
    decoding = Decoding(options.max_new_tokens, options.temperature, options.top_p, options.seed)
    writer = ResponseWriter(
        Path(options.output_dir),
        {
            "model": options.model_name_or_path,
            "model_state": model_state(options.model_name_or_path),
            "sha256": file.sha256,
            "num_rows": options.num_rows,
            "chat_format": chat_format.name,
            "max_new_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "dtype": str(dtype).removeprefix("torch."),
            "end_tokens": [tokenizer.convert_ids_to_tokens(id_) for id_ in end_ids],
            "prompts_sha256": prompts_sha256(prompts),
            **({"engine": "vllm"} if options.use_vllm else {}),
        },
    )
    answered = writer.open({prompt.row for prompt in prompts}, options.overwrite_output)
    waiting = [prompt for prompt in prompts if prompt.row not in answered]
    if answered:
        logger.info("%d of %d rows are answered already", len(answered), len(prompts))
    how = answer_with_vllm if options.use_vllm else answer
    seconds = how(options, waiting, tokenizer, end_ids, decoding, device, dtype, writer) if waiting else 0.0
    responses = writer.finish(
        {
            "file": options.eval_file,
            "tokenizer": options.tokenizer_name or options.model_name_or_path,
            "max_seq_length": options.max_seq_length,
            "rows": len(prompts),
            "rows_answered_before": len(answered),
            "seconds": round(seconds, 3),
            "batch_size": options.batch_size,
            "device": str(device),
            "left_out": dict(Counter(b["reason"] for b in left_out)),
            "rows_left_out": left_out,
            "versions": versions(),
        }
    )
    report(responses, Path(options.output_dir), seconds)
    return responses


def first_rows(file: "ConversationFile", count: int | None) -> "ConversationFile":
    """The file with its first `count` rows only."""
    if count is None:
        return file
    return replace(
        file,
        conversations=[c for c in file.conversations if c.row < count],
        bad_rows=[bad for bad in file.bad_rows if bad.row < count],
    )


def usable_prompts(
    options: GenerateOptions,
    file: "ConversationFile",
    chat_format: "ChatFormat",
    tokenizer: Any,
    positions: int | None,
) -> "tuple[list[Prompt], list[dict[str, Any]]]":
    """The rows' prompts, and which rows were left out; stops where more than --max_bad_rows were."""
    from instruction_modelling.generation.responder import make_prompts
    from instruction_modelling.rows.conversations import check_bad_rows
    from instruction_modelling.tokens.encoder import TextEncoder

    prompts, refused = make_prompts(
        file.conversations,
        chat_format,
        TextEncoder(tokenizer),
        options.max_seq_length,
        options.max_new_tokens,
        positions,
    )
    check_bad_rows(file, options.max_bad_rows, refused)
    bad = sorted([*file.bad_rows, *refused], key=lambda row: row.row)
    for row in bad:
        logger.warning("%s: left out: %s: %s", row.where(file.path), row.reason, row.detail)
    return prompts, [
        {"row": b.row, "line": b.line, "id": b.id, "reason": b.reason, "detail": b.detail} for b in bad
    ]


def place(dtype: str | None) -> "tuple[torch.device, torch.dtype]":
    """The device to run on and the number format of the weights there."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        dtype = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return device, getattr(torch, dtype)


def answer(
    options: GenerateOptions,
    prompts: "list[Prompt]",
    tokenizer: Any,
    end_ids: list[int],
    decoding: "Decoding",
    device: "torch.device",
    dtype: "torch.dtype",
    writer: "ResponseWriter",
) -> float:
    """Loads the model and answers the prompts, batch by batch, into the writer; gives the seconds of
    answering."""
    from instruction_modelling.generation.responder import Responder
    from instruction_modelling.models.loading import load_model
    from instruction_modelling.progress import Progress

    model = load_model(options.model_name_or_path, dtype).to(device)  # type: ignore[arg-type]
    responder = Responder(model, tokenizer, end_ids, decoding)
    responder.check_vocabulary(prompts)
    progress = Progress(len(prompts), "rows")

    def warn(message: str) -> None:
        progress.break_line()
        logger.warning(message)

    for batch in responder.answer_all(prompts, options.batch_size, warn):
        writer.append(batch)
        progress.add(len(batch))
    return progress.seconds


def answer_with_vllm(
    options: GenerateOptions,
    prompts: "list[Prompt]",
    tokenizer: Any,
    end_ids: list[int],
    decoding: "Decoding",
    device: "torch.device",
    dtype: "torch.dtype",
    writer: "ResponseWriter",
) -> float:
    """As `answer`, by vLLM."""
    from instruction_modelling.generation.engine import EngineOptions, Request, Sampling
    from instruction_modelling.generation.responder import model_limits, response_of
    from instruction_modelling.generation.vllm_engine import VllmEngine
    from instruction_modelling.progress import Progress

    _, positions = model_limits(options.model_name_or_path)
    named = str(dtype).removeprefix("torch.")
    asked = EngineOptions(
        model_name_or_path=options.model_name_or_path,
        tokenizer_name_or_path=options.tokenizer_name,
        dtype="bfloat16" if named == "bfloat16" else "float32",
    )
    progress, by_row = Progress(len(prompts), "rows"), {str(prompt.row): prompt for prompt in prompts}
    with VllmEngine(asked, tokenizer, end_ids, positions) as engine:
        requests = [Request(str(prompt.row), prompt.ids, decoding.seed) for prompt in prompts]
        for one in engine.complete(
            requests, Sampling(decoding.max_new_tokens, decoding.temperature, decoding.top_p)
        ):
            writer.append([response_of(by_row[one.key], one.text, one.tokens, one.stopped)])
            progress.add(1)
    return progress.seconds


def versions() -> dict[str, str]:
    """What the responses were made with."""
    import platform

    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def report(responses: "list[Response]", folder: Path, seconds: float) -> None:
    """Says in a few words what was made."""
    from instruction_modelling.generation.responses import RESPONSES
    from instruction_modelling.progress import duration

    tokens = sum(response.tokens or 0 for response in responses)
    ended = sum(bool(response.finished) for response in responses)
    logger.info(
        "%d responses in %s: %d ended by themselves, %.1f tokens on average, %s",
        len(responses),
        folder / RESPONSES,
        ended,
        tokens / max(1, len(responses)),
        duration(seconds),
    )


if __name__ == "__main__":
    run_main(main)
