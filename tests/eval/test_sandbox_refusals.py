"""A sandbox with a hole is refused before anything runs in it; the filter of system calls."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_candidates import needs_bubblewrap, verdict_of

from eval.sandbox import bubblewrap, system_calls
from eval.sandbox.bubblewrap import Limits, Sandbox
from eval.sandbox.self_test import check_sandbox
from instruction_modelling.errors import UserError


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@needs_bubblewrap
def test_a_sandbox_that_works_is_found_to_work(sandbox: Sandbox) -> None:
    check_sandbox(sandbox)


@needs_bubblewrap
@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("--share-net", "no network"),
        ("--bind / /host", "no files of the host"),
        ("--tmpfs /lib32", "nothing to write to"),
        ("--setenv TOKEN secret", "no environment"),
    ],
)
def test_a_sandbox_with_a_hole_is_refused(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, flaw: str, said: str
) -> None:
    whole = Sandbox._command

    def leaky(self: Sandbox) -> list[str]:
        command = whole(self)
        place = command.index("--proc")
        return [*command[:place], *flaw.split(), *command[place:]]

    monkeypatch.setattr(Sandbox, "_command", leaky)
    with pytest.raises(UserError, match=f"does not keep what it should.*{said}"):
        check_sandbox(sandbox)


@needs_bubblewrap
def test_a_bubblewrap_that_cannot_be_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: "/nowhere/bwrap")
    with Sandbox() as sandbox, pytest.raises(UserError, match="could not be started"):
        check_sandbox(sandbox)


@needs_bubblewrap
@pytest.mark.parametrize(
    "limit", [Limits(processes=500), Limits(memory=2**36), Limits(file=2**34, files=2**31)]
)
def test_a_sandbox_without_a_limit_is_refused(limit: Limits) -> None:
    with Sandbox(limit) as loose, pytest.raises(UserError, match="does not keep what it should"):
        check_sandbox(loose)


@needs_bubblewrap
def test_a_sandbox_without_its_filter_is_refused(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # One instruction: everything is allowed.
    monkeypatch.setattr(sandbox, "_filter", bytes.fromhex("060000000000ff7f"))
    with pytest.raises(UserError, match="system calls refused"):
        check_sandbox(sandbox)


@needs_bubblewrap
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_packages_that_only_root_can_read_are_copied_for_the_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "numpy"
    package.mkdir()
    (package / "__init__.py").write_text("marker = 2\n")
    package.chmod(0o700)
    monkeypatch.setattr(bubblewrap, "_numpy", lambda: {"numpy": package})
    with Sandbox() as own:
        assert verdict_of(own, "    import numpy\n    return x - 1 + numpy.marker\n").passed


def test_without_bubblewrap_nothing_runs_and_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="apt-get install bubblewrap"):
        Sandbox()


@needs_bubblewrap
def test_what_bubblewrap_complains_of_is_passed_on(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Sandbox._command
    monkeypatch.setattr(Sandbox, "_command", lambda self: [*whole(self), "--no-such-option"])
    with pytest.raises(UserError, match=r"does not start, .* \(bwrap: Unknown option --no-such-option\)"):
        check_sandbox(sandbox)


@pytest.mark.skipif(shutil.which("false") is None, reason="there is no program that fails")
def test_a_bubblewrap_that_cannot_make_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    false = shutil.which("false")
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: false)
    with Sandbox() as sandbox, pytest.raises(UserError, match="does not start"):
        check_sandbox(sandbox)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_the_filter_lets_reading_pass_and_stops_what_is_listed(machine: str) -> None:
    kind, column = system_calls.MACHINES[machine]
    program = system_calls.filter_program(machine)
    refused, absent, allowed, killed = 0x00050001, 0x00050026, 0x7FFF0000, 0x80000000
    read = (0, 63)[column]
    assert answer(program, kind, read) == allowed
    for name, both in system_calls.REFUSED.items():
        number = both[column]
        if number is not None:
            assert answer(program, kind, number) == refused, name
    assert answer(program, kind, system_calls.CLONE3) == absent
    assert answer(program, kind, system_calls.CLONE[column], 17) == allowed
    prctl = (157, 167)[column]
    assert answer(program, kind, prctl, 1) == refused
    assert answer(program, kind, prctl, 15) == allowed
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(program, kind, system_calls.CLONE[column], flag | 17) == refused
    assert answer(program, 0x40000003, read) == killed
    if machine == "x86_64":
        assert answer(program, kind, 0x40000000 | read) == refused


def answer(program: bytes, machine: int, number: int, argument: int = 0) -> int:
    """What the kernel would make of a system call: a filter of its own machine's instructions, carried out
    here."""
    import struct

    data = struct.pack("=IIQQ", number, machine, 0, argument)
    steps = list(struct.iter_unpack("=HBBI", program))
    place = held = 0
    while True:
        code, true, false, value = steps[place]
        if code == 0x06:
            return value
        if code == 0x20:
            held = struct.unpack_from("=I", data, value)[0]
            place += 1
            continue
        holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
        place += 1 + (true if holds else false)


def test_a_machine_without_a_table_has_no_filter() -> None:
    with pytest.raises(LookupError):
        system_calls.filter_program("pdp11")
