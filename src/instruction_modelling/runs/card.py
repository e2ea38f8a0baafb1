"""The model card: the README.md beside a tuned model, made from its run.json."""

import shlex
from pathlib import Path
from typing import Any

from instruction_modelling.options import kl_term
from instruction_modelling.progress import counted
from instruction_modelling.runs.members import members_in_words
from instruction_modelling.runs.privacy import privacy_note

CARD = """\
---
base_model: {model}
library_name: transformers
tags: [instruction-tuning, instruction-modelling]
---

# {arm} of {model}

Tuned with *{arm}*: a loss weight for every token, by who wrote it.

| | |
|---|---|
| {weights} |
{table}{within}| masks | {mask_style} |
| loss normalisation, denominator | {loss_normalization}, {loss_denominator} |
| chat format | {chat_format} (saved as the tokenizer's chat template) |
| data | {file}, {amount}, sha256 `{sha256}` |
{members}| cut at the maximum length | {cut} |
| steps, examples a step, epochs | {steps}, {examples_per_step}, {epochs:g} |
{best}| learning rate, schedule, optimiser | {learning_rate:g}, {lr_scheduler_type}, {optimizer} |
| NEFTune alpha, KL term | {neftune_alpha}, {kl_term} |
| seed | {seed} |
| weights saved as | {saved_as} |

Where the loss fell:

| tokens of kind | tokens | with a loss | share of the loss |
|---|--:|--:|--:|
{shares}
## Use it

```python
from transformers import pipeline

chat = pipeline("text-generation", {folder!r})
messages = [{{"role": "user", "content": "What is a rainbow?"}}]
print(chat(messages, max_new_tokens=256)[0]["generated_text"][-1]["content"])
```

On the terminal: `python src/chat.py {quoted}`.
As a server with OpenAI's API, where vLLM is installed: `vllm serve {quoted}`.
{asked_otherwise}{warning}
Every option, version and count is in `run.json`; every step in `metrics.jsonl`.
Method: Shi et al., *Instruction Tuning With Loss Over Instructions*, NeurIPS 2024 (arXiv 2405.14394).
"""
WEIGHTS = (
    "instruction / response / template loss weight | "
    "{instruction_weight:g} / {response_weight:g} / {template_weight:g}"
)
TABLE = "| loss weights of single kinds | {loss_weights} |\n"
WITHIN = "| turns and patterns of the assistant | {within} |\n"
# Of a run that ended before its plan, or whose best weights were saved.
BEST = "| by the loss on the evaluation rows | {best} |\n"
# Of a run on several files.
MEMBERS = "| files | {members} |\n"
SHARE = "| {kind} | {tokens:,} | {tokens_with_loss:,} | {loss_share:.1%} |\n"
# For a model that is asked otherwise than it was trained.
ASKED_OTHERWISE = """
Before {turns} the chat template's generation prompt opens something that the turn does not go on with (`<think>` before
an answer without reasoning): asked with it, the model is asked in another way than it was trained there.
"""  # noqa: E501 (lines of Markdown)
# For a model whose loss reached over what users wrote.
WARNING = """
## Warning

The loss of this run reached over user (or system) text: the model has learned to write what users wrote, private
details included, and may go on as the user. A follow-up study (arXiv 2511.13052) found models tuned this way much more
easily broken by adversarial fine-tuning (attack success 60.9 / 80.0 / 81.9 % against 34.8 / 55.0 / 7.3 % for
response-only tuning on HEx-PHI / PureBad / AdvBench after five steps), and weaker in-domain learning for some models.
Test safety before you release it.

{privacy}
"""  # noqa: E501 (lines of Markdown)


