"""A judge's verdicts on a model's answers to MT-Bench, and what is written of them."""

import importlib.metadata
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eval.mt_bench.answers import read_answers
from eval.mt_bench.figure import draw_categories
from eval.mt_bench.judging import REPLY_TOKENS, Judged, judge, pair_matches, single_matches
from eval.mt_bench.judgments import category_rates, pair_rates, rates, read_judgments, score_of
from eval.mt_bench.questions import Benchmark
from eval.mt_bench.show_results import print_categories, print_rates, print_remarks
from instruction_modelling.errors import UserError
from instruction_modelling.progress import Progress
from instruction_modelling.runs.folder import write_aside

if TYPE_CHECKING:
    from eval.mt_bench.run_eval import MtBenchOptions

logger = logging.getLogger("eval.mt_bench")

# The judge of the published numbers.
JUDGE = "gpt-4"


def judged(
    options: "MtBenchOptions",
    benchmark: Benchmark,
    answers: dict[int, tuple[str, ...]],
    folder: Path,
    name: str,
    made: dict[str, Any],
) -> None:
    """Asks the judge and writes judgments and results.

    Raises:
        UserError: the cost is above the limit, the judge did not answer everything, or too few verdicts can
        be read.
    """
    if options.baseline_answers:
        other = read_answers(Path(options.baseline_answers), benchmark.questions)
        matches = pair_matches(benchmark, answers, other)
    else:
        matches = single_matches(benchmark, answers)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts: list[Judged] = []
    with options.open_judge(JUDGE, folder / "judge_replies.jsonl") as client:
        progress = Progress(len(matches), "judgments")
        for one in judge(
            client,
            matches,
            options.judge_retries,
            lambda requests: options.confirm_cost(client, requests, REPLY_TOKENS),
        ):
            verdicts.append(one)
            progress.add(1)
        judge_name = client.model
        used = {
            **vars(client.usage),
            "dollars": options.spent(client),
            "retries": options.judge_retries,
            "service": "local" if client.local else urlsplit(client.base_url).netloc,
        }
    failed = [one for one in verdicts if one.error and not one.refused]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(matches)} judgments are not there, the first because: {failed[0].error}. "
            "No result was "
            "written; the same command asks for them again and pays for nothing twice"
        )
    baseline = Path(options.baseline_answers).stem if options.baseline_answers else None
    write_judgments(folder, verdicts, name, judge_name, baseline)
    unread = [one for one in verdicts if one.unread]
    unread_file = folder / unread_name(baseline)
    if unread:
        logger.warning(
            "%d of %d judgments have no verdict that can be read and are in no mean; they are listed in %s",
            len(unread),
            len(verdicts),
            unread_file,
        )
    if len(verdicts) - len(unread) < options.min_parsed_share * len(verdicts):
        # The figures of an earlier, better run would be taken for this one's.
        (folder / results_name(baseline)).unlink(missing_ok=True)
        raise UserError(
            f"only {len(verdicts) - len(unread)} of {len(verdicts)} judgments have a verdict that can be "
            "read, which is below "
            f"--min_parsed_share {options.min_parsed_share:g}, so there is no result. Is {judge_name} able "
            "to judge? What it "
            f"said is in {unread_file}; --judge_retries asks again"
        )
    write_results(options, benchmark, folder, name, judge_name, baseline, made, used)


def results_name(baseline: str | None) -> str:
    """The file of the rates."""
    return "results.json" if baseline is None else "results_pairwise.json"


def unread_name(baseline: str | None) -> str:
    """The file of the judgments without a verdict."""
    return "unparsed.json" if baseline is None else "unparsed_pairwise.json"


def write_judgments(
    folder: Path, verdicts: list[Judged], name: str, judge_name: str, baseline: str | None
) -> None:
    """The file of judgments, in FastChat's format and in the questions' order, and the list of those without
    a verdict."""
    ordered = sorted(verdicts, key=lambda one: [int(part) for part in one.match.key.split("_")])
    rows: list[dict[str, Any]] = []
    for one in ordered:
        match = one.match
        common = {
            "question_id": match.question.id,
            "turn": match.turn,
            "judge": [judge_name, match.prompt.name],
            "tstamp": time.time(),
        }
        if baseline is None:
            rows.append(
                {
                    **common,
                    "model": name,
                    "user_prompt": match.user_prompt,
                    "judgment": one.judgment,
                    "score": one.verdict,
                }
            )
            continue
        # Game 1 shows the model as A, game 2 as B; both are one row.
        game = int(match.key.rpartition("_")[2])
        winner = {"A": "model_1" if game == 1 else "model_2", "B": "model_2" if game == 1 else "model_1"}.get(
            one.verdict, one.verdict
        )
        if game == 1:
            rows.append({**common, "model_1": name, "model_2": baseline})
        rows[-1].update(
            {
                f"g{game}_winner": winner,
                f"g{game}_user_prompt": match.user_prompt,
                f"g{game}_judgment": one.judgment,
            }
        )
    path = (
        folder
        / "model_judgment"
        / f"{judge_name.replace('/', '_')}_{'single' if baseline is None else 'pair'}.jsonl"
    )
    path.parent.mkdir(exist_ok=True)
    # Escaped as FastChat's are: a judge may write half a surrogate pair, which UTF-8 cannot hold.
    write_aside(path, "".join(json.dumps(row) + "\n" for row in rows))
    unread = [
        {
            "item": one.match.key,
            "question_id": one.match.question.id,
            "turn": one.match.turn,
            "reason": one.error or "no verdict in the judgment",
            "judgment": one.judgment,
        }
        for one in ordered
        if one.unread
    ]
    write_aside(folder / unread_name(baseline), json.dumps(unread, indent=1) + "\n")


def write_results(
    options: "MtBenchOptions",
    benchmark: Benchmark,
    folder: Path,
    name: str,
    judge_name: str,
    baseline: str | None,
    made: dict[str, Any],
    used: dict[str, Any],
) -> None:
    """results.json, items.jsonl, the picture, and the table."""
    kind = "single" if baseline is None else "pair"
    rows = read_judgments(folder / "model_judgment" / f"{judge_name.replace('/', '_')}_{kind}.jsonl")
    found = rates(rows) if baseline is None else pair_rates(rows)
    print_rates(found)
    print_remarks(rows, found, sys.stdout)
    common = {
        "model": name,
        "judge": judge_name,
        "judge_service": used["service"],
        "questions": len(benchmark.questions),
        "engine": made.get("engine"),
        "chat_format": made.get("chat_format"),
        "made": made,
        "judge_usage": used,
        "harness": {"name": "FastChat prompts", "version": importlib.metadata.version("fschat")},
    }
    if baseline is not None:
        write_aside(
            folder / results_name(baseline),
            json.dumps({**found[name], "baseline": baseline, **common}, indent=1) + "\n",
        )
        return
    by_category = category_rates(rows, {question.id: question.category for question in benchmark.questions})
    print_categories(by_category)
    write_aside(
        folder / results_name(baseline),
        json.dumps({**found[name], "categories": by_category.get(name, {}), **common}, indent=1) + "\n",
    )
    items = [{"item": f"{row['question_id']}_{row['turn']}", "score": score_of(row)} for row in rows]
    write_aside(folder / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    if by_category:
        draw_categories(by_category, folder / "categories.png")
    logger.info("written to %s: results.json, items.jsonl, categories.png, model_judgment", folder)
