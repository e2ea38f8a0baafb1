"""Result folders as lm-eval and this project's evaluations leave them, with scores a test chooses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from eval.table.suite import BENCHMARKS, MMLU_SUBJECTS, Benchmark

TASKS: dict[str, list[str]] = {
    "mmlu": [f"mmlu_{subject}" for subject in MMLU_SUBJECTS.split("|")],
    "lambada": ["lambada_openai", "lambada_standard"],
    "lambada_multilingual": [f"lambada_openai_mt_{language}" for language in ("de", "en", "es", "fr", "it")],
    "translation": ["wmt14-en-fr", "wmt14-fr-en", "wmt16-de-en", "wmt16-en-de", "wmt16-en-ro", "wmt16-ro-en"],
    "ai2_arc": ["arc_easy", "arc_challenge"],
    "bbh_cot_fewshot": [f"bbh_cot_fewshot_task_{i}" for i in range(27)],
    "hendrycks_ethics": [
        f"ethics_{topic}" for topic in ("cm", "deontology", "justice", "utilitarianism", "virtue")
    ],
}
SHOTS = {"bbh_cot_fewshot": 3}
ITEMS = 4


def tasks_of(benchmark: Benchmark) -> list[str]:
    """Return lm-eval's tasks of a benchmark."""
    return TASKS.get(benchmark.key, [benchmark.key])


def write_nlp(  # noqa: PLR0913 (every field of a result that a test may choose)
    folder: Path,
    scores: Mapping[str, list[float]],
    *,
    name: str = "2026-01-01",
    shots: int | Literal["unrecorded"] | None = None,
    limit: float | None = None,
    dataset: str = "hub/data",
    **run: Any,
) -> None:
    """Write an lm-eval result file with its samples.

    `scores` are each task's scores of items, 0 to 1 (translation: ignored)."""
    results: dict[str, Any] = {}
    run_record: dict[str, Any] = {
        "config": {"model": "hf", "limit": limit, "gen_kwargs": {}},
        "lm_eval_version": "0.4.13",
        "n-shot": {},
        "n-samples": {},
        "configs": {},
        "versions": {},
        "groups": {},
        **run,
    }
    target = folder / "nlp" / "model"
    target.mkdir(parents=True, exist_ok=True)
    for task, values in scores.items():
        benchmark = next(known for known in BENCHMARKS if known.has(task))
        metric, _, filtered = benchmark.metric.partition(",")
        mean = sum(values) / len(values)
        deviation = (
            sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1) / len(values)
        ) ** 0.5
        samples: list[dict[str, Any]] = []
        if benchmark.key == "translation":
            pairs = [
                (
                    f"the old house stands on hill {i}",
                    "the old house stands on hill " + ("here" if value < 0.5 else str(i)),
                )
                for i, value in enumerate(values)
            ]
            from sacrebleu.metrics import CHRF, TER

            for metric_name, measure in (("ter", TER()), ("chrf", CHRF())):
                score = measure.corpus_score(
                    [ours for _, ours in pairs], [[theirs for theirs, _ in pairs]]
                ).score
                results.setdefault(task, {})[f"{metric_name},none"] = score
                results[task][f"{metric_name}_stderr,none"] = 1.0
            samples = [
                {"doc_id": i, "doc_hash": str(i), "filter": "none", "ter": list(pair), "chrf": list(pair)}
                for i, pair in enumerate(pairs)
            ]
        else:
            results[task] = {benchmark.metric: mean, f"{metric}_stderr,{filtered}": deviation}
            samples = [
                {"doc_id": i, "doc_hash": str(i), "filter": filtered, metric: value}
                for i, value in enumerate(values)
            ]
        if shots != "unrecorded":
            run_record["n-shot"][task] = (
                shots if shots is not None else SHOTS.get(benchmark.key, benchmark.shots or 0)
            )
        run_record["n-samples"][task] = {
            "original": len(values) if limit is None else 1000,
            "effective": len(values),
        }
        run_record["configs"][task] = {"dataset_path": dataset, "output_type": "multiple_choice"}
        (target / f"samples_{task}_{name}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in samples)
        )
    (target / f"results_{name}.json").write_text(json.dumps({**run_record, "results": results}))


def write_part(folder: Path, part: str, result: Mapping[str, Any], items: Mapping[str, float]) -> None:
    """Write results.json and items.jsonl of HumanEval or a judged benchmark."""
    target = folder / part
    target.mkdir(parents=True, exist_ok=True)
    (target / "results.json").write_text(json.dumps(result))
    (target / "items.jsonl").write_text(
        "".join(json.dumps({"item": item, "score": score}) + "\n" for item, score in items.items())
    )


def humaneval(folder: Path, temperature: float, score: float, **result: Any) -> None:
    """Write HumanEval at a temperature: pass@1 of 164 tasks, all with the same share of passing samples."""
    write_part(
        folder,
        f"humaneval_t{temperature}",
        {
            "pass@1": score,
            "tasks": 164,
            "n": 20,
            "temperature": temperature,
            "top_p": 0.95,
            "max_new_tokens": 512,
            **result,
        },
        {f"HumanEval/{i}": score for i in range(164)},
    )


def write_model(folder: Path, score: float = 0.5, *, leave_out: tuple[str, ...] = ()) -> Path:
    """Write a model with every benchmark: `score` of the items of each are right (of ITEMS), but those
    left out."""
    right = [1.0] * round(score * ITEMS) + [0.0] * (ITEMS - round(score * ITEMS))
    write_nlp(
        folder,
        {task: right for known in BENCHMARKS if known.key not in leave_out for task in tasks_of(known)},
    )
    if "humaneval" not in leave_out:
        humaneval(folder, 0.1, score)
        humaneval(folder, 0.7, score / 2)
    if "mt_bench" not in leave_out:
        write_part(
            folder,
            "mt_bench",
            {
                "average": 10 * score,
                "judge": "gpt-4",
                "judge_service": "api.openai.com",
                "questions": 80,
                "unparsed": 0,
            },
            {f"{question}_{turn}": 10 * score for question in range(81, 161) for turn in (1, 2)},
        )
    for number, judge, annotator, reference in (
        (1, "gpt-4", "alpaca_eval_gpt4", "text_davinci_003"),
        (2, "gpt-4-1106-preview", "weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview"),
    ):
        if f"alpaca_eval_{number}" not in leave_out:
            write_part(
                folder,
                f"alpaca_eval_{number}",
                {
                    "win_rate": 100 * score,
                    "standard_error": 1.5,
                    "judge": judge,
                    "judge_service": "api.openai.com",
                    "annotator": annotator,
                    "reference": reference,
                    "instructions": 805,
                    "n_total": 805,
                    "unparsed": 0,
                },
                {str(i): float(i < 805 * score) for i in range(805)},
            )
    return folder
