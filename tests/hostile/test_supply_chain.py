"""What is installed is locked by its hash, and what listens for connections listens to this machine alone."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)")
# Calls that make a socket listen, and the argument that says where.
LISTENERS = ("HTTPServer", "TCPServer", "UDPServer", "create_server", "start_server", "bind")
LOCAL = ("127.0.0.1", "localhost", "::1")


def pins(text: str) -> dict[str, str]:
    """The version of each package that a file of requirements pins, under its plain name."""
    lines = (line.split("#")[0] for line in text.splitlines())
    found = [NAME.match(line) for line in lines]
    return {re.sub(r"[._-]+", "-", pin[1]).lower(): pin[2] for pin in found if pin}


def locked() -> dict[str, list[str]]:
    """The lines of each locked package behind its first."""
    entries: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            found = NAME.match(line)
            assert found, line
            name = f"{found[1]}=={found[2]}"
            entries[name] = []
        else:
            entries[name].append(line.strip(" \\"))
    return entries


def test_the_lock_has_every_pin_with_its_hashes() -> None:
    entries = locked()
    assert len(entries) > 100
    for name, hashes in entries.items():
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), name
    versions = pins("\n".join(entries))
    for file in ("requirements.txt", "requirements-eval.txt"):
        wanted = pins((ROOT / file).read_text(encoding="utf-8"))
        assert len(wanted) >= 6
        assert {name: versions.get(name) for name in wanted} == wanted, (
            f"{file}: make requirements.lock again"
        )


def test_the_lock_leaves_out_what_only_a_build_of_torch_for_cuda_needs() -> None:
    names = " ".join(locked())
    assert not re.search(r"\b(nvidia-|cuda-|triton==)", names)
    assert "torch==" in names


def listeners(source: str) -> list[str]:
    """The calls of a module that make a socket listen on other addresses than this machine's own."""
    found: list[str] = []
    if not any(f"{name}(" in source for name in LISTENERS):
        return found
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        words = ast.unparse(node)
        if name.endswith(LISTENERS) and "AF_UNIX" not in words and not any(place in words for place in LOCAL):
            found.append(words)
    return found


def test_no_server_of_the_project_listens_beyond_this_machine() -> None:
    files = [
        path for folder in ("src", "eval", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 400
    found = {
        str(path.relative_to(ROOT)): calls
        for path in files
        if (calls := listeners(path.read_text(encoding="utf-8")))
    }
    # A socket by a path, which only processes of this machine reach, and what the next test looks for.
    paths = {"tests/support/hostile_corpus.py", "tests/hostile/test_hostile_rows.py"}
    assert {name: calls for name, calls in found.items() if name not in paths} == {}
    # One asks whether a given address is this machine's.
    names = [
        str(path.relative_to(ROOT))
        for folder in ("src", "eval", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh", ".yaml", ".json") and b"0.0.0.0" in path.read_bytes()
    ]
    assert names == ["eval/chat_service.py"]


def test_a_server_of_the_whole_network_is_found() -> None:
    assert listeners("HTTPServer(('', 0), H)\nHTTPServer(('127.0.0.1', 0), H)\ns.bind(('0.0.0.0', 1))") == [
        "HTTPServer(('', 0), H)",
        "s.bind(('0.0.0.0', 1))",
    ]
