"""A judge's verdicts on a model's answers to MT-Bench, and what is written of them."""

import importlib.metadata
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.mt_bench.answers import failed_answers, read_answers
from eval.mt_bench.display import print_categories, print_rates, print_remarks
from eval.mt_bench.figure import draw_categories
from eval.mt_bench.judging import (
    REPLY_TOKENS,
    Judged,
    judge_matches,
    pair_matches,
    single_matches,
    without_answers,
)
from eval.mt_bench.judgments import (
    category_rates,
    disagreeing,
    pair_rates,
    read_judgments,
    score_of,
    single_rates,
)
from eval.mt_bench.options import MtBenchOptions
from eval.mt_bench.questions import MtBench, QuestionId
from eval.names import check_owner, folder_name
from eval.verdict_text import too_few_verdicts
from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.files.whole import write_json, write_json_lines
from instruction_modelling.progress import Progress

logger = logging.getLogger("eval.mt_bench")

# The files of rates, of single answers and of pairs.
RESULTS = "results*.json"
# The judge of the published numbers.
JUDGE = "gpt-4"


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to the questions, and where judgments and results are written.

    `answers` are the turns by the question's id; `made` says how they were made, for the results; `failed`
    are those of a file that are none, see `failed_answers`."""

    benchmark: MtBench
    answers: dict[QuestionId, tuple[str, ...]]
    folder: Path
    model: str
    made: dict[str, Any]
    failed: Mapping[tuple[QuestionId, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Judging:
    """The judge's name, what asking it used, and the baseline's name where pairs are judged."""

    judge: str
    usage: dict[str, Any]
    baseline: str | None

    def judgments_path(self, folder: Path) -> Path:
        """Return the file of judgments, named as FastChat does."""
        kind = "single" if self.baseline is None else "pair"
        return folder / "model_judgment" / f"{folder_name(self.judge, 'judge')}_{kind}.jsonl"

    def results_path(self, folder: Path) -> Path:
        """Return the file of the rates."""
        return folder / f"results{_suffix(self.baseline)}.json"

    def result_files(self, folder: Path) -> list[Path]:
        """Return the file of the rates and, of single answers, the items' scores and the picture."""
        beside = [folder / "items.jsonl", folder / "categories.png"] if self.baseline is None else []
        return [self.results_path(folder), *beside]

    def unread_path(self, folder: Path) -> Path:
        """Return the file of the judgments without a verdict."""
        return folder / f"unparsed{_suffix(self.baseline)}.json"

    def several_path(self, folder: Path) -> Path:
        """Return the file of the judgments that spell several verdicts which differ."""
        return folder / f"disagreeing{_suffix(self.baseline)}.json"


def judge_answers(options: MtBenchOptions, evaluation: Evaluation) -> None:
    """Ask the judge and write judgments and results.

    Raises:
        UserError: the cost is above the limit, the judge stopped answering, or too few verdicts can be read.
    """
    folder = evaluation.folder
    baseline_made = _check_owners(options, evaluation)
    verdicts, judging = _ask(options, evaluation)
    _write_judgments(verdicts, judging, evaluation)
    unread = [verdict.unread for verdict in verdicts if verdict.unread]
    unread_path = judging.unread_path(folder)
    if unread:
        logger.warning(
            "%d of %d judgments have no verdict that can be read and are in no mean; they are listed in %s",
            len(unread),
            len(verdicts),
            unread_path,
        )
    # The figures of an earlier run would be taken for this one's, and scores of items for those of a result.
    for path in judging.result_files(folder):
        path.unlink(missing_ok=True)
    if len(verdicts) - len(unread) < options.min_parsed_share * len(verdicts):
        raise too_few_verdicts(unread, len(verdicts), options.min_parsed_share, unread_path)
    _write_results(judging, evaluation, baseline_made)


def _check_owners(options: MtBenchOptions, evaluation: Evaluation) -> dict[str, Any] | None:
    """Check that the folder holds no results of other answers or beside another baseline, and return how the
    baseline's were made."""
    check_owner(evaluation.folder.parent, f"mt_bench*/{RESULTS}", "made", evaluation.made)
    if options.baseline_answers is None:
        return None
    made = {"file": options.baseline_answers, "sha256": file_sha256(Path(options.baseline_answers))}
    check_owner(evaluation.folder, RESULTS, "baseline_made", made)
    return made


def _suffix(baseline: str | None) -> str:
    """Return what the names of files of pairs end in."""
    return "" if baseline is None else "_pairwise"


