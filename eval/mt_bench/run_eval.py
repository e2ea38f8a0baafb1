"""MT-Bench of a model: two-turn answers to 80 questions, and a judge's ratings of them, from 1 to 10.

    python -m eval.mt_bench.run_eval --model_name_or_path output/im [--use_vllm]
    python -m eval.mt_bench.run_eval --model_name_or_path output/im --no_judge                 # the answers alone
    python -m eval.mt_bench.run_eval --answers model_answer/im.jsonl --save_dir results/eval/im
    python -m eval.mt_bench.run_eval ... --mode pairwise-baseline --baseline_answers model_answer/base.jsonl

The judge is gpt-4, the one of the published numbers, with the key in OPENAI_API_KEY, or any behind an OpenAI-compatible address
(--judge_base_url, --judge_model). What it will cost is printed first, and above --cost_limit nothing is sent without --yes.
Questions, judge prompts, reference answers and the reading of verdicts are FastChat's (sh prepare_eval_data.sh mt_bench).

In --save_dir/mt_bench: model_answer/MODEL.jsonl and model_judgment/JUDGE_single.jsonl (or JUDGE_pair.jsonl) in FastChat's
formats, results.json, items.jsonl (each turn's score), unparsed.json, categories.png, and judge_replies.jsonl. A stopped run goes on
where it was when the same command is given again: nothing is generated or paid twice, and no judgment is written twice.
"""

import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.judge_options import JudgeOptions
from instruction_modelling.command_line import parse_options
from instruction_modelling.engine import EngineOptions
from instruction_modelling.errors import UserError, run_main

if TYPE_CHECKING:
    from eval.mt_bench.judging import Judged
    from eval.mt_bench.questions import Benchmark

logger = logging.getLogger("eval.mt_bench")

JUDGE = "gpt-4"


