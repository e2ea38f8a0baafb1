"""What a sweep lacks before it can start: data, and the commands that make them; GPUs; a model, or the
consent that it needs."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from instruction_modelling.called import command
from instruction_modelling.nearest import nearest, nearest_path
from instruction_modelling.sources.downloads.catalogue import CATALOGUE, PAPER

# Whose models are downloaded only after their licence was agreed to.
GATED = ("meta-llama/", "google/gemma", "mistralai/")
TULU = "processed/tulu_v2/tulu_v2_data.jsonl"
_FRACTION = re.compile(r"tulu_dataset_0(\d)")
_RATIO = re.compile(r"tulu_ratio_(\d+)_(\d+)")


def data_commands(files: Iterable[Path], data_root: Path) -> list[str]:
    """Return, in the order to run them in, the commands that make those of the files that are not there; a
    line that begins with # names each file of which none is known."""
    absent = [file for file in dict.fromkeys(files) if not file.exists()]
    sets: list[str] = []
    fractions: list[str] = []
    ratios_of_size: dict[str, list[str]] = {}
    unknown: list[Path] = []
    stems = {CATALOGUE[name].paths(Path())[0].stem: name for name in PAPER} | {Path(TULU).stem: "tulu_v2"}
    for file in absent:
        stem = file.stem
        if found := _FRACTION.fullmatch(stem):
            fractions.append(f"0.{found[1]}")
        elif found := _RATIO.fullmatch(stem):
            ratios_of_size.setdefault(found[2], []).append(found[1])
        elif stem in stems:
            sets.append(stems[stem])
        else:
            unknown.append(file)
    tulu = data_root / TULU
    if (fractions or ratios_of_size) and not tulu.exists() and "tulu_v2" not in sets:
        sets.append("tulu_v2")
    folder = [] if data_root == Path("data") else ["--data_dir", str(data_root)]
    lines = [shlex.join(["sh", "prepare_train_data.sh", *sets, *folder])] if sets else []
    given = ["--train_file", tulu, "--output_dir", data_root]
    if fractions:
        lines.append(command("sample_data", *given, "--how", "first", "--fraction", *fractions))
    for sizes, ratios in _by_ratios(ratios_of_size):
        lines.append(command("select_data", *given, "--ratio", *ratios, "--rows", *sizes))
    for file in unknown:
        meant = nearest_path(file) or nearest(file.stem, stems)
        lines.append(f"# {file}: there is no such file" + (f"; did you mean {meant}?" if meant else ""))
    return lines


def _by_ratios(ratios_of_size: dict[str, list[str]]) -> list[tuple[list[str], list[str]]]:
    """Return the sizes that are wanted of the same ratios together: (sizes, ratios)."""
    together: dict[tuple[str, ...], list[str]] = {}
    for size, ratios in ratios_of_size.items():
        together.setdefault(tuple(ratios), []).append(size)
    return [(sizes, list(ratios)) for ratios, sizes in together.items()]


def visible_gpus() -> int:
    """Return how many GPUs a run on this machine may use, without loading torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        chosen_ones = [word for word in chosen.split(",") if word.strip() and word.strip() != "-1"]
        if not chosen_ones:
            return 0
    program = shutil.which("nvidia-smi")
    if program is None:
        if not Path("/dev/kfd").exists():
            return 0
        # A GPU of AMD's: only torch counts them.
        import torch

        return torch.cuda.device_count()
    listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return min(count, len(chosen_ones)) if chosen is not None else count


def gpu_problem(wanted: int) -> str:
    """Return what is wrong with so many GPUs on this machine; nothing where they are there."""
    there = visible_gpus() if wanted else 0
    if there >= wanted:
        return ""
    has = f"{there} GPU{'' if there == 1 else 's'}" if there else "no GPU"
    return (
        f"NUM_GPUS={wanted} (--num_gpus): this machine has {has}"
        f"{' that CUDA_VISIBLE_DEVICES lets be used' if 'CUDA_VISIBLE_DEVICES' in os.environ else ''}; "
        f"give NUM_GPUS={there}{'' if there else ', one process on the CPU'}"
    )


def model_problem(name: str) -> str:
    """Return what keeps a model from being loaded, as far as this machine can tell; nothing where it is
    there, or can be fetched."""
    if Path(name).is_dir():
        return "" if (Path(name) / "config.json").is_file() else f"{name}: holds no config.json, so no model"
    if (
        name.startswith(("/", ".", "~"))
        or name.count("/") > 1
        or ("/" in name and Path(name).parent.is_dir())
    ):
        meant = nearest_path(name)
        return f"{name}: there is no such folder" + (f"; did you mean {meant}?" if meant else "")
    from huggingface_hub import get_token, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return ""
    if name.startswith(GATED) and not get_token():
        return (
            f"{name} is given out after consent only: agree at https://huggingface.co/{name} and set "
            "HF_TOKEN, or give a folder (MODEL_PATH)"
        )
    return ""
