"""Time and memory against rows, length, vocabulary and processes: where each grows, and where it breaks.

    python benchmarks/growth.py --train_file FILE --output_dir results/growth
    python benchmarks/growth.py --train_file FILE --output_dir results/growth --only rows --rows 300000

Rows are made by repeating FILE's under new ids. Every point is a process of its own, measured from outside:
processor seconds, and the most memory that it and its children held for themselves (pages that are mapped
from files, which the system can take back, left out). Points are added to OUTPUT_DIR/growth.json, so that a
long one can be measured by itself; the table is printed of all that are there."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "src")]

from instruction_modelling.command_line import parse_options  # noqa: E402
from instruction_modelling.errors import run_main  # noqa: E402
from instruction_modelling.files.whole import write_json, write_text  # noqa: E402

SERIES = ("rows", "length", "vocabulary", "processes")
EXTRAPOLATED = 3_000_000
"""Rows for which the fitted lines are given too."""
MIB = 2**20


@dataclass
class GrowthOptions:
    """Growth."""

    train_file: str
    """Conversations whose rows are repeated, as JSON Lines."""
    output_dir: str = "results/growth"
    """Where growth.json and growth.md go, and the files that are made on the way."""
    only: list[str] = field(default_factory=lambda: list(SERIES))
    """What to measure: rows, length, vocabulary, processes."""
    rows: list[int] = field(default_factory=lambda: [1_000, 10_000, 100_000, 300_000])
    """Rows of a file."""
    lengths: list[int] = field(default_factory=lambda: [512, 2048, 8192, 32768])
    """Tokens of a row; two steps are trained on one."""
    vocabularies: list[int] = field(default_factory=lambda: [1024, 32_000, 128_000, 256_000])
    """Tokens that the model knows; two steps are trained."""
    processes: list[int] = field(default_factory=lambda: [1, 2])
    """Processes of a run on 10,000 rows."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [f"--only {name}: one of {', '.join(SERIES)}" for name in self.only if name not in SERIES]
        if not Path(self.train_file).is_file():
            problems.append(f"--train_file {self.train_file}: there is no such file")
        numbers = (*self.rows, *self.lengths, *self.vocabularies, *self.processes)
        return problems + [f"{number}: must be 1 or more" for number in numbers if number < 1]


def main() -> None:
    """Measure the points that are asked for, and print the table of all."""
    options = parse_options(GrowthOptions)
    folder = Path(options.output_dir).resolve()
    (folder / "work").mkdir(parents=True, exist_ok=True)
    results = folder / "growth.json"
    points = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    asked = {
        "rows": options.rows,
        "length": options.lengths,
        "vocabulary": options.vocabularies,
        "processes": options.processes,
    }
    for series in options.only:
        for size in asked[series]:
            print(f"{series} {size:,} ...", file=sys.stderr, flush=True)
            measured = globals()[f"measure_{series}"](Path(options.train_file), folder / "work", size)
            points.setdefault(series, {})[str(size)] = measured
            write_json(results, points)
    text = table(points)
    write_text(folder / "growth.md", text)
    print(text)


def measure_rows(source: Path, work: Path, rows: int) -> dict[str, Any]:
    """Read, encode, encode again (from the cache) and weigh so many rows, as a run does before it loads a
    model."""
    made = made_rows(source, work / f"rows_{rows}.jsonl", rows)
    found = watch([sys.executable, __file__, "--stages", str(made), str(tiny_model(work))], work)
    made.unlink()
    return found


