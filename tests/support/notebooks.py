"""Notebooks of docs/notebooks/: their text as a page, and running them."""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    """Return a notebook's cells as the file has them."""
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def sources(path: Path) -> str:
    """Return what stands in a notebook's cells, without what they wrote."""
    return "\n\n".join("".join(cell["source"]) for cell in cells(path))


def execute(path: Path, place: Path) -> Any:
    """Return a notebook whose cells were run anew, in a folder that looks like a clone."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(place)}}
    environment = {
        **os.environ,
        "JUPYTER_PLATFORM_DIRS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    client = nbclient.NotebookClient(notebook, timeout=900, resources=resources, coalesce_streams=True)
    client.execute(env=environment)
    return notebook
