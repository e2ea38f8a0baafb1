"""What jobs take: their token-passes, and the time these take on this machine."""

import subprocess
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from instruction_modelling.errors import UserError
from instruction_modelling.progress import duration
from instruction_modelling.runs.needs import seconds_said

if TYPE_CHECKING:
    from instruction_modelling.comparison.jobs import Job

# What a job with a model takes besides its token-passes: Python starts and imports the libraries.
SECONDS_TO_START = 4
# Token-passes a second, by model.
_RATES: dict[str | None, float] = {}


def expected_seconds(jobs: Sequence["Job"], rate: float) -> float:
    """Return the seconds that jobs will take at so many token-passes a second."""
    return sum(job.passes / rate + (SECONDS_TO_START if job.passes else 0) for job in jobs)


def cost_words(jobs: Sequence["Job"], rate: float | None) -> str:
    """Return what jobs take, in words: token-passes, and the time at so many a second where that is known."""
    words = f"about {sum(job.passes for job in jobs):,.0f} token-passes"
    if rate is None:
        return words
    return f"{words}, {duration(expected_seconds(jobs, rate))} at {rate:,.0f} a second"


def calibrate(jobs: Iterable["Job"]) -> float | None:
    """Return the token-passes a second of training on this machine: what src/finetune.py --dry_run says of
    the first of the jobs that trains, measured once in a process; None where none does.

    Raises:
        UserError: that run would be refused, or its trial step fails.
    """
    job = next((job for job in jobs if job.script == "finetune"), None)
    if job is None:
        return None
    if job.model not in _RATES:
        done = subprocess.run([*job.command, "--dry_run"], stdout=subprocess.PIPE, text=True, check=False)
        seconds = None if done.returncode else seconds_said(done.stdout)
        if seconds is None:
            raise UserError(f"{job.name}: a trial step failed; see the messages above")
        _RATES[job.model] = job.passes / seconds
    return _RATES[job.model]
