"""Downloads give away no secret, keep no wrong bytes and come to an end, whatever servers and environments
do."""

import email.utils
import gzip
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_server import BadServer, Fault, cut, instead, redirect, reply, slowly, status
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from test_downloads import DIGEST, GATED, GATED_PATH, PATH, ROWS, TOKEN, left, rows, settings

from instruction_modelling.errors import UserError
from instruction_modelling.sources.downloads.addresses import (
    WrongAddress,
    asked_address,
    host_and_port,
    may_carry,
    next_address,
    token_for,
)
from instruction_modelling.sources.downloads.download import Download, DownloadFailed, FetchSettings
from instruction_modelling.sources.downloads.fetch import fetch_all, fetch_file
from instruction_modelling.sources.downloads.known_hashes import KnownHashes
from instruction_modelling.sources.downloads.partial import exclusive_part, part_path

SECRET = "hf_" + "q9Zx" * 6
ACCESS = "https://huggingface.co/datasets/GAIR/lima"


@pytest.fixture
def lock(tmp_path: Path) -> KnownHashes:
    return KnownHashes(tmp_path / "lock.json")


@pytest.mark.parametrize(
    "token", [f"{SECRET}\r\nX-Other: 1", f"{SECRET}é", f"{SECRET}\x00", f"{SECRET} {SECRET}"]
)
def test_what_cannot_be_a_token_is_said_without_showing_it(
    tmp_path: Path, lock: KnownHashes, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        BadServer({GATED_PATH: ROWS}) as hub,
        pytest.raises(UserError, match=r"HF_TOKEN .* is not a token") as raised,
    ):
        fetch_file(
            Download(GATED, tmp_path / "lima.jsonl", access=ACCESS),
            lock,
            FetchSettings(environment={"HF_ENDPOINT": hub.url, "HF_TOKEN": token}),
        )
    assert SECRET not in str(raised.value) + caplog.text and hub.requests == []


@pytest.mark.parametrize("token", [f"{SECRET}\n", f"  {SECRET}\t"])
def test_white_space_around_a_token_is_not_sent(tmp_path: Path, lock: KnownHashes, token: str) -> None:
    with BadServer({GATED_PATH: ROWS}) as hub:
        fetch_file(
            Download(GATED, tmp_path / "lima.jsonl", access=ACCESS),
            lock,
            FetchSettings(environment={"HF_ENDPOINT": hub.url, "HF_TOKEN": token}),
        )
    assert [headers["authorization"] for headers in hub.asked(GATED_PATH)] == [f"Bearer {SECRET}"]


def test_an_empty_token_is_none(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({GATED_PATH: ROWS}) as hub:
        fetch_file(
            Download(GATED, tmp_path / "lima.jsonl", access=ACCESS),
            lock,
            FetchSettings(environment={"HF_ENDPOINT": hub.url, "HF_TOKEN": " \n"}),
        )
    assert "authorization" not in hub.asked(GATED_PATH)[0]


def test_the_password_of_a_mirror_is_used_and_not_shown(
    tmp_path: Path, lock: KnownHashes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="instruction_modelling")
    with BadServer({PATH: ROWS}, {PATH: [reply(404, b"")]}) as server:
        own = settings(
            server,
            environment={"IM_MIRROR_RAW_GITHUBUSERCONTENT_COM": server.url.replace("//", "//me:pa55word@")},
        )
        with pytest.raises(DownloadFailed, match=r"mirror 127\.0\.0\.1:\d+\).* 404") as raised:
            fetch_file(rows(tmp_path), lock, own)
        fetch_file(rows(tmp_path), lock, own)
    assert all(headers["authorization"].startswith("Basic ") for headers in server.asked(PATH))
    assert "pa55word" not in str(raised.value) + caplog.text
    # At its usual level, the library that makes the requests logs their addresses.
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    "mirror",
    [
        "ftp://me:pa55word@host",
        "me:pa55word@host/x",
        "http://me:pa55word@[host",
        "http://me:pa55word@h:99999",
    ],
)
def test_a_mirror_that_is_no_address_is_named_by_its_variable(mirror: str) -> None:
    with pytest.raises(
        UserError, match="IM_MIRROR_GITHUB_COM in the environment is not an address"
    ) as raised:
        asked_address("https://github.com/a", {"IM_MIRROR_GITHUB_COM": mirror})
    assert "pa55word" not in str(raised.value)
    with pytest.raises(UserError, match="HF_ENDPOINT in the environment"):
        asked_address("https://huggingface.co/a", {"HF_ENDPOINT": mirror})


