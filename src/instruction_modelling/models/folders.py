"""Names of models: which of them can only be folders, and are they there?"""

from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.nearest import nearest_path


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


def no_such_folder(name: str) -> str:
    """Return what to add where a name is not found on the hub, for it may be a mistyped folder; nothing where
    it is a folder."""
    if Path(name).is_dir():
        return ""
    meant = nearest_path(name)
    return "; no folder of that name is here either" + (f", did you mean {meant}?" if meant else "")
