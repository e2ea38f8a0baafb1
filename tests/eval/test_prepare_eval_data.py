"""What the benchmarks need, from its addresses: through a mirror that serves the real files, and a hub on the
loopback."""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bad_server import BadServer, cut
from local_hub import LocalHub
from training_runs import ROOT, launch, run

from eval.alpaca_farm.benchmarks import ALPACA_EVAL_1, ALPACA_EVAL_2, DATA_DIR, LENGTH_CONTROLLED_FILE
from eval.catalogue import BBH_TASKS, CATALOGUE, DEFAULT, JUDGED_SETS, LOCAL_SETS, NLP
from eval.mt_bench.questions import DATA, load_benchmark
from eval.nlp.hub_data import fetched
from instruction_modelling.errors import UserError
from instruction_modelling.sources.downloads.addresses import mirror_variable
from instruction_modelling.sources.downloads.archives import take_out


def path(name: str, number: int = 0) -> str:
    """Where a server is asked for a file of a set."""
    return urlsplit(CATALOGUE[name].files[number].url).path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    """Stands for every host."""
    with BadServer({}) as server:
        for host in {urlsplit(file.url).hostname for one in CATALOGUE.values() for file in one.files}:
            monkeypatch.setenv(mirror_variable(str(host)), server.url)
        yield server


def put(server: BadServer, shared_data: Path, name: str, *files: str) -> None:
    """Serves real files as those of a set, in the catalogue's order."""
    for number, file in enumerate(files):
        server.files[path(name, number)] = (shared_data / "eval" / file).read_bytes()


def test_the_catalogue_has_what_each_evaluation_looks_for() -> None:
    assert set(DEFAULT) == {*JUDGED_SETS, NLP} and set(LOCAL_SETS) < set(CATALOGUE)
    there = {Path("data") / one.folder / file.path for one in CATALOGUE.values() for file in one.files}
    assert {
        DATA / "question.jsonl",
        DATA / "judge_prompts.jsonl",
        DATA / "reference_answer" / "gpt-4.jsonl",
    } <= there
    assert {ALPACA_EVAL_1.reference_path, ALPACA_EVAL_2.reference_path, LENGTH_CONTROLLED_FILE} <= there
    assert all(urlsplit(file.url).scheme == "https" for one in CATALOGUE.values() for file in one.files)


def test_the_judged_benchmarks_come_as_their_repositories_have_them(
    shared_data: Path, tmp_path: Path, server: BadServer
) -> None:
    put(
        server,
        shared_data,
        "mt_bench",
        "mt_bench/question.jsonl",
        "mt_bench/judge_prompts.jsonl",
        "mt_bench/reference_answer/gpt-4.jsonl",
    )
    put(
        server,
        shared_data,
        "alpaca_eval",
        *(
            f"alpaca_eval/results/{one.reference}/model_outputs.json"
            for one in (ALPACA_EVAL_1, ALPACA_EVAL_2)
        ),
    )
    server.faults[path("mt_bench")] = [cut(server, 5000)]
    outcome = run("prepare_eval_data", *JUDGED_SETS, "--data_dir", tmp_path)
    assert outcome.code == 0, outcome.out + outcome.err
    assert "is not the file that was published" not in outcome.out
    assert len(load_benchmark(tmp_path / "eval" / "mt_bench").questions) == 80
    for one in (ALPACA_EVAL_1, ALPACA_EVAL_2):
        assert (
            len(
                json.loads(
                    (tmp_path / "eval" / "alpaca_eval" / one.reference_path.relative_to(DATA_DIR)).read_text()
                )
            )
            == 805
        )
    # What is there and right is not fetched again.
    asked = len(server.requests)
    assert (
        run("prepare_eval_data", *JUDGED_SETS, "--data_dir", tmp_path).code == 0
        and len(server.requests) == asked
    )


