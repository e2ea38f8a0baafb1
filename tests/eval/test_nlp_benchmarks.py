"""The groups of eval/lm_eval_tasks under lm-eval itself, and the runner that takes their benchmarks one by
one."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import hub_rows
import pytest
from benchmark_oracle import prompt_of
from training_runs import ROOT, Outcome

from eval.nlp import run_eval
from eval.nlp.benchmarks import GROUPS, paper_benchmarks
from eval.nlp.hub_data import add_fetched
from eval.nlp.run_eval import NlpOptions, command
from eval.table.results import read_results
from eval.table.suite import BENCHMARKS, CATEGORIES, HUMANEVAL, OF_CATEGORY
from eval.table.table import cells
from instruction_modelling.errors import run_main


@pytest.fixture(scope="module")
def manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(GROUPS))


def tasks_of(manager: Any, name: str) -> list[str]:
    """The tasks of a group, a tag or a task by lm-eval's own index."""
    entry = manager.task_index[name]
    if entry.kind.name == "TASK":
        return [name]
    children = (
        entry.cfg["task"]
        if entry.cfg
        else [task for task, one in manager.task_index.items() if name in one.tags]
    )
    return [
        task
        for child in children
        for task in tasks_of(
            manager, child if isinstance(child, str) else child.get("task") or child["group"]
        )
    ]


def test_the_group_has_every_benchmark_of_the_paper_whole_with_its_metric_and_examples(manager: Any) -> None:
    ours = {one.key: one for one in paper_benchmarks()}
    assert list(ours) == [one.key for one in BENCHMARKS]
    for benchmark in BENCHMARKS:
        tasks = [task for name in ours[benchmark.key].tasks for task in tasks_of(manager, name)]
        assert len(tasks) == benchmark.count and all(benchmark.has(task) for task in tasks), benchmark.key
        if benchmark.shots is not None:
            assert (
                ours[benchmark.key].num_fewshot if benchmark.key != "bbh_cot_fewshot" else 3
            ) == benchmark.shots, benchmark.key
        config = manager.task_index[tasks[0]].cfg
        name, _, filtered = benchmark.metric.partition(",")
        assert benchmark.key == "truthfulqa_mc2" or name in [
            metric["metric"] for metric in config["metric_list"]
        ], benchmark.key
        assert filtered == "none" or filtered in [found["name"] for found in config["filter_list"]], (
            benchmark.key
        )
    # BIG-Bench Hard is generated as section 4.1 says.
    generated = manager.task_index["bbh_cot_fewshot_snarks"].cfg["generation_kwargs"]
    assert generated == {
        "max_gen_toks": 1024,
        "until": ["</s>", "Q", "\n\n"],
        "do_sample": False,
        "temperature": 0.0,
    }


def chance(context: str, continuation: str) -> float:
    """A log-likelihood that depends on the whole prompt and the continuation and nothing else."""
    return -1 - zlib.crc32(f"{context}\0{continuation}".encode()) / 2**32


