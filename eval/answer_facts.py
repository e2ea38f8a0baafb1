"""How a model's answers were made, kept beside them, so that a run that finds them whole loads no model; and
which answers are none."""

from pathlib import Path
from typing import Any

from instruction_modelling.files.stamps import content_of, differing, plain, read_stamp
from instruction_modelling.files.whole import write_json
from instruction_modelling.generation.engine import EngineOptions
from instruction_modelling.models.identity import model_identity

# What is recorded and not compared: the same model in another folder gives the same answers.
_NOT_COMPARED = "model"
# What FastChat writes where a service gave no answer.
FAILED_ANSWER = "$ERROR$"


def failure_of(answer: str) -> str | None:
    """Return what an answer is, in words, if it is none; else None."""
    text = answer.strip()
    return "empty" if not text else FAILED_ANSWER if text == FAILED_ANSWER else None


def making(options: EngineOptions, **further: Any) -> dict[str, Any]:
    """Return everything in the options that answers depend on, and `further` facts (JSON values)."""
    return plain(
        {
            "model": options.model_name_or_path,
            # A run that only reads answers of another, or asks a service, has no model of its own.
            "model_identity": model_identity(name) if (name := options.model_name_or_path) else None,
            "tokenizer": options.tokenizer_name_or_path,
            "chat_formatting_function": options.chat_formatting_function,
            "chat_format_option": options.chat_format,
            **of_file("chat_format_sha256", options.chat_format),
            "max_model_len": options.max_model_len,
            "dtype": options.dtype,
            "use_vllm": options.use_vllm,
            **further,
        }
    )


def of_file(name: str, given: str | None) -> dict[str, str]:
    """Return the hash of the file that an option names, under this name; nothing where it names none."""
    return {name: content_of(Path(given))} if given and Path(given).is_file() else {}


def keep_facts(path: Path, facts: dict[str, Any], answers: Path) -> dict[str, Any]:
    """Write `facts` and the hash of the file of answers to `path`, and return what was written.

    Raises:
        UserError: it cannot be written.
    """
    whole = {**facts, "sha256": content_of(answers)}
    write_json(path, whole)
    return whole


def kept_facts(path: Path, made: dict[str, Any], answers: Path) -> dict[str, Any] | None:
    """Return the facts at `path`, None unless the answers are what a run that was `made` so left behind."""
    facts = read_stamp(path)
    if facts is None:
        return None
    compared = [name for name in made if name != _NOT_COMPARED]
    same = not differing(
        {name: facts.get(name) for name in compared}, {name: made[name] for name in compared}
    )
    return facts if same and facts.get("sha256") == content_of(answers) else None
