"""lm-eval's benchmarks once more, by their papers' definitions: prompts from the raw files, plain
transformers, one item at a time."""

import bz2
import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class Item:
    """An item of a benchmark: how it ends a prompt, and what is scored behind it."""

    text: str
    """The item's part of the prompt."""
    choices: list[str] = field(default_factory=list)
    """What the model chooses from, as it stands behind the prompt."""
    right: int = 0
    answer: str = ""
    """Of what is generated, or foretold."""
    prompts: list[str] = field(default_factory=list)
    """Where the prompts differ and what follows is the same (WinoGrande)."""
    lengths: list[int] = field(default_factory=list)
    """Characters of the choices, by which `acc_norm` divides."""
    true: list[bool] = field(default_factory=list)
    """Which choices are true, where several are."""


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _choices(text: str, options: list[str], right: int, **rest: Any) -> Item:
    return Item(
        text, [f" {option}" for option in options], right, lengths=[len(option) for option in options], **rest
    )


def mmlu(data: Path, subject: str) -> list[Item]:
    """Read the items of a subject."""
    with (data / "mmlu" / "test" / f"{subject}_test.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    return [
        _choices(f"{q.strip()}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:", list("ABCD"), "ABCD".index(letter))
        for q, a, b, c, d, letter in rows
    ]


def piqa(data: Path) -> list[Item]:
    """Read the items of PIQA."""
    labels = (data / "piqa" / "valid-labels.lst").read_text().split()
    return [
        _choices(f"Question: {row['goal']}\nAnswer:", [row["sol1"], row["sol2"]], int(label))
        for row, label in zip(_jsonl(data / "piqa" / "valid.jsonl"), labels, strict=True)
    ]


def winogrande(data: Path) -> list[Item]:
    """Read the items of WinoGrande."""
    items = []
    for row in _jsonl(data / "winogrande" / "dev.jsonl"):
        before, after = row["sentence"].split("_", 1)
        items.append(
            Item(
                "",
                [f" {after.strip()}"] * 2,
                int(row["answer"]) - 1,
                prompts=[before + row["option1"], before + row["option2"]],
            )
        )
    return items


def arc_challenge(data: Path) -> list[Item]:
    """Read the items of ARC's challenge set."""
    items = []
    for row in _jsonl(data / "arc" / "ARC-Challenge-Test.jsonl"):
        choices = row["question"]["choices"]
        items.append(
            _choices(
                f"Question: {row['question']['stem']}\nAnswer:",
                [choice["text"] for choice in choices],
                [choice["label"] for choice in choices].index(row["answerKey"]),
            )
        )
    return items