def test_a_token_is_for_its_host_and_goes_over_no_open_connection() -> None:
    environment = {"HF_TOKEN": TOKEN}
    assert token_for("https://huggingface.co/x", environment) == TOKEN
    for other in (
        "https://huggingface.co.evil.example/x",
        "https://cdn.huggingface.co/x",
        "https://evil.example/huggingface.co",
    ):
        assert token_for(other, environment) is None
    hub = "https://huggingface.co/a"
    assert may_carry(hub, "https://huggingface.co/b")
    for other in ("http://huggingface.co/b", "https://huggingface.co:8443/b", "https://cdn.huggingface.co/b"):
        assert not may_carry(hub, other)
    assert may_carry("http://127.0.0.1:5/a", "http://127.0.0.1:5/b")
    assert not may_carry("http://127.0.0.1:5/a", "http://127.0.0.1:6/b")
    assert not may_carry("http://mirror.example/a", "http://mirror.example/a")
    assert host_and_port("https://me:secret@mirror.example:1/x") == "mirror.example:1"


def test_redirects_do_not_leave_encrypted_connections_but_for_mirrors_and_the_loopback() -> None:
    assert next_address("https://a.example/x/y", "../z", {}) == "https://a.example/z"
    assert next_address("https://a.example/x", "https://b.example/y", {}) == "https://b.example/y"
    assert next_address("http://a.example/x", "http://b.example/y", {}) == "http://b.example/y"
    assert next_address("https://a.example/x", "http://127.0.0.1:9/y", {}) == "http://127.0.0.1:9/y"
    mirror = {"IM_MIRROR_B_EXAMPLE": "http://mirror.example/b"}
    assert next_address("https://a.example/x", "https://b.example/y", mirror) == "http://mirror.example/b/y"
    with pytest.raises(WrongAddress, match=r"from https to http://b\.example"):
        next_address("https://a.example/x", "http://b.example/y", {})


@pytest.mark.parametrize(
    "location",
    ["http://[bad", "http://host:99999/x", "http://:80/x", "file:///etc/passwd", "http://a\x01b/x"],
)
def test_a_redirect_to_no_address_is_an_error_in_words(
    tmp_path: Path, lock: KnownHashes, location: str
) -> None:
    with (
        BadServer({}, {PATH: [redirect(location) for _ in range(4)]}) as server,
        pytest.raises(DownloadFailed),
    ):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert left(tmp_path) == []


def rest(content: bytes, begin: int, end: int, **headers: str) -> Fault:
    """A part of a file, whatever was asked for."""
    return reply(
        206,
        content[begin:end],
        Content_Range=f"bytes {begin}-{end - 1}/{len(content)}",
        Content_Length=str(end - begin),
        **headers,
    )


def test_the_rest_of_another_file_is_not_appended(tmp_path: Path, lock: KnownHashes) -> None:
    """The file changes, and the server sends a part of it all the same (If-Range asks it not to)."""
    other = ROWS.replace(b"abc", b"xyz")
    server = BadServer({PATH: other})
    server.faults = {
        PATH: [
            lambda handler, _: server.send(handler, ROWS, stop_after=50_000),
            rest(other, 50_000, len(other), ETag='"other"'),
        ]
    }
    with server:
        fetch_file(rows(tmp_path), lock, settings(server))
    assert (tmp_path / "rows.jsonl").read_bytes() == other
    assert [headers.get("range") for headers in server.asked(PATH)] == [None, "bytes=50000-", None]


def test_a_part_that_is_shorter_than_asked_for_is_gone_on_from(tmp_path: Path, lock: KnownHashes) -> None:
    server = BadServer({PATH: ROWS})
    # Parts that end at the end of a row look whole.
    ends = [ROWS.index(b"\n", 100_000 * number) + 1 for number in (1, 2, 3)]
    etag = f'"{hashlib.sha256(ROWS).hexdigest()[:16]}"'
    server.faults = {
        PATH: [
            cut(server, ends[0]),
            rest(ROWS, ends[0], ends[1], ETag=etag),
            rest(ROWS, ends[1], ends[2], ETag=etag),
        ]
    }
    with server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
    assert [headers.get("range") for headers in server.asked(PATH)] == [
        None,
        *(f"bytes={end}-" for end in ends),
    ]