def test_files_become_lm_evals_local_tasks(shared_data: Path, tmp_path: Path, server: BadServer) -> None:
    data = shared_data / "eval"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        for subject in ("anatomy", "virology"):
            for split in ("dev", "test"):
                file.add(
                    data / "mmlu" / split / f"{subject}_{split}.csv", f"data/{split}/{subject}_{split}.csv"
                )
    server.files[path("mmlu")] = tar.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split in ("Dev", "Test"):
            archive.write(
                data / "arc" / f"ARC-Challenge-{split}.jsonl",
                f"ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-{split}.jsonl",
            )
    server.files[path("arc")] = packed.getvalue()
    put(server, shared_data, "gsm8k", "gsm8k/test.jsonl")
    put(server, shared_data, "bbh", *(f"bbh/{task}.json" for task in BBH_TASKS))
    outcome = run("prepare_eval_data", "mmlu", "arc", "gsm8k", "bbh", "piqa", "--data_dir", tmp_path)
    assert outcome.code == 2 and "1 of 6 sets are not there: piqa" in outcome.out
    made = tmp_path / "eval" / "local_tasks"
    assert {file.stem for file in made.glob("*_local.yaml")} == {
        "mmlu_local",
        "ai2_arc_local",
        "gsm8k_cot_local",
        "bbh_cot_fewshot_local",
        "sft_eval_local",
        "sft_eval_understanding_local",
        "sft_eval_commonsense_local",
        "sft_eval_math_local",
        "sft_eval_bbh_local",
    }
    rows = [
        json.loads(line) for line in (made / "ai2_arc" / "arc_challenge_test.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 1172 and set(rows[0]) == {"id", "question", "choices", "answerKey"}


@pytest.mark.parametrize(("name", "kind"), [("../evil.csv", "file"), ("top/link.csv", "link")])
def test_a_tar_file_writes_nothing_outside_its_folder(tmp_path: Path, name: str, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo(name)
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(member, io.BytesIO())
    with pytest.raises(UserError, match="would be written outside" if kind == "file" else "has nothing like"):
        take_out(tmp_path / "a.tar", "0", tmp_path / "folder", ("*.csv",), flat=False)
    assert not (tmp_path / "evil.csv").exists() and not (tmp_path / "folder" / "link.csv").exists()


def test_lm_eval_fetches_from_the_hub_once_and_asks_no_hub_afterwards(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"goal": f"g {i}", "sol1": "a", "sol2": "b", "label": i % 2}) + "\n" for i in range(20)
    ).encode()
    record = tmp_path / "hub_data.json"
    command = [sys.executable, "-m", "eval.nlp.hub_data", "--tasks", "piqa", "wsc273", "--record", record]
    cache = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    with LocalHub(
        {
            "baber/piqa": {
                "README.md": b"---\nlicense: afl-3.0\n---\n",
                "train.jsonl": rows,
                "validation.jsonl": rows,
            }
        }
    ) as hub:
        first = launch(command, timeout=280, HF_ENDPOINT=hub.url, **cache)
        assert (
            first.code == 1
            and "1/2 piqa: 1 tasks, 20 items" in first.out
            and "wsc273: cannot be had" in first.err
        )
        assert any(request.endswith("/train.jsonl") for request in hub.requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", cache["HF_HOME"])
        patch.delenv("HF_DATASETS_CACHE", raising=False)
        assert fetched(record) == {"piqa"}
        patch.setenv("HF_HOME", str(tmp_path / "another cache"))
        assert fetched(record) == set()
    # The hub is gone; what was fetched loads all the same.
    again = launch(
        [*command[:4], "piqa", "--record", record],
        timeout=280,
        HF_ENDPOINT=hub.url,
        HF_HOME=cache["HF_HOME"],
        HF_HUB_OFFLINE="0",
        HF_DATASETS_OFFLINE="1",
    )
    assert again.code == 0 and "1/1 piqa: 1 tasks, 20 items" in again.out


def test_the_script_lists_every_set_with_its_terms_and_address() -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "prepare_eval_data.sh"), "--list"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    for name, one in CATALOGUE.items():
        line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [name])
        assert one.licence in line and (one.files[0].url if one.files else "made of mmlu, piqa") in line


def test_a_set_that_there_is_not_is_named() -> None:
    outcome = run("prepare_eval_data", "nothing")
    assert outcome.code == 2 and "nothing: no such set; there are mt_bench, alpaca_eval" in outcome.err
