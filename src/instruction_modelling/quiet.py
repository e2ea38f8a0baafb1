"""Without the notes and progress bars that libraries print by themselves."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leave out the libraries' notes within the block, and progress bars where no one watches a terminal.

    To be entered before transformers is imported: a progress bar is switched off when its library is loaded.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def silence_libraries() -> None:
    """Leave out transformers' notes for the rest of the process, and progress bars where no one watches a
    terminal."""
    if not sys.stderr.isatty():
        # Read when the bars' library is loaded, so set before it is.
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
