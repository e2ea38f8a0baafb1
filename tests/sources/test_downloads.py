"""Downloads from servers that cut, refuse, lie, redirect and stall."""

import bz2
import gzip
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from bad_server import BadServer, cut, instead, redirect, slowly, stall, status

from instruction_modelling.errors import UserError
from instruction_modelling.sources.downloads.addresses import asked_address, mirror_variable
from instruction_modelling.sources.downloads.contents import LFS_POINTER, wrong_content
from instruction_modelling.sources.downloads.download import Download, DownloadFailed, FetchSettings
from instruction_modelling.sources.downloads.fetch import fetch_all, fetch_file
from instruction_modelling.sources.downloads.known_hashes import KnownHashes
from instruction_modelling.sources.downloads.transfer_progress import TransferProgress, messages_between

ROWS = b"".join(b'{"row": %d, "text": "%s"}\n' % (number, b"abc " * 50) for number in range(2000))
DIGEST = hashlib.sha256(ROWS).hexdigest()
PATH = "/owner/repo/main/rows.jsonl"
TOKEN = "hf_" + "s3cret" * 5


def settings(server: BadServer, **changes: Any) -> FetchSettings:
    """Through the server as GitHub's mirror, without long pauses."""
    environment = {"IM_MIRROR_RAW_GITHUBUSERCONTENT_COM": server.url, **changes.pop("environment", {})}
    return FetchSettings(**{"pause": 0.01, "timeout": 5.0, "tries": 3, "environment": environment, **changes})


def rows(folder: Path, **changes: Any) -> Download:
    return Download(
        **{"url": "https://raw.githubusercontent.com" + PATH, "path": folder / "rows.jsonl", **changes}
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock.json")


@pytest.fixture
def lock(tmp_path: Path) -> KnownHashes:
    return KnownHashes(tmp_path / "lock.json")


def test_a_file_is_fetched_once_and_recorded(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}) as server:
        first = fetch_file(rows(tmp_path), lock, settings(server))
        again = fetch_file(rows(tmp_path), lock, settings(server))
    assert (first.sha256, first.bytes, first.was_there) == (DIGEST, len(ROWS), False)
    assert again.was_there and len(server.requests) == 1
    assert (tmp_path / "rows.jsonl").read_bytes() == ROWS and left(tmp_path) == ["rows.jsonl"]
    assert json.loads(lock.path.read_text()) == {
        "https://raw.githubusercontent.com" + PATH: {"sha256": DIGEST, "bytes": len(ROWS)}
    }


def test_cut_connections_are_resumed_where_they_were_cut(tmp_path: Path, lock: KnownHashes) -> None:
    server = BadServer({PATH: ROWS})
    # More cuts than attempts are allowed: what comes each time keeps them from running out.
    server.faults = {PATH: [cut(server, 50_000) for _ in range(6)]}
    with server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
    ranges = [headers.get("range") for headers in server.asked(PATH)]
    assert ranges == [None, *(f"bytes={50_000 * number}-" for number in range(1, 7))]
    assert all("if-range" in headers for headers in server.asked(PATH)[1:])


@pytest.mark.parametrize("known", [True, False])
def test_a_server_without_parts_or_validators_is_asked_from_the_beginning(
    tmp_path: Path, lock: KnownHashes, known: bool
) -> None:
    server = BadServer({PATH: ROWS}, ranges=False, etags=False)
    server.faults = {PATH: [cut(server, 50_000)]}
    with server:
        got = fetch_file(rows(tmp_path, sha256=DIGEST if known else None), lock, settings(server))
    assert got.sha256 == DIGEST
    # Only a known hash can tell whether a rest belongs to the same file.
    assert server.asked(PATH)[1].get("range") == ("bytes=50000-" if known else None)


def test_a_file_that_changes_between_two_attempts_is_not_put_together_from_both(
    tmp_path: Path, lock: KnownHashes
) -> None:
    other = ROWS.replace(b"abc", b"xyz")
    server = BadServer({PATH: ROWS})

    def cut_and_change(handler: Any, content: bytes) -> None:
        server.send(handler, content, stop_after=50_000)
        server.files[PATH] = other

    server.faults = {PATH: [cut_and_change]}
    with server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == hashlib.sha256(other).hexdigest()
    assert (tmp_path / "rows.jsonl").read_bytes() == other


