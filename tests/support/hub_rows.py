"""Rows with the columns of the hub's data sets that lm-eval's tasks of the group sft_eval read, made up and
told apart by a number."""

from typing import Any

import datasets

ROWS = 32


def _row(  # noqa: C901, PLR0912 (a case a data set)
    path: str, name: str | None, split: str, i: int
) -> dict[str, Any]:
    """Row `i` of a split; the right answer is said in what only the right answer says."""
    mark = f"{split} {i}"
    choices = {
        "text": [f"stone {mark}", f"cloud {mark}", f"river {mark}", f"lamp {mark}"],
        "label": list("ABCD"),
    }
    match path:
        case "cais/mmlu":
            return {
                "question": f"Which is {mark}?",
                "choices": choices["text"],
                "answer": i % 4,
                "subject": name,
            }
        case "baber/piqa":
            return {"goal": f"Goal {mark}", "sol1": "wait", "sol2": "go", "label": i % 2}
        case "allenai/openbookqa":
            return {
                "id": mark,
                "question_stem": f"Stem {mark}",
                "choices": choices,
                "answerKey": "ABCD"[i % 4],
            }
        case "Rowan/hellaswag":
            return {
                "activity_label": "Walking",
                "ctx_a": f"A man of {mark} walks.",
                "ctx_b": "he",
                "endings": choices["text"],
                "label": str(i % 4),
            }
        case "EleutherAI/lambada_openai" | "cimec/lambada":
            return {"text": f"They met in the {name} town of {mark} and told it to nobody but Ann"}
        case "wmt/wmt14" | "wmt/wmt16":
            assert name
            return {"translation": {language: f"{language} {mark}" for language in name.split("-")}}
        case "lighteval/winograd_wsc":
            text = f"The cup {mark} did not fit in the bag because it was big."
            return {
                "text": text,
                "pronoun": "it",
                "pronoun_loc": text.index("it was"),
                "options": ["The cup", "The bag"],
                "label": 0,
            }
        case "allenai/winogrande":
            return {
                "sentence": f"Ann of {mark} thanked Bea because _ had helped.",
                "option1": "Ann",
                "option2": "Bea",
                "answer": "12"[i % 2],
            }
        case "allenai/ai2_arc":
            return {
                "id": mark,
                "question": f"Which is {mark}?",
                "choices": choices,
                "answerKey": "ABCD"[i % 4],
            }
        case "EleutherAI/coqa":
            return {
                "id": mark,
                "source": "race",
                "story": f"A story of {mark}.",
                "questions": {"input_text": ["Who?", "Where?"], "turn_id": [1, 2]},
                "answers": {"input_text": ["Ann", "at home"], "turn_id": [1, 2]},
                "additional_answers": {
                    str(one): {"input_text": ["Ann", "home"], "turn_id": [1, 2]} for one in range(3)
                },
            }
        case "openai/gsm8k":
            return {
                "question": f"What is {i} plus one in {split}?",
                "answer": f"It is {i + 1}.\n#### {i + 1}",
            }
        case "SaylorTwift/bbh":
            return {"input": f"Is it so in {mark}?", "target": "yes"}
        case "truthfulqa/truthful_qa":
            targets = {"choices": ["no", "yes"], "labels": [1, 0]}
            return {"question": f"Is it so in {mark}?", "mc1_targets": targets, "mc2_targets": targets}
        case "skg/toxigen-data":
            return {"text": f"People of {mark} are kind.", "toxicity_ai": 1.0, "toxicity_human": 1.0}
        case "EleutherAI/hendrycks_ethics":
            return {
                "input": f"I helped {mark}.",
                "scenario": f"I helped {mark}.",
                "excuse": "No.",
                "trait": "kind",
                "label": i % 2,
                "activity": f"I ate {mark}.",
                "baseline": f"I fell {mark}.",
            }
    raise AssertionError(f"no task of the group reads {path}")


def load_dataset(path: str, name: str | None = None, **rest: object) -> datasets.DatasetDict:
    """Return every split a task may name, in place of `datasets.load_dataset`."""
    splits = ["dev", "train", "validation", "test"]
    if path == "SaylorTwift/bbh":
        splits = ["test"]
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list([_row(path, name, split, i) for i in range(ROWS)])
            for split in splits
        }
    )
