"""The paper's benchmarks that lm-eval judges, one after the other, each in an lm-eval process of its own.

    python -m eval.nlp.run_eval --model output/im --save_dir results/eval/im/nlp
    python -m eval.nlp.run_eval --model output/im --save_dir results/eval/im/nlp --tasks mmlu gsm8k_cot \\
        --num_processes 4
    python -m eval.nlp.run_eval --model output/im --save_dir results/eval/im/nlp --local   # files, no hub

The tasks and their counts of examples are those of eval/lm_eval_tasks (the group sft_eval), and the prompts
and metrics lm-eval's. A benchmark that is done is not run again; one that was stopped goes on from the
answers that it had; one that fails does not stop the rest. Writes lm-eval's own files to SAVE_DIR/BENCHMARK,
with the answers to all items; src/collect_results.py reads them.

Exit code 1 if a benchmark failed.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from eval.nlp.benchmarks import GROUPS, LOCAL_GROUPS, NlpBenchmark, local_benchmarks, paper_benchmarks
from eval.nlp.hub_data import RECORD, fetched
from instruction_modelling.called import module_command
from instruction_modelling.command_line import long_names, parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.files.stamps import content_of, differing, plain, read_stamp
from instruction_modelling.files.whole import write_json

SHORT_NAMES = {"--model": "--model_name_or_path", "--tokenizer": "--tokenizer_name_or_path"}
STATE = "benchmark.json"
HUB = "https://huggingface.co"
# Exit codes of a harness that the user stopped: by a shell's count, and by subprocess's (SIGINT).
INTERRUPTED = (130, -2)


@dataclass
class NlpOptions:
    """lm-eval's benchmarks."""

    model_name_or_path: str | None = None
    """Folder or hub name of the model."""
    tokenizer_name_or_path: str | None = None
    """Folder or hub name of the tokenizer (default: the model's)."""
    save_dir: str = "results/nlp"
    """Folder of the results; results/eval/MODEL/nlp is where collect_results.py looks."""
    tasks: list[str] = field(default_factory=list)
    """Benchmarks to run (default: all): mmlu, piqa, openbookqa, hellaswag, lambada, lambada_multilingual,
    translation, wsc273, ..."""
    local: bool = False
    """Read the benchmarks from files on this machine (made by python -m eval.local_tasks) instead of the
    hub's data sets."""
    local_dir: str = str(LOCAL_GROUPS)
    """With --local: the folder of those files."""
    use_vllm: bool = False
    """Run the model with vLLM, in its own environment (bash scripts/setup_vllm.sh), instead of
    transformers."""
    num_processes: int = 1
    """Copies of the model, a process each (accelerate launch), which share the items; with --use_vllm, GPUs
    that share the model."""
    batch_size: str = "auto"
    """Items at once: a number, or auto (what fits on a GPU; 8 on a CPU)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights (auto: as they are stored)."""
    extra_model_args: str = ""
    """More of lm-eval's model arguments, such as max_length=2048,parallelize=True."""
    hub_record: str = RECORD
    """File that says which data sets sh prepare_eval_data.sh has fetched; no hub is asked for those."""
    limit: int | None = None
    """The first items of each task only (default: all); the scores are not comparable then."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [] if self.model_name_or_path else ["--model_name_or_path (or --model) is not given"]
        problems += [
            f"--{name} {getattr(self, name)} must be 1 or more"
            for name in ("num_processes", "limit")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.batch_size != "auto" and not (self.batch_size.isdecimal() and int(self.batch_size)):
            problems.append(f"--batch_size {self.batch_size}: give a number, or auto")
        return problems


def main() -> int:
    """Run what is not done, and print what each benchmark came to."""
    options = parse_options(NlpOptions, long_names(sys.argv[1:], SHORT_NAMES))
    from instruction_modelling.progress import duration

    chosen = choose_benchmarks(options)
    check_folder(options)
    failed: list[str] = []
    started, ran = time.monotonic(), 0
    for number, benchmark in enumerate(chosen, start=1):
        folder = Path(options.save_dir) / benchmark.key
        made = how_made(benchmark, options)
        if is_benchmark_done(folder, made):
            print(f"[nlp] {number}/{len(chosen)} {benchmark.key}: done before ({folder})", flush=True)
            continue
        if not ran:
            require_model(options)
            require_data(options, [one.key for one in chosen[number - 1 :]])
        left = (
            f", about {duration((time.monotonic() - started) / ran * (len(chosen) - number + 1))} left"
            if ran
            else ""
        )
        print(f"[nlp] {number}/{len(chosen)} {benchmark.key}{left}", flush=True)
        code = run_benchmark(benchmark, options, folder, made)
        ran += 1
        if code in INTERRUPTED:
            return 130
        if code:
            failed.append(benchmark.key)
            print(
                f"[nlp] {benchmark.key} failed: lm-eval ended with {code} (its reason is above)",
                file=sys.stderr,
                flush=True,
            )
    if failed:
        print(
            f"[nlp] failed: {', '.join(failed)}; the same command runs these again and nothing that is done",
            file=sys.stderr,
        )
    return 1 if failed else 0


def require_model(options: NlpOptions) -> None:
    """Look for the model, so that one that is not there is one line and not one traceback a benchmark.

    Raises:
        UserError: it is not there.
    """
    from instruction_modelling.generation.engine import model_limits

    model_limits(str(options.model_name_or_path))


def require_data(options: NlpOptions, keys: list[str]) -> None:
    """Look for the data of benchmarks, so that without a network it is one line and not a traceback for each.

    Raises:
        UserError: some is neither here nor to be had.
    """
    absent = [] if options.local else sorted({*keys} - fetched(Path(options.hub_record)))
    if absent and hub_is_out_of_reach():
        raise UserError(
            f"not prepared: {', '.join(absent)}, and the hub cannot be reached from here; make it where it "
            "can: sh prepare_eval_data.sh nlp. Where the data sets are in the cache all the same, "
            "HF_DATASETS_OFFLINE=1 takes them from there"
        )


def hub_is_out_of_reach() -> bool:
    """Return whether the hub's name leads nowhere from this machine; False where a proxy looks it up, or
    nobody is to be asked."""
    proxies = ("HTTPS_PROXY", "ALL_PROXY")
    names = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", *proxies, *map(str.lower, proxies))
    if any(os.environ.get(name) for name in names):
        return False
    try:
        socket.getaddrinfo(urlsplit(os.environ.get("HF_ENDPOINT") or HUB).hostname, None)
    except OSError:
        return True
    return False


def choose_benchmarks(options: NlpOptions) -> list[NlpBenchmark]:
    """Return the benchmarks that are asked for.

    Raises:
        UserError: one is not there.
    """
    available = local_benchmarks(Path(options.local_dir)) if options.local else paper_benchmarks()
    if not available:
        raise UserError(
            f"--local: {options.local_dir} holds no benchmarks; make them with "
            f"`{module_command('eval.local_tasks')}`"
        )
    names = [benchmark.key for benchmark in available]
    unknown = [name for name in options.tasks if name not in names]
    if unknown:
        raise UserError(f"--tasks {' '.join(unknown)}: there is {', '.join(names)}")
    return [benchmark for benchmark in available if not options.tasks or benchmark.key in options.tasks]


def model_settings(options: NlpOptions) -> dict[str, Any]:
    """Return what tells one model from another, as facts of a stamp."""
    from instruction_modelling.models.identity import model_identity

    return {
        "model_identity": model_identity(str(options.model_name_or_path)),
        "tokenizer": options.tokenizer_name_or_path,
    }


def check_folder(options: NlpOptions) -> None:
    """Look whether the folder holds what is of another model.

    Raises:
        UserError: it does.
    """
    now = model_settings(options)
    for path in sorted(Path(options.save_dir).glob(f"*/{STATE}")):
        before = read_stamp(path) or {}
        if differing({name: before.get(name) for name in now}, now):
            raise UserError(
                f"{path.parent}: holds results of another model, or of this one before its weights changed "
                f"({before.get('model')}). Remove {options.save_dir}, or name another --save_dir"
            )


def how_made(benchmark: NlpBenchmark, options: NlpOptions) -> dict[str, Any]:
    """Return what a result depends on, as a stamp."""
    return plain(
        {
            **model_settings(options),
            "tasks": benchmark.tasks,
            "num_fewshot": benchmark.num_fewshot,
            "engine": "vllm" if options.use_vllm else "hf",
            "dtype": options.dtype,
            "extra_model_args": options.extra_model_args,
            "limit": options.limit,
            "local": options.local,
            **({"local_files": _local_files(benchmark, Path(options.local_dir))} if options.local else {}),
        }
    )


def _local_files(benchmark: NlpBenchmark, folder: Path) -> dict[str, str]:
    """Return the hash of each file of items that `python -m eval.local_tasks` made of a benchmark."""
    return {path.name: content_of(path) for path in sorted((folder / benchmark.key).glob("*.jsonl"))}


def is_benchmark_done(folder: Path, made: dict[str, Any]) -> bool:
    """Return whether a benchmark was run to its end with these settings."""
    before = read_stamp(folder / STATE) or {}
    return bool(before.get("finished")) and _same(before, made) and any(folder.glob("**/results_*.json"))


def _same(before: dict[str, Any], made: dict[str, Any]) -> bool:
    # The model's name is kept for messages; the same model in another folder gives the same results.
    settings = {name: value for name, value in before.items() if name not in ("finished", "model")}
    return not differing(settings, made)


def run_benchmark(benchmark: NlpBenchmark, options: NlpOptions, folder: Path, made: dict[str, Any]) -> int:
    """Run lm-eval and return its exit code. Answers are kept as they come, until the benchmark is done.

    Raises:
        UserError: it ended well and left no results.
    """
    answers = folder / "answers"
    state = folder / STATE
    before = read_stamp(state)
    if before is not None and not _same(before, made):
        # Answers under other settings are not these.
        shutil.rmtree(answers, ignore_errors=True)
    record = {"model": options.model_name_or_path, **made}
    write_json(state, {**record, "finished": False})
    code = subprocess.call(command(benchmark, options, folder), env=environment(benchmark, options))
    if code == 0 and not any(folder.glob("**/results_*.json")):
        raise UserError(f"{folder}: lm-eval ended well and left no results_*.json")
    if code == 0:
        say_what_was_cut(folder, options.tokenizer_name_or_path)
        write_json(state, {**record, "finished": True})
        shutil.rmtree(answers, ignore_errors=True)
    return code


def say_what_was_cut(folder: Path, tokenizer: str | None) -> None:
    """Count the examples that did not fit the model, which lm-eval cut, in a benchmark's newest results."""
    from eval.nlp.cut_examples import cut_in_words, write_cut

    path = max(folder.glob("**/results_*.json"), key=lambda path: path.name)
    try:
        print(f"[nlp] {cut_in_words(write_cut(path, tokenizer))}", flush=True)
    except UserError as error:
        print(f"[nlp] examples that were cut are not counted: {error}", file=sys.stderr, flush=True)


