"""A sandbox tried on itself before model-written code runs in it."""

import textwrap

from eval.sandbox.bubblewrap import ADVICE, Sandbox
from eval.sandbox.execution import PASSED, Candidate, try_all
from instruction_modelling.errors import UserError

PROMPT = "def f(x):\n    '''Adds one.'''\n"
TEST = "def check(candidate):\n    assert candidate(1) == 2\n"
# Bodies of f(x). All but one give the right answer where the sandbox keeps what it should, and only there.
PROBES = {
    "an honest function passes": "return x + 1",
    "a wrong function fails": "return x + 2",
    "no user of the host": """
        import os
        return x + 1 + (0 in os.getresuid())""",
    "no environment": """
        import os
        expected = {"PATH", "HOME", "PWD", "LC_ALL", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH"}
        return x + 1 + len(set(os.environ) - expected)""",
    "no files of the host": """
        import os
        own = {"usr", "lib", "lib32", "lib64", "python", "packages", "proc", "dev", "tmp"}
        return x + 1 + len(set(os.listdir("/")) - own) + len(os.listdir("/tmp"))""",
    "no network": """
        names = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
        return x + 1 + (names not in ([], ["lo"]))""",
    "nothing to write to": """
        for folder in {line.split()[1] for line in open("/proc/mounts")} - {"/tmp"}:
            try:
                with open(folder + "/x", "w") as handle:
                    handle.write("x" * 10**6)
                return folder
            except OSError:
                pass
        return x + 1""",
    "few processes": """
        import posix, time
        try:
            for _ in range(60):
                if posix.fork() == 0:
                    time.sleep(60)
        except OSError:
            return x + 1""",
    "little memory": """
        try:
            bytes(2**32)
        except MemoryError:
            return x + 1""",
    "small files": """
        try:
            with open("/tmp/x", "wb") as handle:
                for _ in range(1000):
                    handle.write(bytes(2**20))
        except OSError:
            return x + 1""",
    "alone": """
        import os
        return x + 1 + (sum(name.isdigit() for name in os.listdir("/proc")) != 1)""",
    "no capabilities": """
        with open("/proc/self/status") as status:
            rows = [line.split() for line in status]
        sets = [row[1] for row in rows if row[0] in ("CapPrm:", "CapEff:", "CapBnd:", "CapAmb:")]
        return x + 1 + any(int(capabilities, 16) for capabilities in sets)""",
    "system calls refused": """
        import ctypes
        calls = ctypes.CDLL(None, use_errno=True)
        def refused(result):
            return result == -1 and ctypes.get_errno() == 1
        kept = (refused(calls.ptrace(0, 0, 0, 0)) and refused(calls.unshare(0x10000000))
                and refused(calls.shmget(0, 4096, 0o1600)) and refused(calls.prctl(1, 0, 0, 0, 0)))
        return x + 1 + (not kept)""",
}


def check_sandbox(sandbox: Sandbox) -> None:
    """Try the sandbox on itself.

    Raises:
        UserError: it does not keep what it should; no model-written code may run in it.
    """
    candidates = [
        Candidate(what, PROMPT, textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n", TEST, "f")
        for what, body in PROBES.items()
    ]
    for verdict in try_all(sandbox, candidates, timeout=20.0):
        as_expected = (
            verdict.result.startswith("failed")
            if verdict.key == "a wrong function fails"
            else verdict.result == PASSED
        )
        if not as_expected:
            raise UserError(
                f"the sandbox does not keep what it should ({verdict.key}: {verdict.result}); nothing was "
                f"run in it. {ADVICE}"
            )