@pytest.fixture(scope="module")
def group_run(manager: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """sft_eval on made-up rows, by a model that answers by `chance`: lm-eval's results, and the folder it
    wrote them to."""
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker

    class Chance(LM):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return [(chance(*request.args), chance(*request.args) > -1.5) for request in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            raise NotImplementedError

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return [
                "The answer is 1. So the answer is yes."
                if zlib.crc32(request.args[0].encode()) % 2
                else "at home"
                for request in requests
            ]

    folder = tmp_path_factory.mktemp("results") / "chance"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", hub_rows.load_dataset)
        tracker = EvaluationTracker(output_path=str(folder / "nlp"))
        results = lm_eval.simple_evaluate(
            model=Chance(),
            tasks=["sft_eval"],
            task_manager=manager,
            limit=4,
            log_samples=True,
            bootstrap_iters=10,
            evaluation_tracker=tracker,
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, own in samples.items():
            tracker.save_results_samples(task_name=task, samples=own)
    return {**results, "samples": samples}, folder


def test_the_whole_group_runs_with_the_papers_examples(group_run: tuple[dict[str, Any], Path]) -> None:
    results, _ = group_run
    shots = results["n-shot"]
    assert {
        task: shots[task]
        for task in (
            "mmlu_anatomy",
            "mmlu_world_religions",
            "piqa",
            "hellaswag",
            "winogrande",
            "arc_easy",
            "arc_challenge",
            "gsm8k_cot",
            "bbh_cot_fewshot_snarks",
            "coqa",
            "truthfulqa_mc2",
        )
    } == {
        "mmlu_anatomy": 5,
        "mmlu_world_religions": 5,
        "piqa": 10,
        "hellaswag": 10,
        "winogrande": 5,
        "arc_easy": 25,
        "arc_challenge": 25,
        "gsm8k_cot": 8,
        "bbh_cot_fewshot_snarks": 3,
        "coqa": 0,
        "truthfulqa_mc2": 0,
    }
    # They stand in the prompts, drawn from the training items (MMLU: the first five of its development
    # items).
    prompt = prompt_of(results["samples"]["piqa"][0])
    assert prompt.count("Question: Goal train ") == 10 and prompt.endswith(
        "Question: Goal validation 0\nAnswer:"
    )
    prompt = prompt_of(results["samples"]["mmlu_anatomy"][2])
    assert [prompt.count(f"Which is dev {i}?") for i in range(6)] == [
        1,
        1,
        1,
        1,
        1,
        0,
    ] and "Which is test 2?" in prompt


def test_the_groups_results_are_the_papers_categories(group_run: tuple[dict[str, Any], Path]) -> None:
    results, folder = group_run
    read = read_results(folder)
    assert not read.problems
    # Four items of each task were asked for.
    whole = cells(read, partial=False)
    assert whole["math"].missing[0] == HUMANEVAL and "gsm8k_cot 4 of 32 items" in whole["math"].missing
    assert whole["mean"].value is None and whole["bbh"].part == ["bbh_cot_fewshot 108 of 864 items"]
    row = cells(read, partial=True)
    # Each once more from the logged answers, task by task: all have four items here.
    values: dict[str, list[float]] = {}
    for task, samples in results["samples"].items():
        benchmark = next(one for one in BENCHMARKS if one.has(task))
        name, _, filtered = benchmark.metric.partition(",")
        if name == "ter":
            values.setdefault(benchmark.key, []).append(results["results"][task]["ter,none"])
        else:
            own = [sample[name] for sample in samples if sample["filter"] == filtered]
            assert len(own) == 4
            values.setdefault(benchmark.key, []).append(100 * sum(own) / 4)
    for category in set(CATEGORIES) - {"math"}:
        means = [sum(values[key]) / len(values[key]) for key in OF_CATEGORY[category]]
        assert row[category].value == pytest.approx(sum(means) / len(means), abs=1e-9), category
    # PIQA's accuracy once more from the rows: the likelier of two answers, by characters.
    wanted = []
    for sample in results["samples"]["piqa"]:
        prompt, i = prompt_of(sample), sample["doc_id"]
        wanted.append(
            max((0, 1), key=lambda place: chance(prompt, f" {('wait', 'go')[place]}") / (4, 2)[place])
            == i % 2
        )
    assert read.scores["piqa"].value == pytest.approx(100 * sum(wanted) / 4)


# -- the runner -------------------------------------------------------------------------------------------


Start = Callable[..., Outcome]


class Harness:
    """In place of lm-eval's process: what it was called with, and how each benchmark ends."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.ends: dict[str, Callable[[Path], int]] = {}

    @property
    def tasks(self) -> list[str]:
        """The tasks of each call."""
        return [call[call.index("--tasks") + 1] for call in self.calls]

    def __call__(self, words: list[str], env: dict[str, str]) -> int:
        self.calls.append(words)
        folder = Path(words[words.index("--output_path") + 1])
        answers = Path(words[words.index("--use_cache") + 1])
        answers.parent.mkdir(parents=True, exist_ok=True)
        (answers.parent / "answers_rank0.db").write_text("some answers")
        if folder.name in self.ends:
            return self.ends[folder.name](folder)
        (folder / "m").mkdir(exist_ok=True)
        (folder / "m" / f"results_{len(self.calls)}.json").write_text("{}")
        return 0


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    harness = Harness()
    monkeypatch.setattr(run_eval.subprocess, "call", harness)
    monkeypatch.setattr(run_eval, "hub_is_out_of_reach", lambda: False)
    return harness


@pytest.fixture
def start(
    tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Start:
    """The runner in this process, with more arguments."""

    def run(*arguments: object) -> Outcome:
        words = ["run_eval", "--model", tmp_path / "model", "--save_dir", tmp_path / "nlp", *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as stopped:
            run_main(run_eval.main)
        said = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(autouse=True)
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_every_benchmark_runs_once_and_a_second_command_runs_what_failed(
    tmp_path: Path, harness: Harness, start: Start
) -> None:
    harness.ends = {"toxigen": lambda folder: 1}
    outcome = start()
    assert outcome.code == 1 and len(harness.calls) == 16
    assert (
        "mmlu" in harness.tasks
        and "wmt14-en-fr,wmt14-fr-en,wmt16-de-en,wmt16-en-de,wmt16-en-ro,wmt16-ro-en" in harness.tasks
    )
    assert "failed: toxigen" in outcome.err
    harness.calls.clear()
    harness.ends = {}
    assert start().code == 0 and harness.tasks == ["toxigen"]
    assert not list((tmp_path / "nlp").rglob("answers*"))


def test_without_a_network_data_that_is_not_here_is_one_line_before_anything_runs(
    tmp_path: Path, harness: Harness, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_eval, "hub_is_out_of_reach", lambda: True)
    record = tmp_path / "hub_data.json"
    given = ("--hub_record", record, "--tasks", "piqa", "mmlu")
    add_fetched(record, "piqa")
    outcome = start(*given)
    assert outcome.code == 2 and not harness.calls and outcome.err.count("\n") == 1
    assert "not prepared: mmlu, and the hub cannot be reached from here; make it where it can" in outcome.err
    add_fetched(record, "mmlu")
    assert start(*given).code == 0 and len(harness.calls) == 2


def test_the_hub_is_out_of_reach_where_nobody_knows_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_DATASETS_OFFLINE",
        "HF_HUB_OFFLINE",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def look_up(host: str, port: None) -> list[Any]:
        asked.append(host)
        if host == "huggingface.co":
            raise OSError("Name or service not known")
        return []

    monkeypatch.setattr(run_eval.socket, "getaddrinfo", look_up)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert run_eval.hub_is_out_of_reach()
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example:8000/hub")
    assert not run_eval.hub_is_out_of_reach() and asked == ["huggingface.co", "mirror.example"]
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert not run_eval.hub_is_out_of_reach() and len(asked) == 2


def test_a_stopped_benchmark_keeps_its_answers_for_the_next_command(
    tmp_path: Path, harness: Harness, start: Start
) -> None:
    harness.ends = {"piqa": lambda folder: 130}
    assert start("--tasks", "piqa", "wsc273").code == 130 and harness.tasks == ["piqa"]
    there = tmp_path / "nlp" / "piqa" / "answers" / "answers_rank0.db"
    there.write_text("those of the first command")

    def look(folder: Path) -> int:
        return 0 if there.exists() else 9

    harness.ends = {"wsc273": lambda folder: 3}
    assert start("--tasks", "piqa", "wsc273").code == 1
    assert not there.exists() and harness.tasks[1:] == ["piqa", "wsc273"]


def test_answers_under_other_settings_are_not_used(tmp_path: Path, harness: Harness, start: Start) -> None:
    seen: list[bool] = []
    there = tmp_path / "nlp" / "piqa" / "answers"

    def stopped(folder: Path) -> int:
        seen.append((there / "marker").exists())
        (there / "marker").write_text("")
        return 130

    harness.ends = {"piqa": stopped}
    for arguments in (("--limit", 3), ("--limit", 3), ("--limit", 4)):
        assert start("--tasks", "piqa", *arguments).code == 130
    assert seen == [False, True, False]
    # Nor is a part of the items taken for all of them.
    harness.ends = {}
    assert start("--tasks", "piqa", "--limit", 3).code == 0
    before = len(harness.calls)
    assert start("--tasks", "piqa").code == 0 and len(harness.calls) == before + 1


def test_results_of_another_model_are_not_mixed_in(harness: Harness, model: Path, start: Start) -> None:
    assert start("--tasks", "piqa").code == 0
    (model / "model.safetensors").write_bytes(b"trained on")
    outcome = start("--tasks", "wsc273")
    assert outcome.code == 2 and "before its weights changed" in outcome.err and len(harness.calls) == 1


def test_the_command_is_lm_evals_with_the_groups_examples() -> None:
    mmlu = next(benchmark for benchmark in paper_benchmarks() if benchmark.key == "mmlu")
    options = NlpOptions("m", num_processes=4, batch_size="2", limit=7, extra_model_args="max_length=2048")
    words = command(mmlu, options, Path("out/mmlu"))
    assert words[1:9] == [
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "4",
        "-m",
        "lm_eval",
        "run",
        "--model",
    ]
    assert words[words.index("--model_args") + 1] == "pretrained=m,dtype=auto,max_length=2048"
    for flag, value in (
        ("--tasks", "mmlu"),
        ("--num_fewshot", "5"),
        ("--limit", "7"),
        ("--batch_size", "2"),
        ("--include_path", str(GROUPS)),
        ("--output_path", "out/mmlu"),
    ):
        assert words[words.index(flag) + 1] == value
    bbh = next(one for one in paper_benchmarks() if one.key == "bbh_cot_fewshot")
    assert "--num_fewshot" not in command(bbh, NlpOptions("m"), Path("x"))


def test_vllm_runs_in_its_own_environment_and_leaves_memory_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_PYTHON", sys.executable)
    words = command(
        paper_benchmarks()[0],
        NlpOptions("m", use_vllm=True, num_processes=2, extra_model_args="max_model_len=512"),
        tmp_path,
    )
    assert words[:6] == [sys.executable, "-m", "lm_eval", "run", "--model", "vllm"]
    model_args = dict(one.split("=") for one in words[words.index("--model_args") + 1].split(","))
    assert model_args["tensor_parallel_size"] == "2" and model_args["max_model_len"] == "512"
    assert 0.05 <= float(model_args["gpu_memory_utilization"]) <= 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tasks", "mmlu", "humaneval"), "--tasks humaneval: there is mmlu, piqa"),
        (("--batch_size", "many"), "give a number, or auto"),
        (("--limit", "0"), "must be 1 or more"),
        (("--local", "--local_dir", "/nowhere"), "-m eval.local_tasks"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(
    harness: Harness, start: Start, arguments: tuple[str, ...], said: str
) -> None:
    outcome = start(*arguments)
    assert outcome.code == 2 and said in outcome.err and not harness.calls


def test_the_script_takes_the_same_flags_for_every_model(tmp_path: Path) -> None:
    def script(*flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "bash",
                str(ROOT / "scripts" / "eval_nlp.sh"),
                "--results",
                str(tmp_path / "r"),
                str(tmp_path / "none"),
                str(tmp_path / "nothing"),
                "--",
                *flags,
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = script("--tasks", "no_task")
    assert (
        done.returncode == 1
        and done.stderr.count("--tasks no_task: there is mmlu") == done.stderr.count("failed (nlp)") == 2
    )
    done = script("--tasks", "piqa")
    assert (
        done.returncode == 1
        and done.stderr.count("there is no such folder") == 2
        and "Traceback" not in done.stderr
    )