def _ask(options: MtBenchOptions, evaluation: Evaluation) -> tuple[list[Judged], _Judging]:
    benchmark = evaluation.benchmark
    failed = dict(evaluation.failed)
    if options.baseline_answers:
        path = Path(options.baseline_answers)
        baseline = read_answers(path, benchmark.questions)
        failed |= failed_answers(path)
        matches = pair_matches(benchmark, evaluation.answers, baseline)
    else:
        matches = single_matches(benchmark, evaluation.answers)
    matches, unanswered = without_answers(matches, failed)
    verdicts: list[Judged] = []
    with options.open_judge(JUDGE, evaluation.folder / "judge_replies.jsonl") as client:
        progress = Progress(len(matches), "judgments")
        for verdict in judge_matches(
            client,
            matches,
            options.judge_retries,
            lambda requests: options.confirm_cost(client, requests, REPLY_TOKENS),
        ):
            verdicts.append(verdict)
            progress.add(1)
        usage = {
            **vars(client.usage),
            "dollars": options.spent(client),
            "retries": options.judge_retries,
            "service": client.service_name,
            **options.asked_with(client, matches[0].request() if matches else None),
        }
    missing = [verdict for verdict in verdicts if not verdict.asked]
    if verdicts and not any(verdict.reached for verdict in verdicts):
        missing = verdicts
    if missing:
        reasons = [verdict.unread.reason for verdict in verdicts if verdict.asked and verdict.unread]
        raise UserError(
            f"{len(missing)} of {len(matches)} judgments are not there, because the judge said nothing: "
            f"{reasons[0] if reasons else 'it is not there'}. No result was written; the same "
            "command asks for them again and pays for nothing twice"
        )
    return [*verdicts, *unanswered], _Judging(client.model, usage, options.baseline)


def _write_judgments(verdicts: Sequence[Judged], judging: _Judging, evaluation: Evaluation) -> None:
    """Write the judgments in FastChat's format and in the questions' order, and those without a verdict."""
    place = {question.id: number for number, question in enumerate(evaluation.benchmark.questions)}
    ordered = sorted(verdicts, key=lambda verdict: (place[verdict.match.question.id], verdict.match.key))
    rows: list[dict[str, Any]] = []
    for verdict in ordered:
        match = verdict.match
        common = {
            "question_id": match.question.id,
            "turn": match.turn,
            "judge": [judging.judge, match.prompt.name],
            "tstamp": time.time(),
        }
        if judging.baseline is None:
            rows.append(
                {
                    **common,
                    "model": evaluation.model,
                    "user_prompt": match.user_prompt,
                    "judgment": verdict.judgment,
                    "score": verdict.verdict,
                }
            )
            continue
        # Game 1 shows the model as A, game 2 as B; both are one row.
        game = int(match.key.rpartition("_")[2])
        if game == 1:
            rows.append({**common, "model_1": evaluation.model, "model_2": judging.baseline})
        winners = {"A": "model_1", "B": "model_2"} if game == 1 else {"A": "model_2", "B": "model_1"}
        rows[-1] |= {
            f"g{game}_winner": winners.get(verdict.verdict, verdict.verdict),
            f"g{game}_user_prompt": match.user_prompt,
            f"g{game}_judgment": verdict.judgment,
        }
    # Escaped as FastChat's are: a judge may write half a surrogate pair, which UTF-8 cannot hold.
    write_json_lines(judging.judgments_path(evaluation.folder), rows, ascii_only=True)
    unread = [
        {
            "item": verdict.match.key,
            "question_id": verdict.match.question.id,
            "turn": verdict.match.turn,
            "reason": verdict.unread.reason,
            "judgment": verdict.judgment,
        }
        for verdict in ordered
        if verdict.unread
    ]
    write_json(judging.unread_path(evaluation.folder), unread, ascii_only=True)
    several = [
        {
            "item": verdict.match.key,
            "verdicts": list(verdict.said),
            "counted": verdict.verdict,
            "judgment": verdict.judgment,
        }
        for verdict in ordered
        if verdict.said
    ]
    if several:
        write_json(judging.several_path(evaluation.folder), several, ascii_only=True)
    else:
        judging.several_path(evaluation.folder).unlink(missing_ok=True)


def _write_results(judging: _Judging, evaluation: Evaluation, baseline_made: dict[str, Any] | None) -> None:
    """Write results.json, items.jsonl and the picture, and print the table."""
    folder, benchmark = evaluation.folder, evaluation.benchmark
    rows = read_judgments(judging.judgments_path(folder))
    rates = single_rates(rows) if judging.baseline is None else pair_rates(rows)
    print_rates(rates)
    print_remarks(rows, rates, sys.stdout)
    common = {
        "model": evaluation.model,
        "judge": judging.judge,
        "judge_service": judging.usage["service"],
        "questions": len(benchmark.questions),
        "engine": evaluation.made.get("engine"),
        "chat_format": evaluation.made.get("chat_format"),
        "made": evaluation.made,
        "judge_usage": judging.usage,
        "disagreeing": len(disagreeing(rows)),
        "harness": {"name": "FastChat prompts", "version": importlib.metadata.version("fschat")},
    }
    own_rates = rates[evaluation.model]
    if judging.baseline is not None:
        result = {**own_rates, "baseline": judging.baseline, "baseline_made": baseline_made, **common}
        write_json(judging.results_path(folder), result, ascii_only=True)
        return
    by_category = category_rates(rows, {question.id: question.category for question in benchmark.questions})
    print_categories(by_category)
    result = {**own_rates, "categories": by_category.get(evaluation.model, {}), **common}
    write_json(judging.results_path(folder), result, ascii_only=True)
    items = [{"item": f"{row['question_id']}_{row['turn']}", "score": score_of(row)} for row in rows]
    write_json_lines(folder / "items.jsonl", items)
    if by_category:
        draw_categories(by_category, folder / "categories.png")
    logger.info("written to %s: results.json, items.jsonl, categories.png, model_judgment", folder)
