"""What a process inside a sandbox does to itself before it runs anything: limits that cannot be raised
again."""

import resource
from typing import Any


def restrict(settings: dict[str, Any]) -> None:
    """Set the limits on this process and all it will start.

    It is the first process of its namespace, so no other there is without them."""
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_STACK, 2**26),
        (resource.RLIMIT_AS, settings["memory"]),
        (resource.RLIMIT_FSIZE, settings["file"]),
        (resource.RLIMIT_CPU, settings["cpu"]),
        (resource.RLIMIT_NPROC, settings["processes"]),
    ):
        most = resource.getrlimit(name)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(name, (value, value))
