"""The scripts of this project as one command, where it is installed: `im train` is `python src/finetune.py`.

im                      every command
im train --help         what one takes
im where train          the script's path, for a launcher: accelerate launch $(im where train) ...
"""

import ast
import importlib.metadata
import runpy
import sys
from pathlib import Path

from instruction_modelling.called import set_program
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.nearest import did_you_mean

HERE = Path(__file__).resolve().parent
# A command and its script of this folder, whose docstring's first sentence says what it does.
COMMANDS = {
    "inspect": "inspect_weights",
    "analyze": "analyze_data",
    "train": "finetune",
    "compare": "compare",
    "try": "try_im",
    "study": "study",
    "loss": "compute_loss",
    "chat": "chat",
    "generate": "generate",
    "bleu": "compute_bleu",
    "check": "check_answers",
    "score": "score_responses",
    "report": "report",
    "export": "export_checkpoint",
    "push": "push_to_hub",
    "sweep": "sweep",
    "stop": "stop_run",
    "overlap": "find_overlap",
    "sample": "sample_data",
    "select": "select_data",
    "reformat": "reformat_datasets",
    "prepare-data": "prepare_data",
    "prepare-eval": "prepare_eval_data",
    "results": "collect_results",
    "plot": "plot_paper",
    "packing": "measure_packing",
    "engines": "compare_engines",
    "memorisation": "measure_memorisation",
    "probe-memorisation": "probe_memorisation",
    "fetch-model": "fetch_model",
    "tiny-model": "make_tiny_model",
}


def about(script: str) -> str:
    """Return the first sentence of a script's docstring, without running it."""
    text = ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".:")


def overview() -> str:
    """Return every command with what it does."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{about(script)}" for name, script in COMMANDS.items()]
    return "\n".join(["usage: im COMMAND [options]; im COMMAND --help says what it takes", "", *lines])


def script_of(name: str) -> str:
    """Return the script of a command, which may be called by the script's own name too.

    Raises:
        UserError: there is no such command.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    if name.removesuffix(".py") in COMMANDS.values():
        return name.removesuffix(".py")
    raise UserError(f"im {name}: no such command{did_you_mean(name, COMMANDS)} (im lists them)")


def run() -> int:
    """Run the command that the first word names with the words behind it; return its exit code."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--version":
        print(importlib.metadata.version("instruction-modelling"))
        return 0
    if name == "where":
        print(HERE / f"{script_of(words[0] if words else '')}.py")
        return 0
    script = script_of(name)
    set_program(["im", name])
    sys.argv = [str(HERE / f"{script}.py"), *words]
    # The script exits by itself, with its own code.
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


def main() -> None:
    """Run a command and exit with its code."""
    run_main(run)


if __name__ == "__main__":
    main()