def test_a_changed_part_without_validators_is_noticed_by_the_hash_and_fetched_whole(
    tmp_path: Path, lock: KnownHashes
) -> None:
    server = BadServer({PATH: ROWS}, etags=False)
    server.faults = {
        PATH: [
            lambda handler, content: server.send(handler, content.replace(b"abc", b"xyz"), stop_after=50_000)
        ]
    }
    with server:
        assert fetch_file(rows(tmp_path, sha256=DIGEST), lock, settings(server)).sha256 == DIGEST
    assert [headers.get("range") for headers in server.asked(PATH)] == [None, "bytes=50000-", None]


def test_without_a_length_the_end_of_the_file_tells_whether_it_was_cut(
    tmp_path: Path, lock: KnownHashes
) -> None:
    server = BadServer({PATH: ROWS}, length=False)
    server.faults = {PATH: [cut(server, 50_001)]}
    with server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
        assert [headers.get("range") for headers in server.asked(PATH)] == [None, "bytes=50001-"]
        server.ranges = server.etags = False
        server.faults = {PATH: [cut(server, 50_001) for _ in range(9)]}
        with pytest.raises(
            DownloadFailed, match="after 50,001 bytes its end is missing; given up after 3 attempts"
        ):
            fetch_file(
                rows(tmp_path, path=tmp_path / "other.jsonl"),
                KnownHashes(tmp_path / "other.json"),
                settings(server),
            )
    assert "other.jsonl" not in left(tmp_path)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(tmp_path: Path, lock: KnownHashes, code: int) -> None:
    with BadServer({PATH: ROWS}, {PATH: [status(code), status(code)]}) as server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
    assert len(server.requests) == 3


def test_the_pause_that_a_server_asks_for_is_kept(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}, {PATH: [status(429, Retry_After="1")]}) as server:
        begin = time.monotonic()
        fetch_file(rows(tmp_path), lock, settings(server))
        assert 1.0 <= time.monotonic() - begin < 4
    with (
        BadServer({PATH: ROWS}, {PATH: [status(503, Retry_After="4000")]}) as server,
        pytest.raises(DownloadFailed, match="asked to wait 4000 s"),
    ):
        fetch_file(rows(tmp_path, path=tmp_path / "other.jsonl"), lock, settings(server))


def test_a_server_that_stays_busy_is_given_up_with_what_came_kept(tmp_path: Path, lock: KnownHashes) -> None:
    server = BadServer({PATH: ROWS})
    server.faults = {PATH: [cut(server, 50_000), *(status(503) for _ in range(4))]}
    with server:
        with pytest.raises(DownloadFailed, match=r"answers 503 .*given up after 3 attempts .*50,000 bytes"):
            fetch_file(rows(tmp_path), lock, settings(server))
        assert left(tmp_path) == ["rows.jsonl.part", "rows.jsonl.part.json"]
        server.faults = {}
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
    assert server.asked(PATH)[-1]["range"] == "bytes=50000-" and left(tmp_path) == ["rows.jsonl"]


def test_a_stalled_connection_times_out_and_goes_on(tmp_path: Path, lock: KnownHashes) -> None:
    server = BadServer({PATH: ROWS})
    server.faults = {PATH: [stall(server, 50_000, 3.0)]}
    with server:
        begin = time.monotonic()
        assert fetch_file(rows(tmp_path), lock, settings(server, timeout=0.3)).sha256 == DIGEST
        assert time.monotonic() - begin < 3
    assert server.asked(PATH)[1]["range"] == "bytes=50000-"


def test_a_slow_server_is_waited_for(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}, {PATH: [slowly(50_000, 0.05)]}) as server:
        assert fetch_file(rows(tmp_path), lock, settings(server, timeout=0.5)).sha256 == DIGEST
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "it is a web page"),
        (LFS_POINTER + b"v1\noid sha256:00\nsize 1\n", "it is a pointer of Git LFS"),
        (b"", "it is empty"),
        (b'{"error": "Invalid credentials"}', "it is an error message"),
        (b"[404]", "does not begin as a .jsonl file"),
    ],
)
def test_what_is_sent_in_place_of_a_file_is_named_and_not_kept(
    tmp_path: Path, lock: KnownHashes, body: bytes, why: str
) -> None:
    with BadServer({PATH: ROWS}, {PATH: [instead(body)]}) as server, pytest.raises(DownloadFailed, match=why):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert left(tmp_path) == [] and not lock.path.exists()