def test_a_body_packed_for_the_way_is_unpacked_and_not_put_together_from_parts(
    tmp_path: Path, lock: KnownHashes
) -> None:
    packed = gzip.compress(ROWS)
    whole = {"Content_Encoding": "gzip", "Content_Length": str(len(packed)), "ETag": '"x"'}
    faults: list[Fault | None] = [
        reply(200, packed[: len(packed) // 2], **whole),
        reply(200, packed, **whole),
    ]
    with BadServer({PATH: ROWS}, {PATH: faults}) as server:
        assert fetch_file(rows(tmp_path), lock, settings(server)).sha256 == DIGEST
    assert [headers["accept-encoding"] for headers in server.asked(PATH)] == ["identity"] * 2
    assert not any("range" in headers for headers in server.asked(PATH))


@pytest.mark.parametrize(
    "answer",
    [
        lambda: reply(200, b"not packed", Content_Encoding="gzip", Content_Length="10"),
        lambda: reply(200, b"", Content_Length="-5"),
        lambda: reply(200, b"", Content_Length="\u00b2"),
        lambda: reply(429, b"", Retry_After="\u00b2"),
        lambda: reply(206, b"", Content_Range="bytes 0-1/" + "9" * 5000),
        lambda: reply(206, b"{}", Content_Range="nonsense", Content_Length="2"),
        lambda: reply(416, b""),
        lambda: reply(204, b""),
        lambda: reply(999, b""),
        lambda: reply(304, b""),
        lambda: reply(429, b"", Retry_After="9" * 400),
        lambda: reply(429, b"", Retry_After="soon"),
    ],
)
def test_answers_that_make_no_sense_are_errors_in_words(
    tmp_path: Path, lock: KnownHashes, answer: Any
) -> None:
    with BadServer({}, {PATH: [answer() for _ in range(6)]}) as server, pytest.raises(DownloadFailed):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert left(tmp_path) == [] and len(server.requests) <= 3


def test_attempts_end_where_each_begins_anew_and_none_comes_further(
    tmp_path: Path, lock: KnownHashes
) -> None:
    server = BadServer({PATH: ROWS}, ranges=False, etags=False)
    server.faults = {PATH: [cut(server, (20_000, 50_000)[number % 2]) for number in range(100)]}
    with server, pytest.raises(DownloadFailed, match="given up after 3 attempts"):
        fetch_file(rows(tmp_path), lock, settings(server))
    assert len(server.requests) == 5


def test_an_archive_cut_by_a_server_that_says_no_length_is_fetched_again(
    tmp_path: Path, lock: KnownHashes
) -> None:
    packed = gzip.compress(ROWS)
    server = BadServer({"/rows.jsonl.gz": packed}, length=False)
    server.faults = {"/rows.jsonl.gz": [cut(server, len(packed) // 2)]}
    with server:
        fetch_file(
            rows(
                tmp_path,
                url="https://raw.githubusercontent.com/rows.jsonl.gz",
                path=tmp_path / "rows.jsonl.gz",
            ),
            lock,
            settings(server),
        )
    assert gzip.decompress((tmp_path / "rows.jsonl.gz").read_bytes()) == ROWS


def test_a_pause_of_no_seconds_does_not_hurry_the_attempts(tmp_path: Path, lock: KnownHashes) -> None:
    with BadServer({PATH: ROWS}, {PATH: [reply(503, b"", Retry_After="0")]}) as server:
        begin = time.monotonic()
        fetch_file(rows(tmp_path), lock, settings(server, pause=0.4))
    assert time.monotonic() - begin >= 0.2


def test_a_pause_until_a_time_of_day_is_kept(tmp_path: Path, lock: KnownHashes) -> None:
    after = email.utils.formatdate(time.time() + 2, usegmt=True)
    with BadServer({PATH: ROWS}, {PATH: [reply(429, b"", Retry_After=after)]}) as server:
        begin = time.monotonic()
        fetch_file(rows(tmp_path), lock, settings(server))
    assert 0.9 <= time.monotonic() - begin < 4


def test_a_known_size_tells_a_cut_where_no_length_is_said(tmp_path: Path, lock: KnownHashes) -> None:
    server = BadServer({PATH: ROWS}, length=False)
    server.faults = {PATH: [cut(server, ROWS.index(b"\n", 50_000) + 1)]}
    with server:
        assert fetch_file(rows(tmp_path, size=len(ROWS)), lock, settings(server)).sha256 == DIGEST


@pytest.mark.parametrize(
    ("variable", "value"), [("SSL_CERT_FILE", "/no/such/file"), ("ALL_PROXY", "gopher://me:pa55word@host")]
)
def test_an_environment_without_a_way_out_is_named(
    tmp_path: Path, lock: KnownHashes, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(DownloadFailed, match=variable) as raised:
        fetch_file(rows(tmp_path), lock)
    assert "pa55word" not in str(raised.value) and left(tmp_path) == []


def test_what_is_in_the_way_of_a_file_is_named(tmp_path: Path, lock: KnownHashes) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    with (
        BadServer({PATH: ROWS}) as server,
        pytest.raises(DownloadFailed, match=r"rows\.jsonl cannot be written: Is a directory"),
    ):
        fetch_file(rows(tmp_path), lock, settings(server))


def test_an_interrupted_download_of_several_files_ends_at_once(tmp_path: Path, lock: KnownHashes) -> None:
    """What a caller raises (Ctrl-C is raised so) stops every transfer; what came stays for the next run."""
    paths = [f"/f/{number}.jsonl" for number in range(3)]
    with BadServer(dict.fromkeys(paths, ROWS), {path: [slowly(2_000, 0.05)] for path in paths}) as server:
        calls = 0

        def received(count: int, expected: int | None) -> None:
            nonlocal calls
            calls += 1
            if calls == 20:
                raise KeyboardInterrupt

        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetch_all(
                [Download("https://raw.githubusercontent.com" + path, tmp_path / path[3:]) for path in paths],
                lock,
                settings(server),
                received,
            )
    assert time.monotonic() - begin < 4
    assert not any(name.endswith(".jsonl") for name in left(tmp_path))


def test_a_part_is_one_fetchers_at_a_time_and_is_not_taken_away_from_the_next(tmp_path: Path) -> None:
    target, order = tmp_path / "a.jsonl", []

    def second() -> None:
        with exclusive_part(target) as part:
            assert part is not None
            order.append("second")
            # The first one found nothing to keep and removed its own; this one's stays.
            time.sleep(0.1)
            part.append(b"{}")
            assert part.size == 2 and part.is_named()

    with exclusive_part(target):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and part_path(target).read_bytes() == b"{}"


def test_waiting_for_another_fetcher_can_be_stopped(tmp_path: Path) -> None:
    stop = threading.Event()
    with exclusive_part(tmp_path / "a.jsonl"):
        threading.Timer(0.1, stop.set).start()
        with exclusive_part(tmp_path / "a.jsonl", stop) as part:
            assert part is None


OTHER = ROWS.replace(b"abc", b"xyz")
KINDS: dict[str, Callable[[BadServer, int], Fault]] = {
    "cut": lambda server, at: cut(server, at),
    "cut where a row ends": lambda server, at: cut(server, ROWS.index(b"\n", at) + 1),
    "busy": lambda server, at: status(503),
    "moved": lambda server, at: redirect("/copy"),
    "a part of another file": lambda server, at: rest(OTHER, at, len(OTHER), ETag='"other"'),
    "a wrong part": lambda server, at: rest(ROWS, at, len(ROWS), ETag='"same"'),
    "a page": lambda server, at: instead(b"<html>"),
    "another file, cut": lambda server, at: lambda handler, _: server.send(handler, OTHER, stop_after=at),
    "the beginning as all, without a length": lambda server, at: reply(200, ROWS[:at], ETag='"same"'),
}


@tried(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, len(ROWS) - 500)), max_size=6),
    known=st.booleans(),
    ranges=st.booleans(),
    etags=st.booleans(),
)
def test_whatever_a_server_does_only_the_whole_file_gets_its_name(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, known: bool, ranges: bool, etags: bool
) -> None:
    """Of a server that says how long its files are, or of a file whose hash is known."""
    folder = tmp_path_factory.mktemp("fetched")
    server = BadServer({PATH: ROWS, "/copy": ROWS}, ranges=ranges, etags=etags)
    # Without a length or a hash, a beginning that ends where a row ends is a file like any other.
    faults: list[Fault | None] = [
        KINDS[kind](server, at) for kind, at in steps if known or "without a length" not in kind
    ]
    server.faults = {PATH: faults}
    with server:
        for _ in range(2):
            try:
                fetch_file(
                    rows(folder, sha256=DIGEST if known else None),
                    KnownHashes(folder / "lock.json"),
                    settings(server, pause=0.001),
                )
                break
            except DownloadFailed:
                assert not (folder / "rows.jsonl").exists()
    if (folder / "rows.jsonl").exists():
        # Two pieces of another file may add up to the whole of it, which a known hash alone tells apart.
        assert (folder / "rows.jsonl").read_bytes() in ((ROWS,) if known else (ROWS, OTHER))
