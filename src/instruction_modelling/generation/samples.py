"""Responses to a few prompts while a model is trained: by the model at hand, the most likely token each
time.

Nothing of the run depends on them: they draw nothing, and the model is put back as it was."""

import copy
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.generation.base import EngineOptions, Request, Sampling
from instruction_modelling.generation.prompts import PromptLimits, PromptMaker, RowPrompt, make_prompts
from instruction_modelling.generation.responses import RESPONSES
from instruction_modelling.generation.scores import task_scores
from instruction_modelling.generation.transformers_engine import TransformersEngine
from instruction_modelling.models.attention import WORDS
from instruction_modelling.models.loading import causal_model
from instruction_modelling.models.positions import positions_of, positions_of_name
from instruction_modelling.models.stop_tokens import model_ends
from instruction_modelling.processes.collectives import from_main, together
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import check_bad_rows, read_conversations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.runs.run import Run

logger = logging.getLogger(__name__)

MOST_PROMPTS = 64
# With --task_score, which takes more of them to mean anything; the log and the trackers have the first 64.
MOST_SCORED = 1000
# Characters of a prompt and of a response that a line of the log has.
_IN_LOG = 160


@dataclass(frozen=True)
class SamplePrompts:
    """The prompts of --sample_file, and what they were made with."""

    prompts: list[RowPrompt]
    sha256: str
    """Of the file."""
    tokenizer: "PreTrainedTokenizerBase"
    """With the chat template that is saved with the model."""


class EngineAtHand(TransformersEngine):
    """The model that is being trained, as an engine."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", model: Any):
        """Take the tokenizer, with the template of the run, and the language model."""
        options = EngineOptions(eval_batch_size=MOST_PROMPTS)
        super().__init__(options, tokenizer, model_ends(model), positions_of(model)[0])
        self.model = model


def sample_prompts(run: "Run") -> SamplePrompts:
    """Return the prompts of a run's --sample_file: what stands before the last response of each row, or the
    whole row where it ends with a user's message.

    Raises:
        UserError: it cannot be read, a row cannot be used, there are more than `MOST_PROMPTS`, of prompts
            whose responses are scored `MOST_SCORED`, or the model has no positions for a prompt, or for as
            many tokens as --sample_tokens asks for.
    """
    most = MOST_PROMPTS if run.options.task_score is None else MOST_SCORED
    options, file = run.options, str(run.options.sample_file)
    own = copy.copy(run.data.tokenizer)
    own.chat_template = run.data.chat_format.template
    rows = read_conversations(file, options.columns)
    positions = positions_of_name(options.config_name or options.model_name_or_path)
    if positions is not None and options.sample_tokens > positions:
        raise UserError(
            f"--sample_tokens {options.sample_tokens}: the model has {positions} positions, for prompt and "
            "response together; give fewer tokens"
        )
    limits = PromptLimits(max_seq_length=2**31, max_new_tokens=0, positions=None)
    prompts, refused = make_prompts(rows.conversations, PromptMaker(own, "auto", None), limits)
    check_bad_rows(rows, 0, refused)
    if len(prompts) > most:
        raise UserError(
            f"--sample_file {file}: {counted(len(prompts), 'row')}, and at most {most} are answered "
            "while training; name a smaller file, or measure losses on it (--eval_file)"
        )
    long = next((prompt for prompt in prompts if positions and len(prompt.ids) >= positions), None)
    if long:
        raise UserError(
            f"--sample_file {file}: the prompt of {long.id} has {len(long.ids)} tokens, which leaves no room "
            f"for a response in the model's {positions} positions; leave it out, or shorten it"
        )
    return SamplePrompts(prompts, rows.sha256, own)


def take_samples(run: "Run", samples: SamplePrompts) -> float | None:
    """Answer the prompts by the weights as they are now, and write the responses to samples.jsonl, the log
    and the trackers; every process calls it.

    Returns:
        The mean of --task_score over them; None without one.

    Raises:
        UserError: a prompt leaves no room in the model's positions, the disk is full, or --task_score fails.
    """
    texts: dict[str, str] = {}
    score: float | None = None
    with together(run.accelerator):
        if run.accelerator.is_main_process:
            records = list(_responses(run, samples))
            if run.options.task_score is not None:
                score = _score(run.options.task_score, samples, records)
            for record in records:
                run.folder.add_sample(record)
            for record in records[:MOST_PROMPTS]:
                texts[f"sample/{record['id']}"] = record["response"]
                words = f"{_short(record['instruction'])} -> {_short(record['response'])}"
                logger.info("after %s, %s: %s", counted(run.done, "step"), record["id"], words)
    # Trackers take text under a name; what the prompts are is in samples.jsonl.
    run.accelerator.log(texts, step=run.done)
    score = from_main(run.accelerator, score)
    if score is not None:
        logger.info("after step %d: task score %.4f", run.done, score)
    return score


def _score(command: str, samples: SamplePrompts, records: list[dict[str, Any]]) -> float:
    """Give each record the score of its response, and return their mean."""
    with TemporaryDirectory(prefix="task-score-") as folder:
        file = Path(folder) / RESPONSES
        write_json_lines(
            file,
            (
                {**record, "prompt": prompt.text, "reference": prompt.reference}
                for record, prompt in zip(records, samples.prompts, strict=True)
            ),
        )
        scores = task_scores(command, file, len(records))
    for record, score in zip(records, scores, strict=True):
        record["score"] = score
    return math.fsum(scores) / len(scores)


def _responses(run: "Run", samples: SamplePrompts) -> Iterator[dict[str, Any]]:
    """Yield a line of samples.jsonl for each prompt, in order."""
    model = causal_model(run.accelerator.unwrap_model(run.model).model)
    engine = EngineAtHand(samples.tokenizer, model)
    requests = [Request(str(prompt.row), prompt.ids) for prompt in samples.prompts]
    sampling = Sampling(run.options.sample_tokens)
    with _ready_to_write(model), run.accelerator.autocast():
        by_row = {done.key: done for done in engine.complete(requests, sampling)}
    for prompt in samples.prompts:
        done = by_row[str(prompt.row)]
        text = done.text.removeprefix(" ") if prompt.space_follows else done.text
        yield {
            **{"step": run.done, "row": prompt.row, "id": prompt.id, "instruction": prompt.instruction},
            **{"response": text, "tokens": done.tokens, "finished": done.stopped},
        }


@contextmanager
def _ready_to_write(model: Any) -> Iterator[None]:
    """Let a model write, which is about to be trained: without dropout, by an attention that takes any text,
    and by no settings of its own; afterwards it and the random states are as they were."""
    from transformers import GenerationConfig

    training = [module for module in model.modules() if module.training]
    attention, config = model.config._attn_implementation, model.generation_config
    with torch.random.fork_rng():
        model.eval()
        model.generation_config = GenerationConfig()
        if attention in WORDS:
            model.set_attn_implementation("sdpa")
        try:
            yield
        finally:
            if attention in WORDS:
                model.set_attn_implementation(attention)
            model.generation_config = config
            for module in training:
                module.training = True


def _short(text: str) -> str:
    """Return a text as one line: quoted, its control characters written out, cut where it is long."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if len(quoted) <= _IN_LOG else f"{quoted[:_IN_LOG]}..."
