"""The identity of a model: what tells its folder's contents from another's, wherever the folder lies."""

import hashlib
from pathlib import Path

# Files up to this size are hashed whole; of larger ones, the two ends and blocks spread evenly between them.
WHOLE = 2**20
BLOCK, BLOCKS = 2**12, 256
# What of a folder makes its model what it is; checkpoints, logs and records beside it do not.
PATTERNS = (
    "*.safetensors",
    "*.bin",
    "*.gguf",
    "*.model",
    "*config.json",
    "*.index.json",
    "*token*.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "adapter/*",
)


def model_identity(name_or_path: str | Path) -> str:
    """Return the identity of a model, `sha256:...` of a folder or `hub:NAME@COMMIT` of a name on the hub.

    A folder's identity is made from its weights, configuration and tokenizer files: their names, sizes and
    contents, for files above 1 MiB from 257 blocks of 4 KiB and so within a fraction of a second. Copying a
    folder keeps it; tuning, another tokenizer or another template changes it. A name that is in the hub's
    local cache gets its commit; one that is not, none (`hub:NAME`).
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return f"hub:{name_or_path}{_commit(str(name_or_path))}"
    digest = hashlib.sha256()
    files = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        _add_contents(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _add_contents(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as handle:
        if size <= WHOLE:
            digest.update(handle.read())
            return
        for block in range(BLOCKS + 1):
            handle.seek((size - BLOCK) * block // BLOCKS)
            digest.update(handle.read(BLOCK))


def _commit(name: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    try:
        config_path = try_to_load_from_cache(name, "config.json")
    except ValueError:
        return ""
    # .../snapshots/COMMIT/config.json
    return f"@{Path(config_path).parent.name}" if isinstance(config_path, str) else ""
