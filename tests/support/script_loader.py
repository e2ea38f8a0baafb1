"""The scripts of src/, run inside the test's process: the same `main`, without another start of Python."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"


def load_script(name: str) -> ModuleType:
    """src/`name`.py as a module."""
    full = f"script_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, SRC / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


def run_script(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """Runs src/`name`.py as the command line does; gives its exit code."""
    from instruction_modelling.errors import run_main

    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(load_script(name).main)
    return int(stopped.value.code or 0)
