"""Training sets from their addresses to rows of chat, through mirrors that serve real and made-up files."""

import gzip
import io
import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bad_server import BadServer, cut, stall, status
from raw_samples import turns, write_json, write_tulu_parts
from tiny import make_tiny_tokenizer
from training_runs import ROOT, run

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.sources.conversion.formats import CONVERTERS, converter_of
from instruction_modelling.sources.conversion.mixtures import MIXTURES, TULU_V2, build_mixture
from instruction_modelling.sources.conversion.options import ConversionOptions
from instruction_modelling.sources.conversion.sets import convert_set, converted_rows
from instruction_modelling.sources.conversion.templates import load_templates
from instruction_modelling.sources.downloads.archives import take_out
from instruction_modelling.sources.downloads.catalogue import ALPAGASUS_SETS, CATALOGUE, PAPER

HOSTS = ("HUGGINGFACE_CO", "RAW_GITHUBUSERCONTENT_COM", "GITHUB_COM", "BEAKER_ORG")
ALPACA = [{"instruction": f"Say {number}", "input": "", "output": f"{number}"} for number in range(20)]
DOLLY = "".join(
    json.dumps({"instruction": f"Name {number}", "context": "", "response": "So.", "category": "qa"}) + "\n"
    for number in range(30)
).encode()