@dataclass
class MtBenchOptions(JudgeOptions, EngineOptions):
    """MT-Bench."""

    answers: str | None = None
    """Answers to judge instead of a model's own: a file in FastChat's format."""
    model_id: str | None = None
    """The name that answers and judgments carry (default: the model's or the file's)."""
    save_dir: str | None = None
    """Folder of everything about this model (default: results/eval/ and the model's name)."""
    data_dir: str = "data/eval/mt_bench"
    """Folder of the questions, judge prompts and reference answers."""
    mode: Literal["single", "pairwise-baseline"] = "single"
    """Rate each answer on its own, or beside the baseline's, in both orders."""
    baseline_answers: str | None = None
    """The baseline's answers, in FastChat's format."""
    no_judge: bool = False
    """Only generate."""
    max_new_tokens: int = 1024
    """Tokens an answer may have, as in FastChat."""
    seed: int = 0
    """Of the categories that are answered above temperature 0."""
    max_questions: int | None = None
    """The first so many questions (default: all 80); the means compare with no published ones."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = self.judge_problems() + self.engine_problems()
        if (self.model_name_or_path is None) == (self.answers is None):
            problems.append("give either --model_name_or_path or --answers")
        if (self.mode == "pairwise-baseline") != (self.baseline_answers is not None):
            problems.append("--mode pairwise-baseline and --baseline_answers go together")
        problems += [f"--{name} {getattr(self, name)} must be 1 or more" for name in ("max_new_tokens", "max_questions")
                     if getattr(self, name) is not None and getattr(self, name) < 1]
        return problems


def main() -> int:
    """Options, answers, judgments, files."""
    options = parse_options(MtBenchOptions)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        run(options)
    except KeyboardInterrupt:
        logger.info("stopped; what was answered and judged is kept: the same command goes on from there")
        return 130
    return 0


def run(options: MtBenchOptions) -> None:
    """Generates what is not answered yet, asks what is not judged yet, and writes the results."""
    from dataclasses import replace

    from eval.mt_bench.answers import answer_questions, read_answers
    from eval.mt_bench.questions import load_benchmark

    benchmark = load_benchmark(Path(options.data_dir))
    if options.max_questions:
        benchmark = replace(benchmark, questions=benchmark.questions[:options.max_questions])
    source = Path(options.model_name_or_path or options.answers or "")
    name = options.model_id or (source.stem if options.answers else source.name)
    folder = Path(options.save_dir or Path("results/eval") / name) / "mt_bench"
    made: dict[str, Any] = {"answers": options.answers}
    if options.answers is None:
        from instruction_modelling.engine import open_engine

        with open_engine(options) as engine:
            path = answer_questions(engine, name, benchmark.questions, folder, options.max_new_tokens, options.seed)
            made = {"model": options.model_name_or_path, "engine": engine.name, "chat_format": engine.chat_format,
                    "max_new_tokens": options.max_new_tokens, "seed": options.seed}
    else:
        path = Path(options.answers)
    answers = read_answers(path, benchmark.questions)
    if options.no_judge:
        logger.info("%d questions are answered in %s; nothing was judged", len(answers), path)
        return
    judge_all(options, benchmark, answers, folder, name, made)


def judge_all(options: MtBenchOptions, benchmark: "Benchmark", answers: dict[int, tuple[str, ...]], folder: Path, name: str,
              made: dict[str, Any]) -> None:
    """Asks the judge and writes judgments and results.

    Raises:
        UserError: the cost is above the limit, the judge did not answer everything, or too few verdicts can be read.
    """
    from eval.mt_bench.answers import read_answers
    from eval.mt_bench.judging import REPLY_TOKENS, judge, pair_matches, single_matches
    from instruction_modelling.progress import Progress

    other = None
    if options.baseline_answers:
        other = read_answers(Path(options.baseline_answers), benchmark.questions)
        matches = pair_matches(benchmark, other, answers)
    else:
        matches = single_matches(benchmark, answers)
    folder.mkdir(parents=True, exist_ok=True)
    judged: list[Judged] = []
    with options.open_judge(JUDGE, folder / "judge_replies.jsonl") as client:
        estimate = client.estimate([match.request() for match in matches], options.price_per_million_input,
                                   options.price_per_million_output, REPLY_TOKENS)
        estimate.confirm(options.yes, options.cost_limit)
        progress = Progress(len(matches), "judgments")
        for one in judge(client, matches, options.judge_retries):
            judged.append(one)
            progress.add(1)
        judge_name, used = client.model, vars(client.usage)
    failed = [one for one in judged if one.error]
    if failed:
        raise UserError(f"{len(failed)} of {len(matches)} judgments are not there, the first because: {failed[0].error}. No result was "
                        "written; the same command asks for them again and pays for nothing twice")
    baseline = Path(options.baseline_answers).stem if options.baseline_answers else None
    write_judgments(folder, judged, name, judge_name, baseline)
    unread = [one for one in judged if one.unread]
    if unread:
        logger.warning("%d of %d judgments have no verdict that can be read; they are listed in %s", len(unread), len(judged),
                       folder / "unparsed.json")
    if len(unread) > (1 - options.min_parsed_share) * len(judged):
        raise UserError(f"only {len(judged) - len(unread)} of {len(judged)} judgments have a verdict that can be read, which is below "
                        f"--min_parsed_share {options.min_parsed_share}: {judge_name} may not follow the prompt; look at "
                        f"{folder / 'unparsed.json'}")
    write_results(options, benchmark, folder, name, judge_name, baseline, made, used)


def write_judgments(folder: Path, judged: "list[Judged]", name: str, judge_name: str, baseline: str | None) -> None:
    """The file of judgments, in FastChat's format and in the questions' order, and the list of those without a verdict."""
    from instruction_modelling.run_folder import write_aside

    ordered = sorted(judged, key=lambda one: [int(part) for part in one.match.key.split("_")])
    rows: list[dict[str, Any]] = []
    for one in ordered:
        match = one.match
        common = {"question_id": match.question.id, "turn": match.turn, "judge": [judge_name, match.prompt.name], "tstamp": time.time()}
        if baseline is None:
            rows.append({**common, "model": name, "user_prompt": match.user_prompt, "judgment": one.judgment, "score": one.verdict})
            continue
        # Game 1 shows the baseline as A, game 2 as B; both are one row.
        game = int(match.key.rpartition("_")[2])
        winner = {"A": "model_1" if game == 1 else "model_2", "B": "model_2" if game == 1 else "model_1"}.get(one.verdict, one.verdict)
        if game == 1:
            rows.append({**common, "model_1": baseline, "model_2": name})
        rows[-1].update({f"g{game}_winner": winner, f"g{game}_user_prompt": match.user_prompt, f"g{game}_judgment": one.judgment})
    path = folder / "model_judgment" / f"{judge_name.replace('/', '_')}_{'single' if baseline is None else 'pair'}.jsonl"
    path.parent.mkdir(exist_ok=True)
    write_aside(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    unread = [{"question_id": one.match.question.id, "turn": one.match.turn, "judgment": one.judgment} for one in ordered if one.unread]
    write_aside(folder / "unparsed.json", json.dumps(unread, indent=1, ensure_ascii=False) + "\n")


def write_results(options: MtBenchOptions, benchmark: "Benchmark", folder: Path, name: str, judge_name: str, baseline: str | None,
                  made: dict[str, Any], used: dict[str, int]) -> None:
    """results.json, items.jsonl, the picture, and the table."""
    import importlib.metadata

    from eval.mt_bench.figure import draw_categories
    from eval.mt_bench.judgments import category_rates, pair_rates, rates, read_judgments
    from eval.mt_bench.show_results import print_categories, print_rates
    from instruction_modelling.run_folder import write_aside

    kind = "single" if baseline is None else "pair"
    rows = read_judgments(folder / "model_judgment" / f"{judge_name.replace('/', '_')}_{kind}.jsonl")
    found = rates(rows) if baseline is None else pair_rates(rows)
    print_rates(found)
    common = {"model": name, "judge": judge_name, "questions": len(benchmark.questions), "made": made, "judge_usage": used,
              "harness": {"name": "FastChat prompts", "version": importlib.metadata.version("fschat")}}
    if baseline is not None:
        write_aside(folder / "results_pairwise.json", json.dumps({**found[name], "baseline": baseline, **common}, indent=1) + "\n")
        return
    by_category = category_rates(rows, {question.id: question.category for question in benchmark.questions})
    print_categories(by_category)
    write_aside(folder / "results.json", json.dumps({**found[name], "categories": by_category.get(name, {}), **common}, indent=1) + "\n")
    items = [{"item": f"{row['question_id']}_{row['turn']}", "score": None if row["score"] == -1 else row["score"]} for row in rows]
    write_aside(folder / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    draw_categories(by_category, folder / "categories.png")
    logger.info("written to %s: results.json, items.jsonl, categories.png, model_judgment", folder)


if __name__ == "__main__":
    run_main(main)
