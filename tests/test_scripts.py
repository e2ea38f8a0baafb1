"""The shell scripts: that they are sound, and what setup, test and CI do, on a made-up repository with a
stand-in Python."""

import os
import re
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [
    *sorted((ROOT / "scripts").glob("*.sh")),
    *sorted((ROOT / "scripts").glob("*/*.sbatch")),
    ROOT / ".ci" / "run",
    *sorted(ROOT.glob("*.sh")),
]
TOOLS = (
    "bash",
    "cat",
    "cksum",
    "cp",
    "dirname",
    "env",
    "flock",
    "grep",
    "head",
    "id",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "sleep",
    "tail",
    "touch",
)
INSTALLS = [
    "install torch==2.13.0",
    "install -r requirements.txt -r requirements-eval.txt",
    "install --no-deps --no-build-isolation -e .",
]

# Stands in for Python, pip and the model's script: it keeps a log of what it is asked, and fails where it is
# told to.
FAKE_PYTHON = """#!/usr/bin/env bash
log=$FAKE_ROOT/asked.log
case $* in
    -c\\ *"< (3, 11)"*) [[ ! -f $FAKE_ROOT/python_is_old ]] ;;
    --version) if [[ -f $FAKE_ROOT/python_is_old ]]; then echo Python 3.9.2; else echo Python 3.11.7; fi ;;
    "-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >>"$log" ;;
    "-m pip --version") ;;
    "-m pip install "*)
        [[ ! -f $FAKE_ROOT/pip_fails ]] || { echo "ERROR: no network" >&2; exit 1; }
        sleep 0.1
        printf '%s\\n' "$*" | sed 's/-m pip //; s/-qq .*--progress-bar off //' >>"$log"
        touch .venv/installed ;;
    "-m compileall "*) [[ -f .venv/installed ]] && touch .venv/compiled; exit 1 ;;
    -) cat >/dev/null; [[ -f .venv/installed ]] ;;
    "src/fetch_model.py --check_only") [[ -f models/whole ]] ;;
    src/fetch_model.py)
        [[ ! -f $FAKE_ROOT/fetch_fails ]] || { echo "error: the model cannot be fetched" >&2; exit 2; }
        echo fetch >>"$log"; mkdir -p models; touch models/whole; echo saved ;;
    "-m ruff"* | "-m mypy"* | "-m pytest"*)
        echo "$* [threads $OMP_NUM_THREADS]" >>"$log"
        [[ ! -f $FAKE_ROOT/fails_$2 ]] || exit 1
        [[ $* != *"-m slow"* ]] || exit 5 ;;
    *) echo "not expected: $*" >>"$log"; exit 9 ;;
esac
"""