def path(name: str, number: int = 0) -> str:
    """Where a server is asked for a file of a set."""
    return urlsplit(CATALOGUE[name].files[number].url).path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    """Stands for every host."""
    with BadServer({}) as server:
        for host in HOSTS:
            monkeypatch.setenv(f"IM_MIRROR_{host}", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_set_of_the_paper_and_every_part_of_the_mixtures_is_in_the_catalogue() -> None:
    assert len(PAPER) == 7 and {*PAPER, *ALPAGASUS_SETS} <= set(CATALOGUE)
    for name, mixture in MIXTURES.items():
        assert {part.format for part in mixture.parts} == set(CATALOGUE[name].parts) <= set(CATALOGUE)
    every = {name for one in CATALOGUE.values() for name in one.formats}
    assert every == {*CONVERTERS, "tulu_v1", "tulu_v2"}


def test_the_files_of_a_set_are_those_its_converter_looks_for() -> None:
    for one in CATALOGUE.values():
        names = {Path(member).name for file in one.files for member in file.members or (file.path,)}
        for name in one.formats if one.files else ():
            folders = {str(Path("raw_train") / folder) for folder in converter_of(name).folders or (name,)}
            assert one.folder in folders or one.folder.removeprefix("alpagasus/") in (
                converter_of(name).folders or ()
            )
            groups = [{Path(pattern).name for pattern in group} for group in converter_of(name).files]
            found = {name.removesuffix(".gz") for name in names}
            assert any(
                all(any(Path(there).match(pattern) for there in found) for pattern in group)
                for group in groups
            ), one.name


def test_addresses_are_https_and_the_authors_commit_is_pinned() -> None:
    urls = [file.url for one in CATALOGUE.values() for file in one.files]
    assert all(url.startswith("https://") for url in urls)
    assert all(
        "/325b77e256d44e6280ba123a8781b26ef85ec362/" in file.url
        for name in PAPER
        for file in CATALOGUE[name].files
    )


def test_the_real_files_have_the_hashes_and_sizes_of_the_catalogue(shared_data: Path) -> None:
    for name, place in (
        ("lima_data", "train/lima_data.jsonl"),
        ("alpagasus_3k_dolly", "train/alpagasus_3k_dolly.jsonl"),
        ("dolly_3k", "raw/alpagasus/dolly_3k.json"),
    ):
        file = CATALOGUE[name].files[0]
        assert (file.sha256, file.size) == (
            file_sha256(shared_data / place),
            (shared_data / place).stat().st_size,
        )


def test_sets_of_the_paper_come_as_their_authors_made_them(
    shared_data: Path, tmp_path: Path, server: BadServer
) -> None:
    for name in ("lima_data", "alpagasus_3k_dolly"):
        server.files[path(name)] = (shared_data / "train" / f"{name}.jsonl").read_bytes()
    # Two cuts on the way.
    server.faults = {path("lima_data"): [cut(server, 1_000_000), cut(server, 1_000_000)]}
    outcome = run("prepare_data", "lima_data", "alpagasus_3k_dolly", "--data_dir", tmp_path)
    assert outcome.code == 0, outcome.out + outcome.err
    assert (tmp_path / "lima_data.jsonl").read_bytes() == server.files[path("lima_data")]
    assert "1,030" in outcome.out and "2,996" in outcome.out
    again = run("prepare_data", "lima_data", "alpagasus_3k_dolly", "--data_dir", tmp_path)
    assert again.code == 0 and again.out.count("was there") == 2 and len(server.requests) == 4


def test_alpagasus_is_converted_to_the_instructions_and_outputs_of_the_authors_file(
    shared_data: Path, tmp_path: Path, server: BadServer
) -> None:
    server.files[path("dolly_3k")] = (shared_data / "raw" / "alpagasus" / "dolly_3k.json").read_bytes()
    outcome = run("prepare_data", "dolly_3k", "--data_dir", tmp_path)
    assert outcome.code == 0, outcome.out + outcome.err
    ours = rows(tmp_path / "processed" / "alpagasus_3k_dolly" / "alpagasus_3k_dolly_data.jsonl")
    theirs = rows(shared_data / "train" / "alpagasus_3k_dolly.jsonl")
    source = json.loads(server.files[path("dolly_3k")])
    assert len(ours) == len(theirs) == len(source) == 2996
    for own, other, row in zip(ours, theirs, source, strict=True):
        assert own["messages"][-1]["content"] == other["messages"][-1]["content"].strip()
        assert row["instruction"].strip() in own["messages"][0]["content"]
        assert row["instruction"].strip() in other["messages"][0]["content"]
    # Nothing is converted twice.
    before = (
        (tmp_path / "processed" / "alpagasus_3k_dolly" / "alpagasus_3k_dolly_data.jsonl").stat().st_mtime_ns
    )
    assert "2,996" in run("prepare_data", "dolly_3k", "--data_dir", tmp_path).out
    assert (
        tmp_path / "processed" / "alpagasus_3k_dolly" / "alpagasus_3k_dolly_data.jsonl"
    ).stat().st_mtime_ns == before


def test_a_set_that_cannot_be_had_stops_no_other(tmp_path: Path, server: BadServer) -> None:
    server.files |= {path("stanford_alpaca"): json.dumps(ALPACA).encode(), path("dolly"): DOLLY}
    server.faults = {path("lima"): [status(401)], path("code_alpaca"): [status(404)]}
    outcome = run("prepare_data", "stanford_alpaca", "lima", "dolly", "code_alpaca", "--data_dir", tmp_path)
    assert outcome.code == 2
    assert "2 of 4 sets are not there: lima, code_alpaca" in outcome.out
    assert "https://huggingface.co/datasets/GAIR/lima" in outcome.out and "take lima_data" in outcome.out
    assert len(rows(tmp_path / "processed" / "stanford_alpaca" / "stanford_alpaca_data.jsonl")) == 20
    assert len(rows(tmp_path / "processed" / "dolly" / "dolly_data.jsonl")) == 30
    assert sorted(json.loads((tmp_path / "downloads.lock.json").read_text())) == sorted(
        CATALOGUE[name].files[0].url for name in ("stanford_alpaca", "dolly")
    )


def test_the_token_is_sent_for_the_gated_set_alone_and_shown_nowhere(
    tmp_path: Path, server: BadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    lima = "".join(
        json.dumps({"conversations": [f"Why {n}?", f"Because {n}."], "source": "x"}) + "\n" for n in range(5)
    )
    server.files |= {path("lima"): lima.encode(), path("dolly"): DOLLY}
    outcome = run("prepare_data", "lima", "dolly", "--data_dir", tmp_path)
    assert outcome.code == 0, outcome.out + outcome.err
    assert server.asked(path("lima"))[0]["authorization"] == "Bearer hf_very_secret"
    assert "authorization" not in server.asked(path("dolly"))[0]
    written = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert "hf_very_secret" not in outcome.out + outcome.err + written


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_archives_are_unpacked_and_converted(shared_data: Path, tmp_path: Path, server: BadServer) -> None:
    task = shared_data / "raw" / "super_ni" / "tasks" / "task062_bigbench_repeat_copy_logic.json"
    chat = [
        {
            "dataset": "cot",
            "id": f"cot_{n}",
            "messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}],
        }
        for n in range(4)
    ]
    server.files |= {
        path("super_ni"): archive(
            {
                "natural-instructions-master/README.md": b"-",
                f"natural-instructions-master/tasks/{task.name}": task.read_bytes(),
                "natural-instructions-master/splits/xlingual/train_tasks.txt": task.stem.encode() + b"\n",
            }
        ),
        path("less"): archive(
            {
                "data/train/processed/cot/cot_data.jsonl": "".join(
                    json.dumps(r) + "\n" for r in chat
                ).encode(),
                "__MACOSX/data/train/processed/cot/._cot_data.jsonl": b"\x00\x05\x16\x07",
                "data/eval/mmlu/dev/x.csv": b"a,b\n",
            }
        ),
    }
    # What a run that was killed has left.
    (tmp_path / "raw_train" / "less" / ".less-data.zip.part" / "half").mkdir(parents=True)
    outcome = run("prepare_data", "super_ni", "less", "--data_dir", tmp_path)
    assert outcome.code == 0, outcome.out + outcome.err
    assert sorted(p.name for p in (tmp_path / "raw_train" / "less").iterdir()) == [
        ".less-data.zip.taken_out.json",
        "cot_data.jsonl",
        "less-data.zip",
    ]
    assert rows(tmp_path / "processed" / "less" / "less_data.jsonl")[3]["messages"] == chat[3]["messages"]
    assert rows(tmp_path / "processed" / "super_ni" / "super_ni_data.jsonl")


def test_a_mixture_is_made_from_all_its_parts_by_one_command(tmp_path: Path, server: BadServer) -> None:
    made = tmp_path / "made"
    write_tulu_parts(made)
    for name in ("sg_90k_part1_html_cleaned.json", "sg_90k_part2_html_cleaned.json"):
        write_json(
            made / "sharegpt" / name, [{"id": name, "conversations": turns("hello", "hi", "more", name)}]
        )
    for one in map(CATALOGUE.__getitem__, CATALOGUE["tulu_v2"].parts):
        for file in one.files:
            plain = made / one.folder.removeprefix("raw_train/") / file.path.removesuffix(".gz")
            content = gzip.compress(plain.read_bytes()) if file.path.endswith(".gz") else plain.read_bytes()
            server.files[urlsplit(file.url).path] = content
    make_tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    outcome = run(
        "prepare_data", "tulu_v2", "--data_dir", tmp_path / "data", "--tokenizer_name", tmp_path / "tokenizer"
    )
    assert outcome.code == 0, outcome.out + outcome.err
    output = tmp_path / "data" / "processed" / "tulu_v2" / "tulu_v2_data.jsonl"
    for name in ("sharegpt_html_cleaned_and_split_2048.json", "sharegpt_html_cleaned_and_split_4096.json"):
        (made / "sharegpt" / name).unlink()
    report = build_mixture(
        TULU_V2, made, tmp_path / "direct.jsonl", ConversionOptions(tokenizer=make_tiny_tokenizer())
    )
    assert (
        output.read_bytes() == report.output.read_bytes() and report.rows_written == len(rows(output)) == 132
    )
    assert f"tulu_v2  ready         132  {output}" in outcome.out
    asked = len(server.requests)
    again = run(
        "prepare_data", "tulu_v2", "--data_dir", tmp_path / "data", "--tokenizer_name", tmp_path / "tokenizer"
    )
    assert again.code == 0 and "read  " not in again.out and len(server.requests) == asked
    # Without one of the parts there is no mixture, and which part is said.
    (tmp_path / "data" / "raw_train" / "lima" / "train.jsonl").unlink()
    server.faults = {path("lima"): [status(401)]}
    without = run(
        "prepare_data", "tulu_v2", "--data_dir", tmp_path / "data", "--tokenizer_name", tmp_path / "tokenizer"
    )
    assert (
        without.code == 2
        and "GAIR/lima" in without.out
        and "1 of 1 sets are not there: tulu_v2" in without.out
    )


def test_an_archive_never_writes_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(archive({"top/../../evil.jsonl": b"{}", "top/good.jsonl": b"{}"}))
    with pytest.raises(UserError, match="would be written outside"):
        take_out(tmp_path / "a.zip", "0", tmp_path / "folder", ("*.jsonl",), flat=False)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_damaged_archive_is_said_to_be_one(tmp_path: Path) -> None:
    whole = archive({"top/good.jsonl": b"{}" * 5000})
    (tmp_path / "a.zip").write_bytes(whole[:60] + b"\x00" * 20 + whole[80:])
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be unpacked"):
        take_out(tmp_path / "a.zip", "0", tmp_path / "folder", ("*.jsonl",), flat=True)
    assert not list((tmp_path / "folder").iterdir())


def test_the_shell_scripts_prepare_their_sets(shared_data: Path, tmp_path: Path, server: BadServer) -> None:
    """Run as written, with sh; of the seven of the paper only what the server has comes."""
    server.files |= {
        path("lima_data"): (shared_data / "train" / "lima_data.jsonl").read_bytes(),
        path("dolly_3k"): (shared_data / "raw" / "alpagasus" / "dolly_3k.json").read_bytes(),
    }
    done = {}
    for script in ("prepare_train_data.sh", "prepare_alpagasus_data.sh"):
        done[script] = subprocess.run(
            ["sh", str(ROOT / script), "--data_dir", str(tmp_path)],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            env=dict(os.environ),
            timeout=120,
        )
        assert done[script].returncode == 2
    assert "6 of 7 sets are not there" in done["prepare_train_data.sh"].stdout
    assert "2 of 3 sets are not there: chatgpt_9k, claude_t45" in done["prepare_alpagasus_data.sh"].stdout
    assert len(rows(tmp_path / "lima_data.jsonl")) == 1030
    assert len(rows(tmp_path / "processed" / "alpagasus_3k_dolly" / "alpagasus_3k_dolly_data.jsonl")) == 2996


@pytest.mark.parametrize(
    "script", ["prepare_train_data.sh", "prepare_alpagasus_data.sh", "prepare_eval_data.sh"]
)
def test_without_an_environment_the_scripts_say_how_to_make_one(tmp_path: Path, script: str) -> None:
    (tmp_path / "scripts" / "sourced").mkdir(parents=True)
    for name in (script, "scripts/sourced/project_python.sh"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        ["sh", str(tmp_path / script)],
        text=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin"},
        timeout=60,
    )
    assert done.returncode == 2 and done.stderr.strip().endswith("make it with: bash scripts/setup.sh")


def test_the_list_names_every_set_with_its_terms_and_address() -> None:
    outcome = run("prepare_data", "--list")
    assert outcome.code == 0
    for name, one in CATALOGUE.items():
        line = next(line for line in outcome.out.splitlines() if line.split()[:1] == [name])
        assert one.licence in line and (one.files[0].url if one.files else "made of") in line
        assert f"{one.rows:,}" in line if one.rows else " - " in line
    assert "on consent" in next(line for line in outcome.out.splitlines() if line.startswith("lima "))


def test_the_table_in_the_data_folder_is_the_catalogues() -> None:
    outcome = run("prepare_data", "--markdown")
    assert outcome.code == 0 and outcome.out.strip() in (ROOT / "data" / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("sign", "code", "said"), [(signal.SIGKILL, -9, ""), (signal.SIGINT, 130, "goes on from here")]
)
def test_a_stopped_run_leaves_nothing_half_written_and_the_same_command_goes_on(  # noqa: PLR0913 (fixtures)
    shared_data: Path, tmp_path: Path, server: BadServer, sign: signal.Signals, code: int, said: str
) -> None:
    content = server.files[path("lima_data")] = (shared_data / "train" / "lima_data.jsonl").read_bytes()
    server.faults = {path("lima_data"): [stall(server, 1_000_000, 3.0)]}
    # The shell becomes the program, so that what reaches it is what the terminal sends.
    command = [
        "sh",
        str(ROOT / "prepare_train_data.sh"),
        "lima_data",
        "--data_dir",
        str(tmp_path),
        "--timeout",
        "2",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    part, deadline = tmp_path / "lima_data.jsonl.part", time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= 1_000_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sign)
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(timeout=20) == code and said in errors and "Traceback" not in errors
    assert not (tmp_path / "lima_data.jsonl").exists()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert (tmp_path / "lima_data.jsonl").read_bytes() == content
    assert server.asked(path("lima_data"))[-1]["range"] == "bytes=1000000-"
    assert not list(tmp_path.glob("*.part*"))


def test_what_is_not_the_published_file_is_said(tmp_path: Path, server: BadServer) -> None:
    server.files |= {path("dolly"): DOLLY, path("tydiqa"): b'{"dataset": "x", "id": "x_0", "messages": []}\n'}
    outcome = run("prepare_data", "dolly", "tydiqa", "--data_dir", tmp_path)
    assert outcome.code == 0
    assert (
        "databricks-dolly-15k.jsonl is not the file that was published there before (sha256 2df908"
        in outcome.out
    )
    assert next(line for line in outcome.out.splitlines() if line.startswith("tydiqa")).endswith(
        "(the published set has 13,533 rows)"
    )


def test_a_conversion_with_other_options_is_not_taken_for_the_one_asked_for(
    tmp_path: Path, server: BadServer
) -> None:
    server.files[path("dolly")] = DOLLY
    assert run("prepare_data", "dolly", "--data_dir", tmp_path).code == 0
    raw, output = tmp_path / "raw_train", tmp_path / "processed"

    def rows_of(tokenizer_name: str | None = None, **options: Any) -> int | None:
        return converted_rows("dolly", raw, output, ConversionOptions(**options), tokenizer_name)

    template = {
        "with_input": [{"prompt": "{instruction} {input}"}],
        "without_input": [{"prompt": "Q: {instruction}"}],
    }
    templates = write_json(tmp_path / "t.json", template)
    assert rows_of() == 30
    assert rows_of(seed=41) is None and rows_of(limit=5) is None and rows_of("other") is None
    assert rows_of(templates=load_templates(templates)) is None
    # Other words in a file of the same name are other templates.
    options = ConversionOptions(templates=load_templates(templates))
    convert_set("dolly", raw, output, options)
    assert converted_rows("dolly", raw, output, options) == 30
    write_json(templates, template | {"without_input": [{"prompt": "A: {instruction}"}]})
    assert rows_of(templates=load_templates(templates)) is None
    (output / "dolly" / "dolly_data.jsonl").write_bytes(b"{}")
    assert converted_rows("dolly", raw, output, options) is None


def test_a_set_that_there_is_not_is_named() -> None:
    outcome = run("prepare_data", "no_such_set", "lma_data")
    assert outcome.code == 2 and "no_such_set: no such set; there are lima_data" in outcome.err
    assert "lma_data: no such set; did you mean lima_data? (--list tells more)" in outcome.err
