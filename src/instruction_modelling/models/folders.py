"""Names of models: which of them can only be folders, and are they there?"""

from pathlib import Path

from instruction_modelling.called import command
from instruction_modelling.errors import UserError
from instruction_modelling.hub import why_no_answer
from instruction_modelling.nearest import nearest_path

# What a folder has of which a model or a tokenizer can be read, or that another refusal knows more of.
_OF_A_MODEL = (
    "*config.json",
    "params.json",
    "*token*",
    "tekken.json",
    "vocab*",
    "*.safetensors",
    "*.model",
    "*.bin",
)


def require_folder(name: str) -> None:
    """Refuse a name that can only be a folder's, or lies in a folder that is here, where there is no such
    folder, and one that can be none.

    Raises:
        UserError: it is one of these.
    """
    if not name.strip() or "\0" in name:
        raise UserError(f"{name!r} is no name of a model; give a model's folder or its hub name")
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
    try:
        is_folder = Path(name).is_dir()
        is_file = not is_folder and Path(name).exists()
    except OSError as error:
        raise UserError(f"{name[:100]}...: {error.strerror}; give a model's folder or its hub name") from None
    if is_file:
        raise UserError(f"{name}: is a file; give the folder of the model that it lies in")
    if is_folder or not (is_path or (name.count("/") == 1 and Path(name).parent.is_dir())):
        return
    meant = nearest_path(name)
    words = f"; did you mean {meant}?" if meant else "; give a model's folder or its hub name"
    raise UserError(f"{name}: there is no such folder{words}")


def require_model(name: str) -> None:
    """Refuse a name where nothing is that a model or tokenizer could be read from: as `require_folder`, a
    folder that has no file of either, a checkpoint, a run that has not ended, and a name of the hub where the
    hub does not answer.

    Raises:
        UserError: it is one of these.
    """
    require_folder(name)
    folder = Path(name)
    if not folder.is_dir():
        if why := why_no_answer(name):
            raise UserError(f"{name}: no model there: {why}{no_such_folder(name)}")
        return
    if (folder / "checkpoint.json").is_file():
        raise UserError(
            f"{name}: no model there: it is a checkpoint of a run; make a model of it: "
            f"{command('export_checkpoint', name)}"
        )
    if (folder / "run.json").is_file() and not (folder / "config.json").exists():
        raise UserError(
            f"{name}: no model there: its run has not ended; let it go on (its command with "
            "--resume_from_checkpoint latest), or make a model of a checkpoint: "
            f"{command('export_checkpoint', folder / 'step_N')}"
        )
    if not any(any(folder.glob(pattern)) for pattern in _OF_A_MODEL):
        within = sorted(path.parent for path in folder.glob("*/config.json"))
        words = f"; did you mean {within[0]}?" if within else "; give the folder that its config.json is in"
        raise UserError(f"{name}: no model there: the folder has no config.json{words}")


def no_such_folder(name: str) -> str:
    """Return what to add where a name is not found on the hub, for it may be a mistyped folder; nothing where
    it is a folder."""
    if Path(name).is_dir():
        return ""
    meant = nearest_path(name)
    return "; no folder of that name is here either" + (f", did you mean {meant}?" if meant else "")
