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
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.generation.base import Completion, Engine, Request, Sampling, cut_at_stop

ENVIRONMENT = Path(__file__).resolve().parents[3] / ".venv-vllm"
WORKER = Path(__file__).with_name("vllm_worker.py")


def vllm_python() -> Path:
    """Return the Python of vLLM's environment; VLLM_PYTHON names another.

    Raises:
        UserError: it is not there.
    """
    python = Path(os.environ.get("VLLM_PYTHON") or ENVIRONMENT / "bin" / "python")
    if not python.exists():
        raise UserError(
            f"--use_vllm: vLLM's environment is not there ({python}): make it with `bash "
            "scripts/setup_vllm.sh`, or leave the flag out to generate with transformers"
        )
    return python


class VllmEngine(Engine):
    """A model in a process of vLLM's environment.

    Raises:
        UserError: there is no such environment.
    """

    name = "vllm"

    def __init__(self, *given: Any):
        super().__init__(*given)
        self._python = vllm_python()
        self._process: subprocess.Popen[str] | None = None

    def load(self) -> None:
        """Start the process and have it load the model, where that has not been done.

        Raises:
            UserError: vLLM cannot load the model.
        """
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            [str(self._python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")},
        )
        self._send(
            {
                "model": self.options.model_name_or_path,
                "tokenizer": self.options.tokenizer_name_or_path or self.options.model_name_or_path,
                "dtype": self.options.dtype,
                "max_model_len": self.position_limit,
            }
        )
        self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process and self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process and self._process.stdout
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
            f"{self.options.model_name_or_path}; its reason is above (VLLM_LOGGING_LEVEL=INFO shows more)"
        )

    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        self.load()
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
            text, is_cut = cut_at_stop(str(text), sampling.stop)
            yield Completion(
                message["key"], message["sample"], text, message["tokens"], message["stopped"] or is_cut
            )

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
