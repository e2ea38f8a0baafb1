"""The system calls that a sandboxed process may not make: a filter for the kernel, as bubblewrap takes it.

A list of what is refused and not of what is allowed, since Python and numpy use much and differ by version.
Refused are ways round the other layers (tracing a process that has no limits, memory that outlives its
process and so the limit on memory, more namespaces), sockets, attributes of files (memory that is on nobody's
account), and wide interfaces to the kernel that a function on plain values has no use for."""

import errno
import platform
import struct

# Each by its number on x86-64 and on the machines with the generic table; None where that table lacks it.
REFUSED: dict[str, tuple[int, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "socket": (41, 198),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "syslog": (103, 116),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}
CLONE, CLONE3, PRCTL = (56, 220), 435, (157, 167)
# prctl's PR_SET_PDEATHSIG: to be told of the parent's death is how a sandbox ends with the program that
# started it.
DEATH_SIGNAL = 1
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
NAMESPACES = 0x7E020000
# The kernel's name of each machine, and the column of the table above.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1), "riscv64": (0xC00000F3, 1)}
# Operations of the kernel's packet filter, linux/bpf_common.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# struct seccomp_data: where the call's number, the machine and the low half of the first argument stand.
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def filter_program(machine: str | None = None) -> bytes:
    """Return the filter, as bytes of `struct sock_filter`, for a machine.

    Args:
        machine: its name as `uname -m` gives it (default: this one).

    Refused calls fail with EPERM, clone3 with ENOSYS (its flags are in memory, where a filter cannot see
    them; the C library then takes clone). Calls in another machine's convention kill the process.

    Raises:
        LookupError: no table is kept for the machine.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise LookupError(machine)
    kind, column = MACHINES[machine]
    numbers = [number for both in REFUSED.values() if (number := both[column]) is not None]
    steps: list[tuple[int, int, int | str, int | str]] = [
        (_LOAD, _MACHINE, 0, 0),
        (_EQUAL, kind, 0, "kill"),
        (_LOAD, _NUMBER, 0, 0),
    ]
    if machine == "x86_64":
        # The x32 convention numbers its calls from here.
        steps.append((_AT_LEAST, 0x40000000, "refuse", 0))
    steps += [(_EQUAL, number, "refuse", 0) for number in numbers]
    steps += [
        (_EQUAL, CLONE3, "absent", 0),
        (_EQUAL, PRCTL[column], 0, 2),
        (_LOAD, _ARGUMENT, 0, 0),
        (_EQUAL, DEATH_SIGNAL, "refuse", "allow"),
        (_EQUAL, CLONE[column], 0, "allow"),
        (_LOAD, _ARGUMENT, 0, 0),
        (_ANY_BIT, NAMESPACES, "refuse", "allow"),
    ]
    ends = {"allow": _ALLOW, "refuse": _ERROR | errno.EPERM, "absent": _ERROR | errno.ENOSYS, "kill": _KILL}
    end_of = {name: len(steps) + number for number, name in enumerate(ends)}

    def jump(here: int, to: int | str) -> int:
        return end_of[to] - here - 1 if isinstance(to, str) else to

    program = [
        struct.pack("=HBBI", code, jump(here, true), jump(here, false), value)
        for here, (code, value, true, false) in enumerate(steps)
    ]
    return b"".join([*program, *(struct.pack("=HBBI", _RETURN, 0, 0, value) for value in ends.values())])
