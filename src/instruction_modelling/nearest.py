"""The name that was probably meant."""

import difflib
from collections.abc import Iterable
from pathlib import Path

# What other trainers call an option of ours.
_ELSEWHERE = {
    **dict.fromkeys(
        ("model", "base_model", "model_path", "model_name", "model_id", "pretrained"), "model_name_or_path"
    ),
    **dict.fromkeys(("train_data", "data", "data_path", "dataset", "dataset_path", "train"), "train_file"),
    **dict.fromkeys(("eval_data", "valid_data", "validation_file", "test_data"), "eval_file"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs"), "num_train_epochs"),
    **dict.fromkeys(
        ("batch_size", "bs", "micro_batch_size", "train_batch_size"), "per_device_train_batch_size"
    ),
    **dict.fromkeys(
        ("grad_accum", "accumulation_steps", "gradient_accumulation"), "gradient_accumulation_steps"
    ),
    **dict.fromkeys(("max_length", "max_len", "seq_len", "cutoff_len", "sequence_len"), "max_seq_length"),
    **dict.fromkeys(("max_steps", "steps"), "max_train_steps"),
    **dict.fromkeys(("save_steps", "save_every"), "checkpointing_steps"),
    **dict.fromkeys(("lora_r", "lora_dim"), "lora_rank"),
    **{"lr": "learning_rate", "scheduler": "lr_scheduler_type", "lora": "use_lora", "qlora": "use_qlora"},
    **{"out": "output_dir", "save_dir": "output_dir", "resume": "resume_from_checkpoint"},
    **{"warmup": "warmup_ratio", "max_grad_norm": "clip_grad_norm", "max_tokens": "max_new_tokens"},
}


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name closest to a mistyped one, or by which another trainer calls it; None where none is
    close.

    Case, and - for _, count for nothing; a name that begins with the word is close, if it is the only one.
    """
    known = {_plain(name): name for name in names}
    plain = _plain(word)
    for name in (plain, _ELSEWHERE.get(plain)):
        if name in known:
            return known[name]
    begun = [name for key, name in known.items() if len(plain) > 2 and key.startswith(plain)]
    if len(begun) == 1:
        return begun[0]
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.65)
    return known[close[0]] if close else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return `; did you mean NAME?`, or nothing where no name is close."""
    name = nearest(word, names)
    return f"; did you mean {name}?" if name else ""


def nearest_path(path: str | Path) -> Path | None:
    """Return the file or folder that a path with one mistyped part probably means; None where there is
    none."""
    parts, found = Path(path).parts, Path()
    for number, part in enumerate(parts):
        if (found / part).exists():
            found /= part
            continue
        try:
            name = nearest(part, [entry.name for entry in found.iterdir()])
        except OSError:
            return None
        meant = found / name / Path(*parts[number + 1 :]) if name else None
        return meant if meant and meant.exists() else None
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")
