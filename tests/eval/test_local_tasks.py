"""lm-eval's tasks on files of this machine: the real files, the real harness, and every score computed once
more."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmark_oracle import GENERATED, ITEMS, Item, PlainModel, prompt_of, scores, verdict
from tiny import make_tiny_model
from training_runs import ROOT

from eval.nlp.benchmarks import local_benchmarks
from eval.table.suite import BENCHMARKS

SHOTS = {
    "mmlu_anatomy": 5,
    "mmlu_college_physics": 5,
    "piqa": 10,
    "winogrande": 5,
    "arc_challenge": 25,
    "hellaswag": 10,
    "lambada_openai": 0,
    "truthfulqa_mc2": 0,
    "gsm8k_cot": 8,
    "bbh_cot_fewshot_boolean_expressions": 3,
    "bbh_cot_fewshot_snarks": 3,
}

# Their files have no training items.
DRAWN_FROM_THE_ITEMS = ("piqa", "hellaswag")


@pytest.fixture(scope="session")
def tasks(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local tasks")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "eval.local_tasks",
            "--data_dir",
            shared_data / "eval",
            "--output_dir",
            folder,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mmlu: 57 of 57 tasks, 14,042 items" in done.stdout and "openbookqa: no files" in done.stdout
    assert (
        "ai2_arc: 1 of 2 tasks, 1,172 items" in done.stdout
        and "bbh_cot_fewshot: 27 of 27 tasks, 6,511 items" in done.stdout
    )
    return folder


def harness(  # noqa: PLR0913 (fixtures and a table of cases)
    model: Path, tasks: Path, folder: Path, limit: int, most: int | None, names: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """lm-eval's results and samples of tasks."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        made = [
            yaml.safe_load((tasks / f"{benchmark.tasks[0]}.yaml").read_text())
            for benchmark in local_benchmarks(tasks)
        ]
        chosen = [task for group in made for task in group["task"] if task["task"] in names]
        folder.mkdir()
        (folder / "chosen.yaml").write_text(yaml.safe_dump({"group": "chosen", "task": chosen}))
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=4),
            tasks=["chosen"],
            task_manager=TaskManager(include_path=str(folder)),
            limit=limit,
            log_samples=True,
            bootstrap_iters=0,
            gen_kwargs=f"max_gen_toks={most}" if most else None,
        )
    assert found
    return found["results"], found["samples"]


def check_prompt(name: str, items: list[Item], place: int, prompt: str) -> None:
    """A prompt ends with its item, behind as many others with their answers as there are to be, never its
    own."""
    item, shots = items[place], SHOTS[name]
    own = item.prompts[0] if item.prompts else item.text
    # HellaSwag's file has one text where the task capitalises the second part.
    assert prompt.lower().endswith(own.lower()), name
    before = prompt[: len(prompt) - len(own)]
    if name == "gsm8k_cot":
        assert before.count("Q: ") == before.count("The answer is") == shots
    elif name.startswith("bbh"):
        assert before.count("Q: ") == before.count("the answer is") == shots
    elif name.startswith("mmlu"):
        assert before.count("\nAnswer: ") == shots and before.startswith(
            "The following are multiple choice questions"
        )
    elif shots:
        examples = [one for one in before.split("\n\n") if one]
        assert len(examples) == shots == len(set(examples)), name
        if name in DRAWN_FROM_THE_ITEMS:
            others = {
                (one.text + one.choices[one.right]).lower()
                for number, one in enumerate(items)
                if number != place
            }
            assert {example.lower() for example in examples} <= others, name


def check(  # noqa: PLR0913 (fixtures and a table of cases)
    name: str,
    data: Path,
    model: PlainModel,
    results: dict[str, Any],
    samples: list[dict[str, Any]],
    most: int,
) -> None:
    """Prompts and scores of a task against the raw file and plain transformers."""
    items = ITEMS[name](data)
    totals: dict[str, list[float]] = {}
    for sample in samples:
        item, prompt = items[sample["doc_id"]], prompt_of(sample)
        check_prompt(name, items, sample["doc_id"], prompt)
        if name in GENERATED:
            answer = model.generate(prompt, GENERATED[name], most)
            assert sample["resps"][0][0] == answer, name
            if sample["filter"] in ("strict-match", "get-answer"):
                totals.setdefault(f"exact_match,{sample['filter']}", []).append(verdict(name, answer, item))
        else:
            for metric, value in scores(model, item, prompt).items():
                if metric in sample:
                    assert sample[metric] == pytest.approx(value, abs=1e-4), (name, sample["doc_id"], metric)
                    totals.setdefault(f"{metric},none", []).append(value)
    assert next(benchmark for benchmark in BENCHMARKS if benchmark.has(name)).metric in totals
    for metric, values in totals.items():
        assert results[name][metric] == pytest.approx(sum(values) / len(values), abs=1e-4), (name, metric)


def test_prompts_and_scores_of_every_local_benchmark_are_those_of_an_independent_computation(
    shared_data: Path, tasks: Path, tmp_path: Path
) -> None:
    make_tiny_model(tmp_path / "model")
    results, samples = harness(
        tmp_path / "model", tasks, tmp_path / "cache", limit=2, most=8, names=list(ITEMS)
    )
    model = PlainModel(tmp_path / "model")
    for name in ITEMS:
        check(name, shared_data / "eval", model, results, samples[name], most=8)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_real_model_scores_as_an_independent_computation_says(
    shared_data: Path, tasks: Path, tmp_path: Path
) -> None:
    folder = ROOT / "models" / "SmolLM2-135M-Instruct"
    results, samples = harness(folder, tasks, tmp_path / "cache", limit=8, most=64, names=list(ITEMS))
    model = PlainModel(folder)
    for name in ITEMS:
        check(name, shared_data / "eval", model, results, samples[name], most=64)
        print(name, {key: value for key, value in results[name].items() if isinstance(value, float)})
