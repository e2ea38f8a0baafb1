"""Errors a user can act on, and the one place that prints them."""

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """What a user can mend: the message says what is wrong, where, why and what to do."""


class RowRefused(Exception):
    """Why one row of the data cannot be used: a short `reason` that can be counted, and a `detail` with what
    to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's `main`, print a `UserError` as one message, and exit with its code (2 for an error)."""
    try:
        code = main()
    except UserError as error:
        # Under a launcher every process raises it; one message is enough.
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; nothing is left to say.
        sys.stderr.close()
        sys.exit(141)
    sys.exit(code or 0)
