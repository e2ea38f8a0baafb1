"""The responses of a model to the rows of a file, in a folder that a stopped run goes on in.

While a run is under way, completions are in `responses.part.jsonl` in the order they came, and
`generation.json` beside it says how they are made; at the end `responses.jsonl` has them all."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.files.stamps import Stamp, differing, plain, read_stamp
from instruction_modelling.files.whole import write_json, write_json_lines
from instruction_modelling.generation.answers import AnswerFile
from instruction_modelling.generation.base import Completion, Engine, EngineOptions, Request, Sampling
from instruction_modelling.generation.engine import complete_missing, open_engine
from instruction_modelling.generation.prompts import (
    TOO_LONG,
    PromptLimits,
    RowPrompt,
    make_prompts,
    prompts_sha256,
)
from instruction_modelling.generation.responses import RESPONSES, Response, response_from
from instruction_modelling.rows.conversations import (
    ConversationFile,
    bad_row_lines,
    check_bad_rows,
    read_conversations,
)
from instruction_modelling.rows.files import file_in
from instruction_modelling.rows.json_lines import read_appended, snippet
from instruction_modelling.runs.environment import versions

PART, GENERATION = "responses.part.jsonl", "generation.json"

logger = logging.getLogger(__name__)


@dataclass
class GenerateOptions:
    """Options."""

    model_name_or_path: str = field(metadata={"input": "model"})
    """Folder or hub name of the model."""
    eval_file: str = field(metadata={"input": "rows", "also": ("data_path",)})
    """Conversations, in any file and shape that training takes."""
    output_dir: str = field(metadata={"input": "output", "also": ("save_dir",)})
    """Where responses.jsonl and generation.json go; a run's own place is RUN/eval/train or RUN/eval/test."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    data_dir: str | None = None
    """Folder of the file, named without .jsonl then: the authors' --data_dir and --data_path."""
    tokenizer_name: str | None = field(
        default=None, metadata={"input": "model", "also": ("tokenizer_name_or_path",)}
    )
    """Folder or hub name of the tokenizer (default: the model's)."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template if it has one, else tulu), tulu, tokenizer, or a Jinja file."""
    speaker: Literal["assistant", "user"] = "assistant"
    """user: write each row's last user message from what stands before it, as a user simulator does."""
    max_seq_length: int = 2048
    """Tokens a prompt may have, BOS counted; a longer one is never cut: its row is left out, and counted."""
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
    batch_size: int = field(default=32, metadata={"also": ("eval_batch_size",)})
    """Prompts answered at once; halved where memory runs out."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights (default: bfloat16 on a GPU that has it, else float32)."""
    use_vllm: bool = False
    """Answer with vLLM, in its own environment (bash scripts/setup_vllm.sh), instead of transformers."""
    max_bad_rows: int = 0
    """Rows that may be unusable before the run stops; each is listed with its reason. Prompts that are too
    long are left out in any case."""
    overwrite_output: bool = False
    """Replace the responses of another run in --output_dir."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
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

    def engine_options(self, dtype: Literal["float32", "bfloat16"]) -> EngineOptions:
        """Return what the engine is to be, its weights of this number format."""
        return EngineOptions(
            model_name_or_path=self.model_name_or_path,
            tokenizer_name_or_path=self.tokenizer_name,
            use_vllm=self.use_vllm,
            chat_format=self.chat_format,
            dtype=dtype,
            eval_batch_size=self.batch_size,
        )


def respond(options: GenerateOptions) -> tuple[list[Response], float]:
    """Answer the file's rows that have no answer yet, write all answers, and return the responses in row
    order and the seconds that answering took.

    Raises:
        UserError: the file, the model or the folder cannot be used, or the folder holds another run.
    """
    from instruction_modelling.generation.transformers_engine import device_and_dtype

    file = _first_rows(
        read_conversations(file_in(options.data_dir, options.eval_file), options.columns), options.num_rows
    )
    device, dtype = device_and_dtype(options.dtype)
    named: Any = str(dtype).removeprefix("torch.")
    with open_engine(options.engine_options(named)) as engine:
        if options.speaker == "user":
            engine.speak_as_user()
        prompts, left_out = _usable_prompts(options, file, engine)
        identity = _identity(options, file, prompts, engine)
        folder = Path(options.output_dir)
        before = _responses_before(folder, identity, prompts, options.overwrite_output)
        description = {"model": options.model_name_or_path, **identity}
        # Before any answer, so that no answer is ever beside the description of another run.
        write_json(folder / GENERATION, {**description, "complete": False})
        answers = AnswerFile(folder / PART, identity)
        for completion in before:
            answers.add(completion)
        answered = len(answers.completions)
        if answered:
            logger.info("%d of %d rows are answered already", answered, len(prompts))
        requests = [Request(str(prompt.row), prompt.ids, options.seed) for prompt in prompts]
        sampling = Sampling(options.max_new_tokens, options.temperature, options.top_p)
        seconds = complete_missing(engine, requests, sampling, answers, "rows")
    completions = {completion.key: completion for completion in answers.completions}
    responses = [response_of(prompt, completions[str(prompt.row)]) for prompt in prompts]
    facts = {
        "file": options.eval_file,
        "tokenizer": options.tokenizer_name or options.model_name_or_path,
        "max_seq_length": options.max_seq_length,
        "rows": len(prompts),
        "rows_answered_before": answered,
        "seconds": round(seconds, 3),
        "batch_size": options.batch_size,
        "device": str(device),
        "left_out": dict(Counter(row["reason"] for row in left_out)),
        "rows_left_out": left_out,
        "versions": versions(),
    }
    write_json_lines(folder / RESPONSES, map(asdict, responses))
    write_json(folder / GENERATION, {**description, **facts, "complete": True})
    (folder / PART).unlink(missing_ok=True)
    return responses, seconds


def response_of(prompt: RowPrompt, completion: Completion) -> Response:
    """Return the response that a completion is: its text without the space that joins a prompt/completion
    row."""
    return Response(
        row=prompt.row,
        id=prompt.id,
        prompt=prompt.text,
        instruction=prompt.instruction,
        response=completion.text.removeprefix(" ") if prompt.space_follows else completion.text,
        reference=prompt.reference,
        tokens=completion.tokens,
        finished=completion.stopped,
    )


def _completion_of(prompt: RowPrompt, response: Response) -> Completion:
    """Return the completion whose `response_of` is this response."""
    text = " " * prompt.space_follows + response.response
    return Completion(str(prompt.row), 0, text, response.tokens or 0, bool(response.finished))


def _first_rows(file: ConversationFile, count: int | None) -> ConversationFile:
    if count is None:
        return file
    return replace(
        file,
        conversations=[c for c in file.conversations if c.row < count],
        bad_rows=[bad for bad in file.bad_rows if bad.row < count],
    )


def _usable_prompts(
    options: GenerateOptions, file: ConversationFile, engine: Engine
) -> tuple[list[RowPrompt], list[dict[str, Any]]]:
    """Return the rows' prompts, and which rows were left out.

    Raises:
        UserError: more than --max_bad_rows are unusable, not counting prompts that are too long, or no prompt
            is left.
    """
    limits = PromptLimits(options.max_seq_length, options.max_new_tokens, engine.position_limit)
    prompts, refused = make_prompts(file.conversations, engine.prompts, limits)
    unusable = [row for row in refused if row.reason != TOO_LONG]
    check_bad_rows(file, options.max_bad_rows, unusable if prompts else refused)
    bad = sorted([*file.bad_rows, *refused], key=lambda row: row.row)
    for line in bad_row_lines(file, bad):
        logger.warning("left out: %s", line)
    return prompts, [asdict(row) for row in bad]


def _identity(
    options: GenerateOptions, file: ConversationFile, prompts: Sequence[RowPrompt], engine: Engine
) -> dict[str, Any]:
    """Return what the responses depend on; the model's path is not among it, for a copy is the same model."""
    from instruction_modelling.models.identity import model_identity

    return {
        "model_identity": model_identity(options.model_name_or_path),
        "sha256": file.sha256,
        "num_rows": options.num_rows,
        "chat_format": engine.chat_format,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "dtype": engine.options.dtype,
        "end_tokens": [engine.tokenizer.convert_ids_to_tokens(id_) for id_ in engine.end_ids],
        "prompts_sha256": prompts_sha256(prompts),
        "engine": engine.name,
        # Responses of before there was such an option are the assistant's.
        **({"speaker": "user"} if options.speaker == "user" else {}),
    }