def test_a_wrong_hash_or_size_is_refused(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}) as server:
        with pytest.raises(DownloadFailed, match=f"its sha256 is {DIGEST}, not 0000"):
            fetch_file(rows(tmp_path, sha256="0" * 64), lock, settings(server))
        with pytest.raises(DownloadFailed, match=f"the server has {len(ROWS):,} bytes, and the file has 7"):
            fetch_file(rows(tmp_path, size=7), lock, settings(server))
    assert left(tmp_path) == []


def test_a_file_that_changed_since_it_was_recorded_is_refused_unless_wanted(
    tmp_path: Path, lock: KnownHashes
) -> None:
    with BadServer({PATH: ROWS}) as server:
        fetch_file(rows(tmp_path), lock, settings(server))
        server.files[PATH] = other = ROWS + b'{"row": 2000}\n'
        assert fetch_file(rows(tmp_path), lock, settings(server)).was_there
        (tmp_path / "rows.jsonl").unlink()
        with pytest.raises(DownloadFailed, match="--update_lock"):
            fetch_file(rows(tmp_path), lock, settings(server))
        assert (
            fetch_file(rows(tmp_path), lock, settings(server, update_lock=True)).sha256
            == hashlib.sha256(other).hexdigest()
        )
        assert lock.sha256("https://raw.githubusercontent.com" + PATH) == hashlib.sha256(other).hexdigest()


def test_a_damaged_file_is_fetched_again(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}) as server:
        fetch_file(rows(tmp_path), lock, settings(server))
        (tmp_path / "rows.jsonl").write_bytes(ROWS.replace(b"abc", b"abd", 1))
        assert not fetch_file(rows(tmp_path), lock, settings(server)).was_there
    assert (tmp_path / "rows.jsonl").read_bytes() == ROWS


def test_redirects_are_followed_and_circles_end(tmp_path: Path, lock: KnownHashes) -> None:
    server = BadServer({"/elsewhere": ROWS})
    server.faults = {PATH: [redirect("/elsewhere")]}
    with server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
        server.faults = {PATH: [redirect(PATH) for _ in range(20)]}
        with pytest.raises(DownloadFailed, match="more than 10 times"):
            fetch_file(
                rows(tmp_path, path=tmp_path / "circle.jsonl"),
                KnownHashes(tmp_path / "other.json"),
                settings(server),
            )
        server.faults = {PATH: [redirect("file:///etc/passwd")]}
        with pytest.raises(DownloadFailed, match="leads to file address"):
            fetch_file(
                rows(tmp_path, path=tmp_path / "file.jsonl"),
                KnownHashes(tmp_path / "other.json"),
                settings(server),
            )


GATED = "https://huggingface.co/datasets/GAIR/lima/resolve/main/train.jsonl"
GATED_PATH = "/datasets/GAIR/lima/resolve/main/train.jsonl"


def test_the_token_goes_to_its_own_host_for_what_needs_it_and_not_along_redirects(
    tmp_path: Path, lock: KnownHashes, caplog: pytest.LogCaptureFixture
) -> None:
    with BadServer({"/blob": ROWS, PATH: ROWS}) as storage, BadServer({"/open": ROWS}) as hub:
        hub.faults = {GATED_PATH: [redirect(f"{storage.url}/blob")]}
        own = settings(
            hub,
            environment={
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": TOKEN,
                "IM_MIRROR_RAW_GITHUBUSERCONTENT_COM": storage.url,
            },
        )
        fetch_file(
            Download(GATED, tmp_path / "lima.jsonl", access="https://huggingface.co/datasets/GAIR/lima"),
            lock,
            own,
        )
        fetch_file(rows(tmp_path, access="https://github.com/x"), lock, own)
        fetch_file(Download("https://huggingface.co/open", tmp_path / "open.jsonl"), lock, own)
    assert [headers.get("authorization") for headers in hub.asked(GATED_PATH)] == [f"Bearer {TOKEN}"]
    others = [headers for path, headers in [*storage.requests, *hub.requests] if path != GATED_PATH]
    assert len(others) == 3 and not any("authorization" in headers for headers in others)
    assert TOKEN not in caplog.text and TOKEN not in lock.path.read_text()


