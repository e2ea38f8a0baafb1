"""Where should the loss fall? Instruction tuning with a loss weight for every token."""

import os
import sys
from types import TracebackType

# Threads of torch that wait for each other spin by default. Beside other jobs each turn of a thread is then
# spent waiting for one that has none: a forward pass took 16 times as long. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


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
