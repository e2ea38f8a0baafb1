"""Run folders as training and evaluation leave them, with numbers of the test's choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instruction_modelling.files.whole import write_json, write_json_lines

TEST_FILE = {"file": "data/brief_test.jsonl", "sha256": "7e57" * 16}
TRAIN_FILE = {"file": "data/brief_train.jsonl", "sha256": "7ea1" * 16}


def write_losses(
    folder: Path, split: str, response: Sequence[float], user: float | None = None, **summary: Any
) -> None:
    """Write losses.jsonl and summary.json of a split: the response NLL of each row, one user NLL for all
    rows."""
    evaluation = folder / "eval" / split
    file = TEST_FILE if split == "test" else TRAIN_FILE
    users = {} if user is None else {"user": user}
    write_json_lines(
        evaluation / "losses.jsonl",
        [
            {"row": row, "id": f"row_{row}", "tokens": {"response": 10}, "nll": {"response": value, **users}}
            for row, value in enumerate(response)
        ],
    )
    means = {"response": sum(response) / len(response), **users}
    write_json(
        evaluation / "summary.json",
        {
            "model": str(folder),
            **file,
            "rows": len(response),
            "rows_scored": len(response),
            "mean_over_examples": means,
            "mean_over_tokens": means,
            "dropped": {},
            "chat_format": "tokenizer",
            "max_seq_length": 256,
            "dtype": "float32",
            **summary,
        },
    )


def write_responses(
    folder: Path, responses: Sequence[str], references: Sequence[str], **changes: Any
) -> None:
    """Write responses.jsonl, scores.jsonl and their summaries on the test split; a response that ends in
    "..." did not stop."""
    evaluation = folder / "eval" / "test"
    exact = [float(response == reference) for response, reference in zip(responses, references, strict=True)]
    finished = [not response.endswith("...") for response in responses]
    records = [
        {
            "row": row,
            "id": f"row_{row}",
            "prompt": f"<|user|>\nQuestion {row}?",
            "instruction": f"Question {row}?",
            "response": response,
            "reference": references[row],
            "tokens": 4,
            "finished": finished[row],
            **changes,
        }
        for row, response in enumerate(responses)
    ]
    write_json_lines(evaluation / "responses.jsonl", records)
    write_json_lines(
        evaluation / "scores.jsonl",
        [
            {"row": row, "id": f"row_{row}", "exact_match": value, "token_f1": value}
            for row, value in enumerate(exact)
        ],
    )
    mean = sum(exact) / len(exact)
    write_json(
        evaluation / "scores.json",
        {
            "rows": len(exact),
            "exact_match": mean,
            "token_f1": mean,
            "finished": sum(finished) / len(finished),
            "mean_tokens": 4.0,
            "metrics": {},
        },
    )
    write_json(
        evaluation / "generation.json",
        {
            "model": str(folder),
            **TEST_FILE,
            "max_new_tokens": 64,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "dtype": "float32",
            "rows": len(exact),
            "complete": True,
        },
    )


def write_bleu(folder: Path, split: str, sentence: float, corpus: float) -> None:
    """Write bleu.json of a split."""
    write_json(
        folder / "eval" / split / "bleu.json",
        {"sentence_bleu": sentence, "corpus_bleu": corpus, "rows": 4, "signature": "BLEU|c:mixed"},
    )


def write_run(
    folder: Path,
    arm: str,
    seed: int = 0,
    finished: bool = True,
    data: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a run folder with run.json and metrics.jsonl, without evaluations; return its path."""
    response_share = {"IT": 1.0, "IM": 0.25}.get(arm, 0.5)
    counts = {
        "template": 0.0,
        "user": 1 - response_share,
        "assistant": response_share * 0.8,
        "end": response_share * 0.2,
    }
    by_kind = {
        kind: {"tokens": 100, "tokens_with_loss": 100 if share else 0, "loss_share": share}
        for kind, share in counts.items()
    }
    data = {
        "path": TRAIN_FILE["file"],
        "sha256": TRAIN_FILE["sha256"],
        "rows": 4,
        "used": 4,
        "bad_rows": {},
        "dropped": {},
        "truncated_rows": 0,
        "tokens_cut": 0,
        "tokens": 400,
        "by_kind": by_kind,
        **(data or {}),
    }
    write_json(
        folder / "run.json",
        {
            "finished": finished,
            "arm": arm,
            "git_commit": "c0ffee",
            "steps": 3,
            "epochs": 1,
            "seconds": 61.0,
            "options": {
                "seed": seed,
                "output_dir": str(folder),
                "learning_rate": 2e-05,
                "num_train_epochs": 1,
                "use_lm_loss": arm == "IM",
                **options,
            },
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "machine": {"cpu": "a processor", "cores": 2, "gpu": None},
            "data": data,
            "model": {"name_or_path": "small-model", "parameters": 1234567, "chat_format": "tokenizer"},
        },
    )
    write_json_lines(
        folder / "metrics.jsonl",
        [
            {
                "step": step,
                "epoch": step / 3,
                "loss": 2.0,
                "nll": {
                    "assistant": 2.0 - 0.25 * step - 0.01 * seed,
                    **({} if arm == "IT" else {"user": 3.0}),
                },
            }
            for step in (1, 2, 3)
        ],
    )
    return folder