@pytest.mark.parametrize(
    ("token", "advice"), [(None, "set HF_TOKEN in the environment"), (TOKEN, "has no access yet")]
)
def test_a_gated_set_says_how_to_get_access(
    tmp_path: Path, lock: KnownHashes, token: str | None, advice: str
) -> None:
    with BadServer({}, {GATED_PATH: [status(401)]}) as hub:
        environment = {"HF_ENDPOINT": hub.url, **({"HF_TOKEN": token} if token else {})}
        page = "https://huggingface.co/datasets/GAIR/lima"
        with pytest.raises(DownloadFailed) as raised:
            fetch_file(
                Download(GATED, tmp_path / "lima.jsonl", access=page),
                lock,
                FetchSettings(environment=environment),
            )
    message = str(raised.value)
    assert advice in message and page in message and TOKEN not in message and len(hub.requests) == 1


def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path, lock: KnownHashes) -> None:
    with (
        BadServer({}) as server,
        pytest.raises(DownloadFailed, match=r"answers 404 .*IM_MIRROR_RAW_GITHUBUSERCONTENT_COM"),
    ):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert len(server.requests) == 1 and left(tmp_path) == []


def test_files_come_side_by_side_and_one_that_fails_stops_no_other(tmp_path: Path, lock: KnownHashes) -> None:
    paths = [f"/f/{number}.jsonl" for number in range(6)]
    bodies = {path: ROWS + b'{"n": %d}\n' % number for number, path in enumerate(paths)}
    server = BadServer(bodies, {path: [slowly(200_000, 0.1)] for path in paths[:4]})
    server.faults[paths[5]] = [status(404)]
    counted: list[int] = []
    downloads = [Download("https://raw.githubusercontent.com" + path, tmp_path / path[3:]) for path in paths]
    with server:
        begin = time.monotonic()
        fetched, failed = fetch_all(downloads, lock, settings(server), lambda count, _: counted.append(count))
    assert time.monotonic() - begin < 4 * 0.3
    assert [there.download for there in fetched] == downloads[:5] and list(failed) == downloads[5:]
    assert (
        sum(counted) == sum(map(len, list(bodies.values())[:5]))
        and len(json.loads(lock.path.read_text())) == 5
    )


def test_no_room_is_said_before_anything_is_written(
    tmp_path: Path, lock: KnownHashes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with BadServer({PATH: ROWS}) as server, pytest.raises(DownloadFailed, match="make room"):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert left(tmp_path) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_counts_all_files_on_one_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = TransferProgress()
    progress.received(0, 3_000_000)
    progress.received(1_500_000, None)
    progress.received(0, 4_200_000)
    # 2.0 MB of 7.2, in pieces that are no whole megabytes.
    with messages_between(progress):
        progress.received(500_000, None)
        logging.getLogger("instruction_modelling.sources.downloads.fetch").info("cut")
    logging.getLogger("instruction_modelling.sources.downloads.fetch").info("not shown")
    lines = terminal.getvalue().split("\r")
    assert [line.split(" (")[0] for line in lines] == ["", "1 of 3 MB", "2 of 8 MB"]
    assert (
        "(25%)" in lines[-1]
        and "left" in lines[-1]
        and "MB/s\n" in lines[-1]
        and lines[-1].endswith("\ncut\n")
    )


def test_no_entry_of_the_lock_file_is_lost_between_processes(tmp_path: Path) -> None:
    record = (
        "import sys; from pathlib import Path; from instruction_modelling.sources.downloads.known_hashes "
        "import KnownHashes\n"
        "for n in range(20): KnownHashes(Path(sys.argv[1])).record(f'https://x/{sys.argv[2]}/{n}', 'a' * "
        "64, n)"
    )
    path = tmp_path / "deep" / "lock.json"
    processes = [subprocess.Popen([sys.executable, "-c", record, path, name]) for name in "abc"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    entries = json.loads(path.read_text())
    assert list(entries) == sorted(f"https://x/{name}/{n}" for name in "abc" for n in range(20))
    assert entries["https://x/b/7"] == {"sha256": "a" * 64, "bytes": 7}


@pytest.mark.parametrize("content", ["not json", "[]", '{"https://x": "a"}'])
def test_a_lock_file_that_is_none_is_named_and_kept(tmp_path: Path, lock: KnownHashes, content: str) -> None:
    lock.path.write_text(content)
    with BadServer({PATH: ROWS}) as server, pytest.raises(UserError, match=r"lock\.json: not a lock file"):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert lock.path.read_text() == content and server.requests == []


KILLED = """
import sys
from pathlib import Path
from instruction_modelling.sources.downloads.known_hashes import KnownHashes
from instruction_modelling.sources.downloads.download import Download, FetchSettings
from instruction_modelling.sources.downloads.fetch import fetch_file
fetch_file(Download("https://raw.githubusercontent.com" + sys.argv[1], Path(sys.argv[2])),
      KnownHashes(Path(sys.argv[3])), FetchSettings(pause=0.01, timeout=5))
"""


def test_a_killed_process_leaves_nothing_half_written_and_the_next_goes_on(
    tmp_path: Path, lock: KnownHashes
) -> None:
    server = BadServer({PATH: ROWS})
    server.faults = {PATH: [stall(server, 50_000, 4.0)]}
    with server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, PATH, tmp_path / "rows.jsonl", lock.path],
            env={**os.environ, "IM_MIRROR_RAW_GITHUBUSERCONTENT_COM": server.url},
        )
        part = tmp_path / "rows.jsonl.part"
        deadline = time.monotonic() + 20
        while not (
            part.exists() and part.stat().st_size == 50_000 and (tmp_path / "rows.jsonl.part.json").exists()
        ):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left(tmp_path) == ["rows.jsonl.part", "rows.jsonl.part.json"]
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
    assert server.asked(PATH)[1]["range"] == "bytes=50000-" and left(tmp_path) == ["rows.jsonl"]


