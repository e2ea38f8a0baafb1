"""How every evaluation generates: prompts become token ids in one place, and transformers or vLLM completes
them.

A request is a prompt's ids; a completion is the text up to the first stop string or end token. Prompt ids,
stop strings and end tokens are the same for both engines. Draws above temperature 0 are keyed by (seed,
request, sample), so neither the batch size nor a restart changes them (within one engine)."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError, first_line
from instruction_modelling.files.stamps import digest
from instruction_modelling.generation.answers import AnswerFile
from instruction_modelling.generation.base import Completion, Engine, EngineOptions, Request, Sampling
from instruction_modelling.models.folders import no_such_folder, require_model
from instruction_modelling.progress import Progress

logger = logging.getLogger(__name__)


def open_engine(options: EngineOptions) -> Engine:
    """Return the engine that the options ask for; its model is loaded when the first request comes.

    Raises:
        UserError: there is no such model or tokenizer, or vLLM's environment is not there.
    """
    from instruction_modelling.models.loading import load_tokenizer

    name = options.model_name_or_path
    if not name:
        raise UserError("--model_name_or_path is not given")
    model_ends, positions = model_limits(name)
    tokenizer = load_tokenizer(options.tokenizer_name_or_path or name)
    limit = min((count for count in (positions, options.max_model_len) if count is not None), default=None)
    engine: type[Engine]
    if options.use_vllm:
        from instruction_modelling.generation.vllm_engine import VllmEngine as engine
    else:
        from instruction_modelling.generation.transformers_engine import TransformersEngine as engine
    return engine(options, tokenizer, model_ends, limit)


def model_limits(name: str) -> tuple[int | list[int] | None, int | None]:
    """Return the end tokens of a model's generation config, and how many positions it has (None: no limit).

    Raises:
        UserError: there is no model of that name, or no such folder.
    """
    from transformers import AutoConfig, GenerationConfig

    require_model(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: no model there: {first_line(error).rstrip('.')}{no_such_folder(name)}"
        ) from error
    try:
        ends = GenerationConfig.from_pretrained(name).eos_token_id
    except (OSError, ValueError):
        ends = getattr(config.get_text_config(), "eos_token_id", None)
    return ends, getattr(config.get_text_config(), "max_position_embeddings", None)


def completions_stamp(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> dict[str, Any]:
    """Return what completions depend on, for an `AnswerFile`."""
    from instruction_modelling.models.identity import model_identity

    return {
        "model": model_identity(str(engine.options.model_name_or_path)),
        "engine": engine.name,
        "dtype": engine.options.dtype,
        "sampling": asdict(sampling),
        "end_ids": engine.end_ids,
        "prompts": digest([[request.key, request.ids, request.seed] for request in requests]),
    }


def complete_all(
    engine: Engine, requests: Sequence[Request], sampling: Sampling, path: Path, noun: str = "completions"
) -> list[Completion]:
    """Return all completions of the requests, in their order, kept in the file at `path` as they come.

    Raises:
        UserError: as `Engine.complete` and `AnswerFile`.
    """
    answers = AnswerFile(path, completions_stamp(engine, requests, sampling))
    complete_missing(engine, requests, sampling, answers, noun)
    position = {request.key: number for number, request in enumerate(requests)}
    return sorted(answers.completions, key=lambda completion: (position[completion.key], completion.sample))


def complete_missing(
    engine: Engine, requests: Sequence[Request], sampling: Sampling, answers: AnswerFile, noun: str
) -> float:
    """Make the completions that `answers` lacks, add them to it, and return the seconds that took.

    Raises:
        UserError: as `Engine.complete`, or a completion cannot be written.
    """
    missing = answers.missing(requests, sampling)
    if not missing:
        return 0.0
    progress = Progress(len(requests) * sampling.samples, noun, done=len(answers.completions))

    def warn(message: str) -> None:
        progress.break_line()
        logger.warning(message)

    engine.warn = warn
    for completion in engine.complete(missing, sampling):
        progress.add(int(answers.add(completion)))
    return progress.seconds
