"""Small raw files in the shapes that the published ones have, for the converters' tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> Path:
    """Write one JSON value; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """Write JSON Lines; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a Parquet table; return the path."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_sheet(path: Path, rows: list[list[Any]]) -> Path:
    """Write an Excel sheet; return the path."""
    import openpyxl

    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(path)
    return path


def read_lines(path: Path) -> list[Any]:
    """Read the values of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def alpaca_rows(name: str, count: int, with_input: int = 3) -> list[dict[str, str]]:
    """Return rows of Alpaca's shape; every `with_input`-th has an input."""
    return [
        {
            "instruction": f"{name} question {i}",
            "input": f"{name} text {i}" if i % with_input == 0 else "",
            "output": f"{name} answer {i}",
        }
        for i in range(count)
    ]


def turns(*texts: str) -> list[dict[str, str]]:
    """Return ShareGPT's messages, the human's first."""
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def node(
    role: str, text: str, *replies: dict[str, Any], quality: float | None = None, **more: Any
) -> dict[str, Any]:
    """Return a message of an OASST tree with the replies below it."""
    labels = {} if quality is None else {"labels": {"quality": {"value": quality, "count": 3}}}
    return {
        "message_id": f"id of {text}",
        "role": role,
        "text": text,
        "deleted": False,
        "replies": list(replies),
        **labels,
        **more,
    }


def write_tulu_parts(folder: Path) -> None:
    """Write all parts of both Tülu mixtures, small; open_orca and wizardlm are larger than a test's
    limits."""
    for version, size in (("tulu_v1_resampled_flan_100k", 7), ("tulu_v2_resampled_flan_50k", 5)):
        write_lines(
            folder / "flan_v2" / f"{version}.jsonl",
            [{"inputs": f"{version} prompt {i}", "targets": f"target {i}"} for i in range(size)],
        )
    for kind in ("zsopt", "fsopt"):
        write_lines(
            folder / "cot" / f"cot_{kind}.jsonl",
            [{"inputs": f"{kind} {i}\nThink:", "targets": f"because {i}"} for i in range(12)],
        )
    write_lines(
        folder / "oasst1" / "2023-04-12_oasst_ready.trees.jsonl",
        [
            {
                "prompt": node(
                    "prompter",
                    f"tree {i}",
                    node("assistant", "poor", quality=0.1),
                    node("assistant", "good", quality=0.9),
                )
            }
            for i in range(3)
        ],
    )
    write_lines(
        folder / "lima" / "train.jsonl",
        [{"conversations": [f"lima {i}", f"answer {i}"], "source": "x"} for i in range(4)],
    )
    write_lines(
        folder / "dolly" / "databricks-dolly-15k.jsonl",
        [{"instruction": f"dolly {i}", "context": "", "response": "yes", "category": "qa"} for i in range(4)],
    )
    _write_later_parts(folder)


def _write_later_parts(folder: Path) -> None:
    write_json(folder / "gpt4_alpaca" / "alpaca_gpt4_data.json", alpaca_rows("GPT4-like", 30))
    write_json(folder / "code_alpaca" / "code_alpaca_20k.json", alpaca_rows("code", 6))
    for most in (2048, 4096):
        write_json(
            folder / "sharegpt" / f"sharegpt_html_cleaned_and_split_{most}.json",
            [
                {"id": "a_0", "conversations": turns(f"hello {most}", "hi", "more", "less")},
                {"id": "b_0", "conversations": turns("who are you?", "I am ChatGPT.")},
            ],
        )
    write_json(
        folder / "wizardlm" / "WizardLM_evol_instruct_V2_143k.json",
        [{"idx": f"w{i}", "conversations": turns(f"wizard {i}", f"spell {i}")} for i in range(25)],
    )
    write_parquet(
        folder / "open_orca" / "1M-GPT4-Augmented.parquet",
        [
            {
                "id": f"o.{i}",
                "system_prompt": "Be brief." if i % 2 else "",
                "question": f"orca {i}",
                "response": f"reply {i}",
            }
            for i in range(40)
        ],
    )
    write_lines(
        folder / "science" / "science_train.jsonl",
        [{"dataset": "qasper", "input": f"paper {i}", "output": f"finding {i}"} for i in range(3)],
    )
    write_sheet(
        folder / "hard_coded" / "hard_coded_examples.xlsx",
        [["Prompt", "Output"], ["Who made you?", "People, not OpenAI."], ["Your name?", "Tülu."]],
    )
