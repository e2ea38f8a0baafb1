"""What scripts/eval_all.sh needs before it starts: what is not prepared, and about what it takes and costs.

    python -m eval.preflight --models output/it output/im --parts nlp mt_bench [--no_judge]

Exit codes: 0 all is there; 2 something is not, each in a line with the command that mends it."""

from dataclasses import dataclass, field
from pathlib import Path

from eval.judging_cost import dollars, price_of
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.progress import duration
from instruction_modelling.runs.estimates import model_size
from instruction_modelling.sweeps.readiness import model_problem, visible_gpus

PARTS = ("nlp", "humaneval", "mt_bench", "alpaca_eval")
JUDGED = ("mt_bench", "alpaca_eval")


@dataclass(frozen=True)
class PartWork:
    """What one model does in a part, and what its judge does: tokens and requests."""

    read: float
    """Tokens of prompts and of texts that are scored."""
    written: float
    """Tokens generated, in batches."""
    requests: int = 0
    judge_read: int = 0
    """Tokens of one request's prompt."""
    judge_written: int = 0
    judge: str = ""
    """The judge that published numbers come from."""


# From the sizes of the benchmarks: items x shots' and texts' tokens, by a quarter of their characters. nlp:
# MMLU 14,042 x 700, HellaSwag 40,168 x 1,000, ARC 14,192 x 1,200, the others together 40 million; generated
# are BBH's 6,511 and GSM8K's 1,319 solutions and WMT's 12,000 sentences. HumanEval: 164 x 20 x 2; MT-Bench:
# 160 turns; AlpacaEval: 805.
WORK = {
    "nlp": PartWork(107e6, 3.3e6),
    "humaneval": PartWork(1.0e6, 164 * 20 * 2 * 300),
    "mt_bench": PartWork(60e3, 160 * 500, 160, 1400, 250, "gpt-4"),
    "alpaca_eval": PartWork(40e3, 805 * 400, 2 * 805, 1300, 60, "gpt-4-1106-preview"),
}
BATCH = 32
"""Answers generated at once, in src/generate.py and the benchmarks."""
GPU = (312e12 * 0.4, 2.0e12)
"""Operations and bytes a second of an A100 that is used to 40 %: assumed, as by src/sweep.py."""
CPU = (0.15e12, 20e9)
"""The same of a few CPU cores."""


@dataclass
class PreflightOptions:
    """Before an evaluation."""

    models: list[str]
    """Folders or hub names."""
    parts: list[str] = field(default_factory=lambda: [*PARTS])
    """nlp, humaneval, mt_bench, alpaca_eval."""
    data_dir: str = "data"
    """Where sh prepare_eval_data.sh puts its files."""
    local: bool = False
    """lm-eval's tasks read local files (--local of eval.nlp.run_eval)."""
    no_judge: bool = False
    """The judged parts only answer."""
    judge_model: str | None = None
    """As in the judged parts."""
    judge_base_url: str | None = None
    """As in the judged parts."""
    estimate: bool = False
    """Print hours and the judge's cost too, and end with 0 whatever is missing."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        return [f"--parts {part}: one of {', '.join(PARTS)}" for part in self.parts if part not in PARTS]


def not_prepared(options: PreflightOptions) -> list[str]:
    """Return what is missing, in words, with the command that mends it."""
    from eval.catalogue import CATALOGUE

    problems = [text for name in options.models if (text := model_problem(name))]
    data = Path(options.data_dir)
    absent = [
        name
        for name in JUDGED
        if name in options.parts and not all(path.exists() for path in CATALOGUE[name].paths(data))
    ]
    if "nlp" in options.parts:
        if options.local and not any((data / "eval" / "local_tasks").glob("*.yaml")):
            problems.append(
                "nlp --local: no benchmark is there; make them with: sh prepare_eval_data.sh mmlu piqa "
                "hellaswag lambada winogrande arc gsm8k bbh truthfulqa"
            )
        if not options.local and not (data / "eval" / "hub_data.json").exists():
            absent.append("nlp")
    if absent:
        problems.append(
            f"not prepared: {', '.join(absent)}; make it with: sh prepare_eval_data.sh {' '.join(absent)}"
        )
    return problems


def seconds_of(part: str, parameters: float, on_gpu: bool) -> float:
    """Return the seconds that one model takes for a part: 2 N operations a token that is read, and the
    weights' 2 N bytes for each token that a batch writes."""
    operations, bytes_moved = GPU if on_gpu else CPU
    work = WORK[part]
    return 2 * parameters * (work.read / operations + work.written / BATCH / bytes_moved)


def estimates(options: PreflightOptions, gpus: int) -> list[str]:
    """Return lines on the time of every part and the cost of its judge, for all models together."""
    sizes = [model_size(name) for name in options.models]
    known = [size.parameters for size in sizes if size]
    where = "an A100 at 40 %" if gpus else "this CPU"
    lines, hours, paid = [], 0.0, 0.0
    for part in options.parts:
        seconds = sum(seconds_of(part, parameters, gpus > 0) for parameters in known)
        hours += seconds / 3600
        line = f"{part}: about {duration(seconds)}" if known else f"{part}: time not known"
        work = WORK[part]
        if work.requests and not options.no_judge:
            judge = options.judge_model or work.judge
            local = any(
                name in (options.judge_base_url or "") for name in ("127.0.0.1", "localhost", "[::1]")
            )
            price = price_of(judge, local)
            requests = work.requests * len(options.models)
            line += f"; {requests:,} requests to the judge {judge}"
            if price is None:
                line += ", whose price is not known"
            else:
                cost = price.of(requests * work.judge_read, requests * work.judge_written)
                paid += cost
                line += f", about {dollars(cost)} ({price.source})"
        lines.append(line)
    total = (
        f"in all: about {duration(3600 * hours)} on {where}, by formula"
        if known
        else "in all: time not known"
    )
    lines.append(f"{total}; judges: about {dollars(paid)}" if paid else total)
    if unknown := [name for name, size in zip(options.models, sizes, strict=True) if size is None]:
        lines.append(f"of unknown size, and not in these hours: {', '.join(unknown)}")
    return lines


def main() -> int:
    """Say what is missing; with --estimate also what all of it takes."""
    options = parse_options(PreflightOptions)
    problems = not_prepared(options)
    if options.estimate:
        print("\n".join([*(f"# {line}" for line in estimates(options, visible_gpus()))]))
        print("".join(f"# missing: {problem}\n" for problem in problems), end="")
    elif problems:
        raise UserError("\n  ".join(problems))
    return 0


if __name__ == "__main__":
    run_main(main)
