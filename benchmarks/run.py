"""What training, scoring and generating cost here and with what else does the same work.

    python benchmarks/run.py --quick            (a tiny model, under three minutes)
    python benchmarks/run.py --data FOLDER      (SmolLM2-135M, every row, an hour or two)
    python benchmarks/run.py --data FOLDER --only training-im scoring

Contenders of a row do the same work in turn, A B C A B C ..., each in a process of its own; what is compared
is CPU time (on CUDA the device's), turn by turn. The answer is printed first; results.json holds all
readings, table.md every contender, ratios.png a picture. docs/performance.md says what each row means."""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

# Run as a script, the folder of this file would stand first, and hide modules of the standard library.
ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "src")]

from benchmarks.options import BenchmarkOptions  # noqa: E402
from instruction_modelling.command_line import parse_options  # noqa: E402
from instruction_modelling.errors import run_main  # noqa: E402


def main() -> int:
    """Read the options, measure the rows, and write and print the results."""
    options = parse_options(BenchmarkOptions)
    from benchmarks.rows import chosen_rows

    rows = chosen_rows(options.quick, options.only, options.peers)
    set_environment(options)
    started, folder = time.monotonic(), Path(options.output_dir).resolve()
    results = measure(options, rows, folder)
    document = describe(options, results, time.monotonic() - started)
    write(document, folder)
    return 0


def set_environment(options: BenchmarkOptions) -> None:
    """Set what every process of the benchmark starts with: threads, no network, a cache of its own."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    cache = Path(options.output_dir).resolve() / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        TRL_EXPERIMENTAL_SILENCE="1",
        # Contenders end in the middle of their work, and leave locks of progress bars behind.
        PYTHONWARNINGS="ignore::UserWarning:multiprocessing.resource_tracker",
        INSTRUCTION_MODELLING_CACHE=str(cache / "tokens"),
        HF_DATASETS_CACHE=str(cache / "datasets"),
        PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    )


def measure(options: BenchmarkOptions, rows: Any, folder: Path) -> list[dict[str, Any]]:
    """Return the results of the rows, in order."""
    import compileall
    import shutil

    from benchmarks.results import row_result
    from benchmarks.turns import prepare_rows, take_fresh_turns, take_paired_turns, take_turns_in_groups

    logs = folder / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    # As pip does it with the peers' packages.
    compileall.compile_dir(ROOT / "src", quiet=2)
    work = prepare_rows(options, folder)
    of_runs: Any = None

    def take(row: Any) -> Any:
        return take_paired_turns(row, work, options.turns(), logs, progress)

    results = []
    for row in rows:
        before = os.getloadavg()[0]
        if row.fresh:
            # All such rows read off the same runs.
            of_runs = of_runs or take_fresh_turns(row, work, options.runs(), logs, progress)
            readings = of_runs
        else:
            readings = take_turns_in_groups(row, options.at_once_or_default(), take)
        losses = None
        if row.name.startswith("training"):
            path = Path(work.prepared) / f"losses-{row.settings['arm']}.json"
            losses = json.loads(path.read_text(encoding="utf-8"))
        results.append(row_result(row, readings, losses, (before, os.getloadavg()[0])))
        progress(f"{row.name}: {results[-1]['verdict']}")
        write_partial(results, folder)
    return results


def progress(text: str) -> None:
    """Say on the error stream what is going on."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def write_partial(results: list[dict[str, Any]], folder: Path) -> None:
    """Keep what is measured so far, should the rest be stopped."""
    from instruction_modelling.files.whole import write_json

    write_json(folder / "results.json", {"complete": False, "rows": results})


def describe(options: BenchmarkOptions, results: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return results.json: the answer, how and on what it was measured, and every reading."""
    from dataclasses import asdict

    from benchmarks.machine import OTHER_PEERS, describe_machine, git_commit, versions
    from benchmarks.results import answer

    found = versions()
    return {
        "complete": True,
        "answer": answer(results),
        "absent_peers": [name for name in OTHER_PEERS if not found[name]],
        "command": "python " + shlex.join(["benchmarks/run.py", *sys.argv[1:]]),
        "git_commit": git_commit(ROOT),
        "seconds": seconds,
        "machine": describe_machine(),
        "versions": found,
        "options": asdict(options),
        "rows": results,
    }


def write(document: dict[str, Any], folder: Path) -> None:
    """Write the results to the folder and print them, the answer first."""
    from benchmarks.picture import draw_ratios
    from benchmarks.table import long_table, short_table
    from instruction_modelling.files.whole import write_json, write_text

    write_json(folder / "results.json", document)
    head = f"{document['answer']}\n\n`{document['command']}`, {document['machine']['processor']}\n\n"
    write_text(folder / "table.md", head + long_table(document["rows"]))
    draw_ratios(document["rows"], folder / "ratios.png")
    print(document["answer"])
    print(short_table(document["rows"]))
    absent = ", ".join(document["absent_peers"])
    print(f"Peers that are absent: {absent or 'none'}. All readings: {folder / 'results.json'}")


if __name__ == "__main__":
    run_main(main)