def _wikihow(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def hellaswag(data: Path) -> list[Item]:
    """Read the items of HellaSwag."""
    lines = (
        bz2.decompress((data / "hellaswag" / "hellaswag_val_full.txt.bz2").read_bytes()).decode().split("\n")
    )
    items = []
    for at in range(0, len(lines) - 5, 6):
        items.append(
            _choices(
                _wikihow(lines[at]),
                [_wikihow(ending) for ending in lines[at + 2 : at + 6]],
                int(lines[at + 1]),
            )
        )
    return items


def lambada_openai(data: Path) -> list[Item]:
    """Read the items of LAMBADA."""
    texts = [row["text"] for row in _jsonl(data / "lambada" / "lambada_test.jsonl")]
    return [Item(text.rpartition(" ")[0], answer=" " + text.rpartition(" ")[2]) for text in texts]


def truthfulqa_mc2(data: Path) -> list[Item]:
    """Read the items of TruthfulQA."""
    rows = json.loads((data / "truthfulqa" / "mc_task.json").read_text(encoding="utf-8"))
    return [
        _choices(
            f"Q: {row['question']}\nA:",
            list(row["mc2_targets"]),
            0,
            true=[bool(label) for label in row["mc2_targets"].values()],
        )
        for row in rows
    ]


def gsm8k_cot(data: Path) -> list[Item]:
    """Read the items of GSM8K."""
    return [
        Item(f"Q: {row['question']}\nA:", answer=row["answer"].split("#### ")[-1].replace(",", ""))
        for row in _jsonl(data / "gsm8k" / "test.jsonl")
    ]


def bbh(data: Path, task: str) -> list[Item]:
    """Read the items of a task of BIG-Bench Hard."""
    rows = json.loads((data / "bbh" / f"{task}.json").read_text(encoding="utf-8"))["examples"]
    return [Item(f"Q: {row['input']}\nA: Let's think step by step.\n", answer=row["target"]) for row in rows]


ITEMS = {
    "mmlu_anatomy": lambda data: mmlu(data, "anatomy"),
    "mmlu_college_physics": lambda data: mmlu(data, "college_physics"),
    "piqa": piqa,
    "winogrande": winogrande,
    "arc_challenge": arc_challenge,
    "hellaswag": hellaswag,
    "lambada_openai": lambada_openai,
    "truthfulqa_mc2": truthfulqa_mc2,
    "gsm8k_cot": gsm8k_cot,
    "bbh_cot_fewshot_boolean_expressions": lambda data: bbh(data, "boolean_expressions"),
    "bbh_cot_fewshot_snarks": lambda data: bbh(data, "snarks"),
}
GENERATED = {
    "gsm8k_cot": ("Q:", "</s>", "<|im_end|>"),
    "bbh_cot_fewshot_boolean_expressions": ("</s>", "Q", "\n\n"),
    "bbh_cot_fewshot_snarks": ("</s>", "Q", "\n\n"),
}


class PlainModel:
    """A model and its tokenizer, in float32."""

    def __init__(self, folder: Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.context_length = self.model.config.max_position_embeddings

    @torch.no_grad()
    def log_likelihood(self, prompt: str, continuation: str) -> tuple[float, bool]:
        """Return the log-probability of a continuation, and whether it is what greedy decoding writes."""
        # A space between the two belongs to the continuation's first token.
        stripped = prompt.rstrip(" ")
        continuation = prompt[len(stripped) :] + continuation
        whole = self.tokenizer(stripped + continuation)["input_ids"]
        before = len(self.tokenizer(stripped)["input_ids"])
        count = len(whole) - before
        ids = whole[-(self.context_length + 1) :]
        scores = self.model(torch.tensor([ids[:-1]])).logits[0, -count:].log_softmax(-1)
        targets = torch.tensor(ids[-count:])
        return float(scores.gather(1, targets[:, None]).sum()), bool((scores.argmax(-1) == targets).all())

    @torch.no_grad()
    def generate(self, prompt: str, stops: tuple[str, ...], most: int) -> str:
        """Decode greedily up to the first stop."""
        ids = self.tokenizer(prompt)["input_ids"][-(self.context_length - most) :]
        new: list[int] = []
        out = self.model(torch.tensor([ids]), use_cache=True)
        while len(new) < most:
            token = int(out.logits[0, -1].argmax())
            if token == self.tokenizer.eos_token_id:
                break
            new.append(token)
            text = self.tokenizer.decode(new)
            if any(stop in text for stop in stops):
                break
            out = self.model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
        text = str(self.tokenizer.decode(new, skip_special_tokens=True))
        return min((text.split(stop)[0] for stop in stops), key=len)


def prompt_of(sample: dict[str, Any]) -> str:
    """Return what the model was asked first for an item."""
    arguments = sample["arguments"]
    return arguments["gen_args_0"]["arg_0"] if isinstance(arguments, dict) else arguments[0][0]


def scores(model: PlainModel, item: Item, prompt: str) -> dict[str, float]:
    """Return `acc` and `acc_norm` of an item with choices behind a whole prompt; of a foretold word,
    `acc`."""
    if not item.choices:
        return {"acc": float(model.log_likelihood(prompt, item.answer)[1])}
    # The prompts differ in the end alone where there are several.
    head = prompt[: len(prompt) - len(item.prompts[0])] if item.prompts else prompt
    values = np.array(
        [
            model.log_likelihood(head + item.prompts[choice_number] if item.prompts else prompt, choice)[0]
            for choice_number, choice in enumerate(item.choices)
        ]
    )
    if item.true:
        chances = np.exp(values) / np.exp(values).sum()
        return {"acc": float(chances[np.array(item.true)].sum())}
    metrics = {"acc": float(values.argmax() == item.right)}
    if item.lengths:
        metrics["acc_norm"] = float((values / np.array(item.lengths)).argmax() == item.right)
    return metrics


def verdict(task: str, answer: str, item: Item) -> float:
    """Whether a generated answer is right: the last words behind `The answer is` (GSM8K), `the answer is`
    (BBH)."""
    if task == "gsm8k_cot":
        found = re.findall(r"The answer is (\-?[0-9\.\,]+).", answer)
        return float(bool(found) and found[0].replace(",", "").replace("$", "").rstrip(".") == item.answer)
    found = re.findall(r"(?<=the answer is )(.*)(?=.)", answer)
    return float(bool(found) and found[0].strip() == item.answer)
