"""Looks: after how many seeds the runs are read, and what is written then."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from instruction_modelling.decision.answer import Answer
from instruction_modelling.decision.evidence import answer_of
from instruction_modelling.decision.page import answer_page, text_answer
from instruction_modelling.decision.protocol import LOOKS, Protocol, looks_with, other_protocols, read_looks
from instruction_modelling.decision.runs import ProtocolRuns
from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import Locked, locked
from instruction_modelling.files.whole import write_json, write_text

ANSWER, PAGE = "answer.json", "answer.html"


def next_seeds(folder: Path, protocol: Protocol, go_on: bool) -> int:
    """Return the seeds of the look to take: the last one that was taken, the first where none was, the next
    one where it is asked for and nothing failed at the last one.

    Reading the runs after every seed and stopping when it pleases finds differences that are not there, so
    there are few looks, each with its share of the error.

    Raises:
        UserError: the last look has been taken.
    """
    looks = read_looks(folder)
    if not looks:
        return protocol.first_look or protocol.look_seeds[0]
    last = max(looks, key=lambda look: look["seeds"])
    if not go_on or not last.get("is_whole", True):
        return int(last["seeds"])
    left = [seeds for seeds in protocol.look_seeds if seeds > last["seeds"]]
    if not left:
        raise UserError(
            f"--next_look: that after {last['seeds']} seeds was the last look, and the error that was "
            "allowed is spent; more test rows can tell more (a larger file, which is a protocol of its own)"
        )
    return left[0]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep the folder of the runs for this process as long as the block.

    Raises:
        UserError: another process works in it.
    """
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(locked(folder, patience=0))
        except Locked:
            raise UserError(
                f"{folder}: another src/try_im.py is at work in it; wait for it, end it by Ctrl-C, or give "
                "another --output_dir"
            ) from None
        yield


def write_answer(
    runs: ProtocolRuns, seeds: int, root: Path, argv: Sequence[str], is_whole: bool = True
) -> Answer:
    """Write answer.json and answer.html of a look, note that it is spent, and print the answer.

    Args:
        is_whole: whether nothing failed; else the same command is to take the same look again.

    Raises:
        UserError: IT, IM or the untuned model is not measured.
    """
    answer, protocol = answer_of(runs, seeds), runs.protocol
    verdicts = {name: one.verdict for name, one in answer.confirmed.items()}
    looks = looks_with(runs.folder, seeds, verdicts, is_whole)
    others = other_protocols(root, protocol)
    commands = next_commands(answer, runs, argv, is_whole)
    facts = {"command": shlex.join(argv), "next": commands, "other_protocols": others, "looks": looks}
    page = answer_page(answer, runs, facts)
    write_json(
        runs.folder / ANSWER,
        {**answer.as_dict(), "looks": looks, "other_protocols": others, "next": [list(c) for c in commands]},
    )
    write_text(runs.folder / PAGE, page)
    write_json(runs.folder / LOOKS, {"looks": looks})
    print(text_answer(answer))
    print(f"{runs.folder / PAGE}, {runs.folder / ANSWER}")
    for label, command in commands:
        print(f"{label}\n  {command}")
    return answer


def next_commands(
    answer: Answer, runs: ProtocolRuns, argv: Sequence[str], is_whole: bool
) -> list[tuple[str, str]]:
    """Return what to do next, as (why, command): more seeds where they may tell, or the same look again where
    something failed, and training the best arm on all rows."""
    commands = []
    # Without it a call takes the last look again.
    words = [word for word in argv if word != "--next_look"]
    most = max(answer.protocol.look_seeds)
    open_ones = [name for name, one in answer.confirmed.items() if one.verdict == "cannot tell"]
    if not is_whole:
        label = "Take this look again, once the cause of what failed is mended or its arm is left out:"
        commands.append((label, shlex.join(words)))
    elif open_ones and answer.seeds < most:
        needed = [answer.confirmed[name].needed()[0] for name in open_ones]
        pairs = [
            f"{answer.confirmed[name].arm} against {answer.confirmed[name].reference}" for name in open_ones
        ]
        label = f"Go on with more seeds ({', '.join(pairs)} cannot be told yet)"
        if all(of_one is None or of_one > most for of_one in needed):
            label += f", though {most} are not likely to tell either"
        commands.append((f"{label}:", shlex.join([*words, "--next_look"])))
    best = answer.winner
    script = Path(words[1]).with_name("finetune.py")
    options = runs.options
    given = [
        *("--model_name_or_path", options.model_name_or_path, "--train_file", options.data[0]),
        *("--output_dir", str(runs.folder / "final")),
        *(("--columns", options.columns) if options.columns else ()),
        *(("--max_bad_rows", str(options.max_bad_rows)) if options.max_bad_rows else ()),
    ]
    flags = [*answer.protocol.shared_flags, *runs.arms()[best]]
    command = shlex.join([words[0], str(script), *given, *flags])
    commands.append((f"Train {best} on all rows:", command))
    return commands
