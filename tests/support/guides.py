"""The commands of docs/guides/, taken from the pages and run where a reader would run them."""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "guides"
GUIDES = sorted(FOLDER.glob("*.md"))

# A block of commands, and the comment in front of it that says how it is tested; nothing: at once.
_BLOCK = re.compile(r"(?:<!-- (slow|not run: [^>]+?) -->\n)?```sh\n(.*?)```", re.DOTALL)


@dataclass
class Command:
    """A command of a guide."""

    text: str
    """As the page has it, its lines joined."""
    kind: str
    """"" for one that is run at once, "slow", or "not run: REASON"."""


def commands(guide: Path) -> list[Command]:
    """Return the commands of a guide's ```sh blocks, in order."""
    found = []
    for kind, block in _BLOCK.findall(guide.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines()
        texts = [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]
        found += [Command(text, kind) for text in texts]
    return found


def clone(folder: Path) -> Path:
    """Make a folder that looks like a clone of the project that is set up, without results of its own."""
    for name in (".venv", "src", "scripts", "data", "configs", "eval", "ds_configs", "fsdp_configs", "arms"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return folder


def script_of(command: Command) -> tuple[str, list[str]] | None:
    """Return the script of src/ that a command runs, and its arguments; None for any other command."""
    words = shlex.split(command.text, comments=True)
    if words[0] == ".venv/bin/python" and words[1].startswith("src/"):
        return Path(words[1]).stem, words[2:]
    return None


def source_texts() -> list[str]:
    """Return every string of the source, a value within it as …; scripts of bash whole, $NAME as …"""
    texts = []
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "eval").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # %s and %d of a log line are values too.
                texts.append(re.sub(r"%[sd]", "…", node.value))
    for path in (ROOT / "scripts").rglob("*.sh"):
        texts.append(re.sub(r"\$\{?\w+\}?", "…", path.read_text(encoding="utf-8")))
    return texts


def is_said(message: str, texts: list[str]) -> bool:
    """Return whether one text of the source has the pieces of a message between its …, in their order."""
    pattern = re.compile(".*".join(re.escape(piece) for piece in message.split("…")), re.DOTALL)
    longest = max(message.split("…"), key=len)
    return any(longest in text and pattern.search(text) for text in texts)
