"""How a model's answers were made, kept beside them, so that a run that finds them whole loads no model."""

import json
from pathlib import Path
from typing import Any

from instruction_modelling.files.durable import file_sha256
from instruction_modelling.generation.engine import EngineOptions
from instruction_modelling.runs.folder import write_aside


def making(options: EngineOptions, **further: Any) -> dict[str, Any]:
    """Everything in the options that answers depend on, and `further` facts (JSON values)."""
    from instruction_modelling.generation.responder import model_state

    made = {
        "model": options.model_name_or_path,
        "model_state": model_state(options.model_name_or_path or ""),
        "tokenizer": options.tokenizer_name_or_path,
        "chat_formatting_function": options.chat_formatting_function,
        "chat_format_option": options.chat_format,
        "max_model_len": options.max_model_len,
        "dtype": options.dtype,
        "use_vllm": options.use_vllm,
        **further,
    }
    return json.loads(json.dumps(made))


def keep_facts(path: Path, facts: dict[str, Any], answers: Path) -> dict[str, Any]:
    """Writes `facts` and the hash of the file of answers to `path`; gives what was written.

    Raises:
        UserError: it cannot be written.
    """
    whole = {**facts, "sha256": file_sha256(answers)}
    write_aside(path, json.dumps(whole, indent=1) + "\n")
    return whole


def kept_facts(path: Path, made: dict[str, Any], answers: Path) -> dict[str, Any] | None:
    """The facts at `path`, if the file of answers is what a run that was `made` so left behind."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        same = {name: facts.get(name) for name in made} == made and facts.get("sha256") == file_sha256(
            answers
        )
    except (OSError, ValueError, AttributeError):
        return None
    return facts if same else None
