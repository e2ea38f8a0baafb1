"""Completions by vLLM, in a process of its own environment (.venv-vllm): its packages exclude this project's
versions.

The process reads and writes one JSON message a line: what it is to load, then requests, then a completion for
each sample as it is finished. Prompts come as token ids and stop strings as they are, so both engines
complete the same."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.generation.engine import Completion, Engine, EngineOptions, Request, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENVIRONMENT = Path(__file__).resolve().parents[3] / ".venv-vllm"
WORKER = Path(__file__).with_name("vllm_worker.py")


def vllm_python() -> Path:
    """The Python of vLLM's environment; VLLM_PYTHON names another.

    Raises:
        UserError: it is not there.
    """
    python = Path(os.environ.get("VLLM_PYTHON") or ENVIRONMENT / "bin" / "python")
    if not python.exists():
        raise UserError(
            f"--use_vllm: vLLM's environment is not there ({python}): make it with `bash "
            "scripts/setup_vllm.sh`, or "
            "leave the flag out to generate with transformers"
        )
    return python


class VllmEngine(Engine):
    """A model in a process of vLLM's environment."""

    name = "vllm"

    def __init__(
        self,
        options: EngineOptions,
        tokenizer: "PreTrainedTokenizerBase",
        end_ids: Sequence[int],
        room: int | None,
    ):
        """Raises:
        UserError: there is no such environment, or vLLM cannot load the model.
        """
        super().__init__(options, tokenizer, end_ids, room)
        self._process = subprocess.Popen(
            [str(vllm_python()), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")},
        )
        self._send(
            {
                "model": options.model_name_or_path,
                "tokenizer": options.tokenizer_name_or_path or options.model_name_or_path,
                "dtype": options.dtype,
                "max_model_len": room,
            }
        )
        self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            # vLLM's own words may come in between.
            if line.startswith('{"vllm_worker":'):
                message = json.loads(line)["vllm_worker"]
                if "error" in message:
                    raise UserError(
                        f"vLLM could not go on with {self.options.model_name_or_path}: {message['error']}"
                    )
                return dict(message)
        raise UserError(
            f"vLLM's process ended (exit code {self._process.wait()}) with "
            f"{self.options.model_name_or_path}; its reason "
            "is above (VLLM_LOGGING_LEVEL=INFO shows more)"
        )

    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        self._send(
            {
                "requests": [asdict(request) for request in requests],
                "sampling": asdict(sampling),
                "end_ids": self.end_ids,
            }
        )
        for _ in range(len(requests) * sampling.samples):
            message = self._receive()
            text = self.tokenizer.decode(
                message["ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            cut = min((place for place in map(str(text).find, sampling.stop) if place >= 0), default=None)
            yield Completion(
                message["key"],
                message["sample"],
                str(text)[:cut],
                message["tokens"],
                message["stopped"] or cut is not None,
            )

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