def measure_length(source: Path, work: Path, length: int) -> dict[str, Any]:
    """Train two steps on one row of so many tokens."""
    texts = itertools.cycle(str(json.loads(line)) for line in source.open(encoding="utf-8"))
    # A token is at most a few characters: enough text for the length, which cuts it.
    answer = "".join(itertools.islice(texts, 2 + length // 100))[: 8 * length]
    chat = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": answer}]
    file = work / f"length_{length}.jsonl"
    write_text(file, json.dumps({"messages": chat}) + "\n")
    return trained(file, tiny_model(work, positions=length), work, 2, "--max_seq_length", str(length))


def measure_vocabulary(source: Path, work: Path, vocabulary: int) -> dict[str, Any]:
    """Train two steps of eight rows with a model that knows so many tokens."""
    made = made_rows(source, work / "vocabulary.jsonl", 64)
    return trained(made, tiny_model(work, vocabulary=vocabulary), work, 2)


def measure_processes(source: Path, work: Path, processes: int) -> dict[str, Any]:
    """Train one step on 10,000 rows that no cache holds, by so many processes."""
    made = made_rows(source, work / "processes.jsonl", 10_000)
    return trained(made, tiny_model(work), work, 1, "--overwrite_cache", processes=processes)


def made_rows(source: Path, target: Path, rows: int) -> Path:
    """Write so many rows, those of a file again and again, each under an id of its own."""
    texts = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    with target.open("w", encoding="utf-8") as handle:
        for number, row in zip(range(rows), itertools.cycle(texts), strict=False):
            handle.write(json.dumps({**row, "id": f"made_{number}"}) + "\n")
    return target


def tiny_model(work: Path, vocabulary: int = 0, positions: int = 2048) -> Path:
    """Return the folder of a tiny random Llama for this vocabulary and context."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from instruction_modelling.models.tiny import conversation_texts, save_tiny_model

    folder = work / f"tiny_{vocabulary}_{positions}"
    if folder.exists():
        return folder
    plain = work / "tiny_0_2048"
    if not plain.exists():
        save_tiny_model(plain, conversation_texts(sorted((ROOT / "data" / "sample").glob("*.jsonl"))), 0)
    if folder != plain:
        model = AutoModelForCausalLM.from_pretrained(plain)
        model.config.max_position_embeddings = max(positions, 2048)
        if vocabulary:
            model.resize_token_embeddings(vocabulary, mean_resizing=False)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(plain).save_pretrained(folder)
    return folder


def trained(
    file: Path, model: Path, work: Path, steps: int, *flags: str, processes: int = 1
) -> dict[str, Any]:
    """Run src/finetune.py for some steps, packed and in one thread, and return what it took."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    out = work / "run"
    command = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / "src" / "finetune.py")]
    command += ["--model_name_or_path", str(model), "--train_file", str(file), "--output_dir", str(out)]
    command += ["--max_train_steps", str(steps), "--packing", "--use_lm_loss", "--overwrite_output", *flags]
    found = watch(command, work)
    if found["exit_code"] == 0:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        # The last step: the first one pays for what is done once.
        last = json.loads(lines[-1])
        found.update(step_tokens=last["tokens"], step_seconds=last["seconds"])
    return found


def watch(command: list[str], work: Path) -> dict[str, Any]:
    """Run a command in one thread a process, with a cache of its own, and return its exit code, wall and
    processor seconds, memory of its own (MiB, all its processes together) and what it says last.

    Lines of its output that are JSON objects are taken in as `stages`."""
    import psutil

    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
        "INSTRUCTION_MODELLING_CACHE": str(work / "cache"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    }
    started, own, cpu = time.monotonic(), 0, 0.0
    log = work / "log.txt"
    with log.open("w", encoding="utf-8") as output:
        process = psutil.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            held, used = 0, 0.0
            try:
                for one in [process, *process.children(recursive=True)]:
                    memory, times = one.memory_info(), one.cpu_times()
                    held, used = held + memory.rss - memory.shared, used + times.user + times.system
            except psutil.Error:
                # A child that has just ended.
                pass
            own, cpu = max(own, held), max(cpu, used)
            time.sleep(0.05)
    lines = log.read_text(encoding="utf-8").splitlines()
    stages = [json.loads(line) for line in lines if line.startswith("{")]
    return {
        "exit_code": process.returncode,
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(cpu, 2),
        "own_mib": round(own / MIB),
        "said": next((line for line in reversed(lines) if line and not line.startswith("{")), ""),
        **{name: value for stage in stages for name, value in stage.items()},
    }


