"""Imported first by the process that jobs are forked from: its session becomes its own.

A signal to all that a terminal or `timeout` has started would else end it beside its parent, which could
then wait for no job any more."""

import contextlib
import os

with contextlib.suppress(PermissionError):
    # Where this process leads a group already, it is not in its parent's.
    os.setsid()