def _responses_before(
    folder: Path, identity: Stamp, prompts: Sequence[RowPrompt], overwrite: bool
) -> list[Completion]:
    """Return the completions behind the rows of `responses.jsonl`, where the folder holds this run; a damaged
    line is passed over. With `overwrite` remove the responses that are there.

    Raises:
        UserError: the folder holds the responses of another run, or of unknown origin.
    """
    kept = [folder / name for name in (RESPONSES, PART) if (folder / name).exists()]
    if overwrite:
        for path in kept:
            path.unlink()
        return []
    if kept:
        _check_same_run(folder, plain(identity))
    by_row = {prompt.row: prompt for prompt in prompts}
    lines = read_appended(folder / RESPONSES)
    completions = []
    damaged = len(lines.broken) + lines.torn
    for _, record in lines.records:
        try:
            response = response_from(record, -1)
        except RowRefused:
            damaged += 1
            continue
        if response.row in by_row:
            completions.append(_completion_of(by_row[response.row], response))
    if damaged:
        logger.warning("%s: %d damaged lines, whose rows are answered again", folder / RESPONSES, damaged)
    return completions


def _check_same_run(folder: Path, identity: dict[str, Any]) -> None:
    before = read_stamp(folder / GENERATION)
    if before is None:
        raise UserError(
            f"{folder} holds responses but no readable {GENERATION} that says how they were made; "
            "choose another --output_dir, or replace them with --overwrite_output"
        )
    names = differing({name: before.get(name) for name in identity}, identity)
    if names:
        facts = [
            f"  - {name}: {snippet(before.get(name))} then, {snippet(identity[name])} now" for name in names
        ]
        raise UserError(
            f"{folder} holds the responses of another run:\n"
            + "\n".join(facts)
            + "\nChoose another --output_dir, or replace them with --overwrite_output"
        )