class Repository:
    """A folder with this project's scripts, whose only Python is the stand-in."""

    def __init__(self, root: Path):
        self.root = root
        (root / "scripts").mkdir(parents=True)
        (root / ".ci").mkdir()
        for name in ("scripts/setup.sh", "scripts/test.sh", ".ci/run"):
            shutil.copy(ROOT / name, root / name)
        (root / "requirements.txt").write_text("# pins\ntorch==2.13.0\nnumpy==2.4.6\n")
        (root / "requirements-eval.txt").write_text("lm-eval==0.4.13\n")
        (root / "pyproject.toml").write_text("[project]\n")
        self.bin = root / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is None:
                pytest.skip(f"this machine has no {tool}")
            (self.bin / tool).symlink_to(found)
        (self.bin / "python3").write_text(FAKE_PYTHON)
        (self.bin / "python3").chmod(0o755)

    def start(self, script: str, *arguments: str) -> "subprocess.Popen[str]":
        environment = {"PATH": str(self.bin), "FAKE_ROOT": str(self.root), "HOME": str(self.root)}
        # From another folder, as a user may.
        return subprocess.Popen(
            [self.bin / "bash", self.root / script, *arguments],
            env=environment,
            cwd="/",
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, script: str, *arguments: str) -> tuple[int, str]:
        process = self.start(script, *arguments)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def setup(self, *arguments: str) -> tuple[int, str]:
        return self.run("scripts/setup.sh", "--no_system_packages", *arguments)

    def asked(self) -> list[str]:
        """What the stand-in was asked since the last call."""
        log = self.root / "asked.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "a project")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_is_strict(script: Path) -> None:
    text = script.read_text()
    shell, strict = (
        ("sh", ("set -eu",))
        if text.startswith("#!/bin/sh\n")
        else ("bash", ("set -euo pipefail", "set -uo pipefail"))
    )
    parsed = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (parsed.returncode, parsed.stderr) == (0, "")
    assert text.startswith(("#!/bin/sh\n", "#!/usr/bin/env bash\n")) and any(
        words in text for words in strict
    )
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run(["shellcheck", "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""


def test_setup_is_quick_when_nothing_is_to_do() -> None:
    setup = ["bash", str(ROOT / "scripts" / "setup.sh")]
    if subprocess.run([*setup, "--check"], capture_output=True).returncode:
        pytest.skip("scripts/setup.sh has not made the environment these tests run in, or not the model")
    started = time.monotonic()
    ran = subprocess.run(setup, capture_output=True, text=True, cwd="/")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert time.monotonic() - started < 5
    assert ran.stdout.startswith("[setup] ready")


def test_setup_installs_torch_first_and_alone_and_only_once(repository: Repository) -> None:
    code, output = repository.setup()
    assert code == 0, output
    assert repository.asked() == ["venv", *INSTALLS, "fetch"]
    assert (repository.root / ".venv" / "compiled").is_file()
    assert all(line.startswith("[setup] ") for line in output.splitlines())
    code, output = repository.setup()
    assert code == 0
    assert output.splitlines()[0].startswith("[setup] ready") and len(output.splitlines()) == 1
    assert repository.asked() == []


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-eval.txt", "pyproject.toml"])
def test_setup_installs_again_after_a_change(repository: Repository, file: str) -> None:
    repository.setup()
    repository.asked()
    with (repository.root / file).open("a") as handle:
        handle.write("# changed\n")
    assert repository.setup()[0] == 0
    assert repository.asked() == INSTALLS


def test_setup_installs_again_where_a_package_is_not_what_was_asked(repository: Repository) -> None:
    repository.setup()
    repository.asked()
    (repository.root / ".venv" / "installed").unlink()
    assert repository.setup()[0] == 0
    assert repository.asked() == INSTALLS


def test_setup_makes_the_environment_again_after_a_move(repository: Repository, tmp_path: Path) -> None:
    repository.setup()
    repository.asked()
    moved = tmp_path / "moved"
    repository.root.rename(moved)
    repository.root, repository.bin = moved, moved / "bin"
    assert repository.setup()[0] == 0
    assert repository.asked() == ["venv", *INSTALLS]


def test_setup_holds_packages_to_their_hashes_where_asked(repository: Repository) -> None:
    assert repository.run("scripts/setup.sh", "--no_system_packages", "--locked")[0] == 0
    locked = [INSTALLS[0], "install --no-deps --require-hashes -r requirements.lock", INSTALLS[2]]
    assert repository.asked() == ["venv", *locked, "fetch"]


def test_setup_names_a_python_that_is_too_old(repository: Repository) -> None:
    (repository.root / "python_is_old").touch()
    code, output = repository.setup()
    assert code == 1
    assert "Python 3.11 or newer is needed: python3 is Python 3.9.2" in output
    assert "PYTHON=" in output
    assert not (repository.root / ".venv").exists()


def test_setup_goes_on_after_pip_failed(repository: Repository) -> None:
    (repository.root / "pip_fails").touch()
    code, output = repository.setup()
    assert code == 1
    assert "ERROR: no network" in output and "error: pip could not install this: torch==2.13.0" in output
    assert repository.setup("--check")[0] == 1
    (repository.root / "pip_fails").unlink()
    repository.asked()
    assert repository.setup()[0] == 0
    assert repository.asked() == [*INSTALLS, "fetch"]


def test_setup_without_the_model(repository: Repository) -> None:
    (repository.root / "fetch_fails").touch()
    code, output = repository.setup()
    assert code == 1
    assert "error: the model cannot be fetched" in output and "--no_model" in output
    assert repository.setup("--check")[0] == 1
    assert repository.setup("--no_model")[0] == 0
    assert repository.setup("--check", "--no_model")[0] == 0


def test_setup_check_changes_nothing(repository: Repository) -> None:
    before = sorted(repository.root.rglob("*"))
    assert repository.setup("--check") == (1, "")
    assert sorted(repository.root.rglob("*")) == before


def test_two_setups_at_once_install_once(repository: Repository) -> None:
    both = [repository.start("scripts/setup.sh", "--no_system_packages") for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert repository.asked() == ["venv", *INSTALLS, "fetch"]
    assert sum("waiting for another setup" in output for output in outputs) == 1


def test_setup_refuses_an_unknown_option(repository: Repository) -> None:
    code, output = repository.setup("--fast")
    assert code == 1 and "--fast: no such option" in output and "usage:" in output
    assert repository.asked() == []


@pytest.fixture
def ready(repository: Repository) -> Repository:
    """A made-up repository whose environment is there."""
    code, output = repository.setup()
    assert code == 0, output
    # Left out once, system packages stay out of the set-up that other scripts begin with.
    assert (repository.root / ".venv" / ".setup-system-packages").exists()
    repository.asked()
    return repository


def test_tests_run_every_check_and_name_the_one_that_failed(ready: Repository) -> None:
    (ready.root / "fails_ruff").touch()
    code, output = ready.run("scripts/test.sh")
    assert code == 1
    asked = [line.split()[1] for line in ready.asked()]
    # mypy runs beside the tests.
    assert asked[0] == "ruff" and sorted(asked) == ["mypy", "pytest", "ruff"]
    assert "[test] FAILED: ruff (" in output.splitlines()[-1]
    assert [line.split()[:3] for line in output.splitlines()[-4:-1]] == [
        ["[test]", "ruff", "FAILED"],
        ["[test]", "tests", "passed"],
        ["[test]", "mypy", "passed"],
    ]


def test_tests_pass_arguments_on_and_run_slow_ones_last(ready: Repository) -> None:
    code, output = ready.run("scripts/test.sh", "--slow", "tests/test_a b.py")
    assert code == 0, output
    asked = ready.asked()
    assert [
        ("-m not slow tests/test_a b.py [" in line, "-m slow tests/test_a b.py [" in line)
        for line in asked
        if "pytest" in line
    ] == [(True, False), (False, True)]
    assert all("[threads 1]" in line for line in asked)
    assert "none to run" in output and output.splitlines()[-1].startswith("[test] all passed")


def test_tests_do_not_start_without_an_environment(repository: Repository) -> None:
    (repository.root / "pip_fails").touch()
    code, output = repository.run("scripts/test.sh")
    assert code == 1 and output.splitlines()[-1] == "[test] FAILED: setup"
    assert repository.asked() == ["venv"]


@pytest.mark.parametrize("failing", ["pytest", "mypy", None])
def test_ci_stops_at_the_first_failure_and_says_how_long_it_took(
    ready: Repository, failing: str | None
) -> None:
    (ready.root / "scripts" / "quickstart.sh").write_text('echo "quickstart $*"\nexit 3\n')
    if failing:
        (ready.root / f"fails_{failing}").touch()
    code, output = ready.run(".ci/run")
    assert code == (1 if failing else 3)
    assert ("quickstart --fast" in output) == (failing is None)
    assert output.splitlines()[-1].startswith("[ci] ") and output.splitlines()[-1].endswith(" s in all")


def test_files_are_looked_for_where_the_script_is_called_and_before_anything_is_set_up(
    repository: Repository, tmp_path: Path
) -> None:
    """It is called from another folder (`Repository.start`); a set-up takes minutes."""
    root = repository.root
    (root / "scripts" / "sourced").mkdir()
    for name in ("try_im.sh", "quickstart.sh", "sourced/from_anywhere.sh"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts" / name)
    for script, arguments, said in (
        ("try_im.sh", ["absent.jsonl"], "absent.jsonl: there is no such file"),
        ("try_im.sh", ["lab/rows:", "./absent", "--budget", "2h"], "./absent: there is no such folder"),
        ("quickstart.sh", ["--train_file", "absent.jsonl"], "absent.jsonl: there is no such file"),
        ("quickstart.sh", ["--model", "scripts/absent"], "scripts/absent: there is no such folder"),
    ):
        code, output = repository.run(f"scripts/{script}", *arguments)
        assert code == 2 and output.splitlines()[-1] == f"error: {said}"
        assert repository.asked() == []
    (root / "scripts" / "setup.sh").write_text("exit 0\n")
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text('#!/bin/bash\nprintf "<%s> " "$@"\n')
    python.chmod(0o755)
    (tmp_path / "my rows.jsonl").write_text("{}\n")
    given = str(tmp_path / "my rows.jsonl").lstrip("/")
    more = ["--budget", "2h", "--arms_file", given, "--out_of_domain", given, "--arms", given]
    code, output = repository.run("scripts/try_im.sh", given, "lab/model", *more)
    # What names a file is found from there, and nothing else is touched.
    found = [
        f"/{word}" if flag in ("--arms_file", "--out_of_domain") else word
        for flag, word in pairwise(["", *more])
    ]
    words = ["src/try_im.py", f"/{given}", "--model_name_or_path", "lab/model", *found]
    # The folder that it is called from is "/".
    assert (code, output.replace("<//", "</")) == (0, "".join(f"<{word}> " for word in words))


def scripts_with_python(root: Path, says: str) -> None:
    """Copies the scripts; nothing is set up, and bash lines stand for their Python."""
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "scripts" / "setup.sh").write_text("exit 0\n")
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/bash\n{says}\n")
    python.chmod(0o755)


def test_what_every_script_is_given_is_found_where_it_is_called(tmp_path: Path) -> None:
    """Models and files are inputs; a folder of results is the repository's, and it is said."""
    root, lab = tmp_path / "project", tmp_path / "lab"
    scripts_with_python(root, 'printf "%s " "$@"\necho')
    for name in ("it", "templates", "data"):
        (lab / name).mkdir(parents=True)
    for name in ("rows.jsonl", "mine.toml", "zero.conf"):
        (lab / name).write_text("{}\n")

    def said(script: str, *arguments: str, **environment: str) -> tuple[str, str]:
        clean = {name: value for name, value in os.environ.items() if name not in ("RESULTS", "ARM")}
        done = subprocess.run(
            ["bash", root / "scripts" / script, *arguments],
            cwd=lab,
            env={**clean, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    for part, flag in (("nlp", "local_dir"), ("humaneval", "data_file"), ("mt_bench", "data_dir")):
        out, err = said(f"eval_{part}.sh", "--results", "mine", "it/", "other/it2", "--", f"--{flag}", "data")
        assert f"--model_name_or_path {lab}/it " in out and "--model_name_or_path other/it2 " in out
        assert f"--{flag} {lab}/data " in out and f"results go to {root}/mine\n" in err
    out, _ = said("eval_alpaca_eval.sh", "it")
    assert (
        f"--model_name_or_path {lab}/it --save_dir results/eval/it/alpaca_eval" in out or f"{lab}/it" in out
    )
    out, err = said("eval_all.sh", "--dry_run", "--no_judge", "it", NLP_FLAGS="--local_dir data")
    assert f"scripts/eval_nlp.sh {lab}/it -- --local_dir {lab}/data" in out
    assert f"results go to {root}/results/eval\n" in err
    out, _ = said("study.sh", "--dolly", "rows.jsonl", "--lima=rows.jsonl", "--output_dir", "data")
    assert out == f"src/study.py --dolly {lab}/rows.jsonl --lima={lab}/rows.jsonl --output_dir data \n"
    out, _ = said("sweep_chat_formats.sh", "--templates", "templates", "data", "--output_dir", "data")
    assert f"--templates {lab}/templates {lab}/data --output_dir data" in out
    out, _ = said("try_im.sh", "rows.jsonl", "--arms_file=mine.toml")
    assert out == f"src/try_im.py {lab}/rows.jsonl --arms_file={lab}/mine.toml \n"
    out, err = said(
        *("launch_multi_node.sh", "--model_name_or_path", "it", "--train_file", "rows.jsonl", "rows.jsonl"),
        *("--output_dir", "data"),
        **{"NNODES": "2", "HEAD_ADDR": "a", "DRY_RUN": "1", "DEEPSPEED_CONFIG": "zero.conf"},
    )
    assert f"--deepspeed_config_file {lab}/zero.conf " in out and f"results go to {root}/data\n" in err
    assert (
        f"--model_name_or_path {lab}/it --train_file {lab}/rows.jsonl {lab}/rows.jsonl --output_dir data"
        in out
    )


def test_a_file_of_arms_is_the_comparisons_alone_and_found_where_the_quickstart_is_called(
    tmp_path: Path,
) -> None:
    root = tmp_path / "project"
    scripts_with_python(root, 'echo "$@" >>asked')
    (tmp_path / "mine.toml").write_text("")
    done = subprocess.run(
        [
            "bash",
            root / "scripts" / "quickstart.sh",
            "--fast",
            "--arms_file",
            "mine.toml",
            "--columns",
            "a=b",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (root / "asked").read_text().splitlines()
    with_arms = {line.split()[0] for line in lines if f"--arms_file {tmp_path}/mine.toml" in line}
    with_columns = {line.split()[0] for line in lines if "--columns a=b" in line}
    assert with_arms == {"src/compare.py"}
    assert with_columns == {"src/compare.py", "src/inspect_weights.py", "src/analyze_data.py"}


def test_what_a_gpu_adds_is_pinned_and_needs_no_compiler() -> None:
    files = {
        name: (ROOT / f"requirements-{name}.txt").read_text().splitlines() for name in ("gpu", "flash-attn")
    }
    wanted = {name: [line.split("#")[0].strip() for line in lines] for name, lines in files.items()}
    pins = {name: [line for line in lines if line] for name, lines in wanted.items()}
    assert all(re.fullmatch(r"[a-z-]+==[0-9a-z.]+", pin) for of in pins.values() for pin in of)
    # flash-attn has no wheel: where it cannot be built, nothing beside it may be lost.
    assert [pin.split("==")[0] for pin in pins["flash-attn"]] == ["flash-attn"]
    assert [pin.split("==")[0] for pin in pins["gpu"]] == ["liger-kernel", "bitsandbytes"]