def stages(file: str, model: str) -> None:
    """Do what a run does with its rows, and print what each stage takes; in a process of its own."""
    from transformers import AutoTokenizer

    from instruction_modelling.rows.conversations import read_conversations
    from instruction_modelling.tokens.cache import cache_folder, encode_file
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.tokens.weighted import totals_by_kind, weigh_rows
    from instruction_modelling.tokens.weights import WeightPolicy

    encoder = row_encoder(AutoTokenizer.from_pretrained(model), "auto", 2048)
    clock = time.process_time()

    def done(stage: str) -> None:
        nonlocal clock
        print(json.dumps({f"{stage}_cpu_seconds": round(time.process_time() - clock, 3)}), flush=True)
        clock = time.process_time()

    rows = read_conversations(file, keep=False)
    done("read")
    encode_file(rows, encoder, overwrite_cache=True)
    done("encode")
    data = encode_file(rows, encoder)
    done("cached")
    weighted, _ = weigh_rows(data, WeightPolicy(1.0), "example", "nonzero")
    totals_by_kind(weighted)
    weighted.sha256()
    done("weigh")
    size = sum(path.stat().st_size for path in cache_folder().glob("*.tokens/*"))
    print(json.dumps({"tokens": len(data.ids), "cache_mib": round(size / MIB, 1)}))
    for path in cache_folder().glob("*.tokens"):
        for entry in path.iterdir():
            entry.unlink()
        path.rmdir()


def fitted(points: Iterable[tuple[float, float]], at: float) -> float:
    """Return the value at `at` of the line that fits the points by least squares."""
    import numpy as np

    xs, ys = zip(*points, strict=True)
    slope, intercept = np.polyfit(xs, ys, 1)
    return float(slope * at + intercept)


def table(points: dict[str, dict[str, Any]]) -> str:
    """Return Markdown tables of the points, and of what the fitted lines say of `EXTRAPOLATED` rows."""
    out = []
    for series, columns in COLUMNS.items():
        found = {int(size): point for size, point in points.get(series, {}).items()}
        if not found:
            continue
        out += [f"| {series} | " + " | ".join(columns.values()) + " |", "|--:|" + "--:|" * len(columns)]
        for size in sorted(found):
            cells = [
                f"{point:,}" if (point := found[size].get(name)) is not None else "–" for name in columns
            ]
            failed = f" (exit code {found[size]['exit_code']}: {found[size]['said']})"
            out.append(
                f"| {size:,}{failed if found[size]['exit_code'] else ''} | " + " | ".join(cells) + " |"
            )
        whole = {size: point for size, point in found.items() if not point["exit_code"]}
        if series == "rows" and len(whole) > 1:
            cells = [
                f"{fitted([(size, point[name]) for size, point in whole.items()], EXTRAPOLATED):,.0f}"
                for name in columns
            ]
            out.append(f"| {EXTRAPOLATED:,}, extrapolated by the fitted line | " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


_TRAINED = {"cpu_seconds": "CPU s", "own_mib": "own memory, MiB", "step_tokens": "tokens of a step"}
COLUMNS: dict[str, dict[str, str]] = {
    "rows": {
        "tokens": "tokens",
        "read_cpu_seconds": "read and check, CPU s",
        "encode_cpu_seconds": "tokenise, CPU s",
        "cached_cpu_seconds": "from the cache, CPU s",
        "weigh_cpu_seconds": "weigh, CPU s",
        "cache_mib": "cache, MiB",
        "own_mib": "own memory, MiB",
    },
    "length": _TRAINED,
    "vocabulary": _TRAINED,
    "processes": {**_TRAINED, "seconds": "wall s"},
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        stages(*sys.argv[2:])
    else:
        run_main(main)