def model_card(record: dict[str, Any], folder: Path | str, every_token_weighs_1: bool = False) -> str:
    """Return the card, Markdown with a YAML head, of the run that run.json's `record` describes.

    Args:
        folder: where the model is saved, or its name on a hub.
        every_token_weighs_1: the rows were cut into blocks that do not keep their weights.
    """
    options, data = record["options"], record["data"]
    weight, by_kind = options["instruction_loss_weight"], data["by_kind"]
    weights = WEIGHTS.format(
        instruction_weight=float(options["use_lm_loss"]) if weight is None else weight,
        response_weight=options["response_loss_weight"],
        template_weight=options["template_loss_weight"],
    )
    # Runs of before there was such an option have none of these.
    parts = (
        [] if options.get("train_turns", "all") == "all" else [f"the {options['train_turns']} turns alone"]
    )
    parts += [
        f"`{name}` x {one['weight']:g} ({counted(one['matches'], 'match', 'matches')})".replace("|", "\\|")
        for name, one in data.get("loss_patterns", {}).items()
    ]
    table = (options.get("loss_weights") or "").replace(",", ", ")
    rows, used = counted(data["rows"], "row"), data["used"]
    amount = f"{counted(used, 'block')} of {rows}" if options["use_lm_modelling"] else f"{used:,} of {rows}"
    if data["sequences"] > used:
        amount += f", as {counted(data['sequences'], 'sequence')}"
    cut = (
        f"{counted(data['truncated_rows'], 'row')} ({counted(data['tokens_cut'], 'token')}, "
        f"{counted(data['turns_cut'], 'turn')} of the assistant whole)"
    )
    differ, members = data["prompts_differ"], data.get("files", [])
    users_text_trained = any(
        by_kind.get(kind, {}).get("tokens_with_loss") for kind in ("user", "system", "text")
    )
    return CARD.format(
        **{
            **options,
            "model": record["model"]["name_or_path"],
            "chat_format": record["model"]["chat_format"],
            "arm": record["arm"],
            "weights": "loss weight of every token | 1" if every_token_weighs_1 else weights,
            "table": "" if every_token_weighs_1 or not table else TABLE.format(loss_weights=table),
            "within": "" if every_token_weighs_1 or not parts else WITHIN.format(within=", ".join(parts)),
            "mask_style": "none" if every_token_weighs_1 else options["mask_style"],
            "loss_denominator": "nonzero" if every_token_weighs_1 else options["loss_denominator"],
            "file": data["path"] if members else Path(data["path"]).name,
            "best": BEST.format(best="; ".join(_best_in_words(record))) if record.get("best") else "",
            "members": MEMBERS.format(members=members_in_words(members)) if members else "",
            "amount": amount,
            "cut": cut,
            "sha256": data["sha256"],
            "steps": record["steps"],
            "examples_per_step": record["examples_per_step"],
            "epochs": record["epochs"],
            "neftune_alpha": options["neftune_alpha"] or "none",
            "kl_term": kl_term(options),
            "shares": "".join(SHARE.format(kind=kind, **entry) for kind, entry in by_kind.items()),
            "asked_otherwise": ASKED_OTHERWISE.format(turns=counted(differ, "turn")) if differ else "",
            "warning": WARNING.format(privacy=privacy_note()) if users_text_trained else "",
            "saved_as": record["model"].get("saved_as", "not yet"),
            "folder": str(folder),
            "quoted": shlex.quote(str(folder)),
        }
    )


def _best_in_words(record: dict[str, Any]) -> list[str]:
    best, words = record["best"], []
    of_score = "task_score" in best
    what = "the best task score" if of_score else "the lowest loss"
    value = best["task_score"] if of_score else best["evaluation_loss"]
    if best.get("kept"):
        words.append(f"the weights of step {best['step']}, of {what} ({value:.4f})")
    if "planned_steps" in record:
        words.append(
            f"ended after {record['steps']} of {record['planned_steps']} steps, {what} after {best['step']}"
        )
    return words or [
        f"{what.removeprefix('the ')} after step {best['step']} ({value:.4f}); the last weights are saved"
    ]