def test_two_processes_that_want_one_file_fetch_it_once(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}, {PATH: [slowly(100_000, 0.3)]}) as server:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", KILLED, PATH, tmp_path / "rows.jsonl", lock.path],
                env={**os.environ, "IM_MIRROR_RAW_GITHUBUSERCONTENT_COM": server.url},
            )
            for _ in range(2)
        ]
        assert [process.wait(timeout=30) for process in processes] == [0, 0]
    assert len(server.requests) == 1 and left(tmp_path) == ["rows.jsonl"]


def test_a_mirror_is_asked_under_its_own_path() -> None:
    environment = {mirror_variable("raw.githubusercontent.com"): "https://mirror.example/gh/"}
    assert mirror_variable("raw.githubusercontent.com") == "IM_MIRROR_RAW_GITHUBUSERCONTENT_COM"
    assert (
        asked_address("https://raw.githubusercontent.com/a/b?c=d", environment)
        == "https://mirror.example/gh/a/b?c=d"
    )
    assert asked_address("https://github.com/a/b", environment) == "https://github.com/a/b"
    assert asked_address("https://huggingface.co/x", {"HF_ENDPOINT": "http://h:1"}) == "http://h:1/x"


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.json", b'[{"a": 1}]\n', None),
        ("a.json", b'[{"a": 1}', None),
        ("a.json", b'[{"a": 1', "its end is missing"),
        ("a.jsonl", b'{"a": 1}\n{"b": 2}', None),
        ("a.parquet", b"PAR1....PAR1", None),
        ("a.parquet", b"PAR1....", "its end is missing"),
        ("a.gz", gzip.compress(ROWS, mtime=0), None),
        ("a.gz", gzip.compress(ROWS, mtime=0)[:-9], "its end is missing"),
        (
            "a.gz",
            gzip.compress(ROWS, mtime=0)[:-8] + bytes(8),
            "it is damaged (CRC check failed 0x0 != " + hex(zlib.crc32(ROWS)) + ")",
        ),
        ("a.gz", b"PK", "it does not begin as a .gz file"),
        ("a.bz2", bz2.compress(ROWS), None),
        ("a.bz2", bz2.compress(ROWS)[:-9], "its end is missing"),
        ("a.zip", b"PK\x03\x04...", "its end is missing"),
        ("a.csv", b"a,b\n", None),
    ],
)
def test_contents_are_known_by_their_ends(
    tmp_path: Path, name: str, content: bytes, wrong: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    assert wrong_content(tmp_path / name) == wrong