def command(benchmark: NlpBenchmark, options: NlpOptions, folder: Path) -> list[str]:
    """Return lm-eval's command line for a benchmark."""
    import psutil
    import torch

    model_args = [f"pretrained={options.model_name_or_path}", f"dtype={options.dtype}"]
    if options.tokenizer_name_or_path:
        model_args.append(f"tokenizer={options.tokenizer_name_or_path}")
    if options.use_vllm:
        from instruction_modelling.generation.vllm_engine import vllm_python

        start = [str(vllm_python()), "-m", "lm_eval", "run", "--model", "vllm"]
        model_args.append(f"tensor_parallel_size={options.num_processes}")
        if not torch.cuda.is_available():
            # On a CPU vLLM takes this share of all memory at once; half of what nobody uses leaves room for
            # others.
            memory = psutil.virtual_memory()
            model_args.append(
                f"gpu_memory_utilization={max(0.05, 0.5 * memory.available / memory.total):.2f}"
            )
    else:
        launcher = ["-m", "accelerate.commands.launch", "--num_processes", str(options.num_processes), "-m"]
        start = [
            sys.executable,
            *(launcher if options.num_processes > 1 else ["-m"]),
            "lm_eval",
            "run",
            "--model",
            "hf",
        ]
    batch_size = options.batch_size
    if batch_size == "auto" and not options.use_vllm and not torch.cuda.is_available():
        batch_size = "8"
    include = options.local_dir if options.local else str(GROUPS)
    shots = [] if benchmark.num_fewshot is None else ["--num_fewshot", str(benchmark.num_fewshot)]
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    return [
        *start,
        "--model_args",
        ",".join([*model_args, *filter(None, [options.extra_model_args])]),
        "--tasks",
        ",".join(benchmark.tasks),
        "--include_path",
        include,
        *shots,
        *limit,
        "--batch_size",
        batch_size,
        "--output_path",
        str(folder),
        "--log_samples",
        "--use_cache",
        str(folder / "answers" / "answers"),
    ]


def environment(benchmark: NlpBenchmark, options: NlpOptions) -> dict[str, str]:
    """Return lm-eval's environment: no hub is asked for data that is here."""
    variables = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if options.local or benchmark.key in fetched(Path(options.hub_record)):
        variables["HF_DATASETS_OFFLINE"] = "1"
    return variables


if __name__ == "__main__":
    run_main(main)
