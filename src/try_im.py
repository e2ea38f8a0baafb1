"""Answer, for your own data and model: does a loss on the instruction help here, and which weight?

    python src/try_im.py mine.jsonl [--model folder-or-hub-name] [--budget 2h] [--dry_run]

Tunes the model with the loss on responses alone (IT), on instructions too (IM), and with IT whose responses
count as little as under IM, five seeds each, every seed on training rows of its own; measures all of them on
rows that none was trained on; and says helps, hurts, no difference that matters, or cannot tell, with an
interval over seeds and rows. What it will do and cost is printed first and kept in protocol.json. It can be
stopped at any time: the same command goes on.

Exit codes: 0 answered; 3 cannot tell; 2 something to mend, though what did not fail may have an answer; 128 +
the signal when stopped."""

import logging
import sys
from typing import TYPE_CHECKING

from instruction_modelling.called import this_command, this_program
from instruction_modelling.command_line import parse_options
from instruction_modelling.decision.options import TryOptions
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.processes.signals import StopSignals

if TYPE_CHECKING:
    from instruction_modelling.decision.runs import ProtocolRuns

logger = logging.getLogger("instruction_modelling.try_im")
CANNOT_TELL = 3


def main() -> int:
    """Split the rows, write the protocol, run what is missing, and answer."""
    options = parse_options(TryOptions, also_check=missing_inputs)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    from instruction_modelling.comparison.begun import DELETE_WEIGHTS
    from instruction_modelling.decision.cost import (
        cost_lines,
        decidable_line,
        fit_budget,
        jobs_to_come,
        measured_rate,
    )
    from instruction_modelling.decision.evidence import can_answer
    from instruction_modelling.decision.look import alone, next_seeds, write_answer
    from instruction_modelling.decision.page import words_of_others, words_of_protocol
    from instruction_modelling.decision.prepare import prepare
    from instruction_modelling.decision.protocol import begin
    from instruction_modelling.decision.task_score import try_score

    prepared, rate = prepare(options), None
    if options.budget and not prepared.arms_were_chosen:
        rate = measured_rate(prepared)
        prepared = fit_budget(prepared, rate)
    runs = prepared.runs()
    seeds = next_seeds(runs.folder, runs.protocol, options.next_look)
    waiting = jobs_to_come(prepared, seeds)
    if runs.protocol.task and waiting and not options.status:
        try_score(runs.protocol.task, prepared.test_rows())
    if any(job.script == "finetune" for job in waiting) and rate is None and not options.status:
        rate = measured_rate(prepared)
    print(decidable_line(runs.protocol, seeds))
    print("\n".join(words_of_protocol(runs.protocol.as_dict())))
    print("\n".join(cost_lines(prepared, seeds, waiting, rate)))
    for line in words_of_others(prepared.root, runs.protocol):
        print(line)
    if options.status:
        left = [job for job in waiting if job.script != DELETE_WEIGHTS]
        print("to do:" if left else "all is done")
        print("".join(f"  {job.name}\n" for job in left), end="")
    if options.status or options.dry_run:
        return 0
    begin(runs.protocol, prepared.root)
    with StopSignals() as stop, alone(runs.work):
        prepared.write_split(runs, seeds)
        failed = run_all(runs, seeds, stop)
        if stop.received:
            print(f"it is {this_command()}")
            return 128 + stop.received
    if not failed or can_answer(runs, seeds):
        command = [*this_program(), *sys.argv[1:]]
        answer = write_answer(runs, seeds, prepared.root, command, is_whole=not failed)
    if failed:
        raise UserError(
            "these jobs failed; mend the cause and run the same command again, it does only what is "
            "missing:\n" + "\n".join(f"  - {name}" for name in failed)
        )
    return CANNOT_TELL if answer.verdict == "cannot tell" else 0


def run_all(runs: "ProtocolRuns", seeds: int, stop: StopSignals) -> list[str]:
    """Run what is missing of a protocol, in the order in which one follows from another, until `stop` has
    received a signal; return the names of the jobs that failed."""
    from instruction_modelling.comparison.jobs import run_jobs, waiting_jobs

    failed = run_jobs(waiting_jobs(runs.tuning_jobs()), stop)
    if stop.received:
        return failed
    # An arm whose trials failed has no settings, or no steps, and is left out.
    runs.choose_tuned()
    failed += run_jobs(waiting_jobs(runs.matching_jobs(seeds)), stop)
    if stop.received:
        return failed
    runs.choose_steps(seeds)
    return [*failed, *run_jobs(waiting_jobs(runs.jobs_of_known(seeds)), stop, failed)]


if __name__ == "__main__":
    run_main(main, goes_on=True)
