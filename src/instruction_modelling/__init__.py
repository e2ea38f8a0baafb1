"""Where should the loss fall? Instruction tuning with a loss weight for every token."""

import os
import sys
from types import TracebackType

from instruction_modelling.cpu import wait_asleep

# torch reads it when it is loaded, whichever module loads it.
wait_asleep()


def _end_by_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in a line that Ctrl-C came while a script was still being loaded."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# Only for the scripts and the evaluation, not for programs of others that use the library.
_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_main = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or os.sep)
if _main.startswith((os.path.join(_root, "src", ""), os.path.join(_root, "eval", ""))):
    sys.excepthook = _end_by_one_line
