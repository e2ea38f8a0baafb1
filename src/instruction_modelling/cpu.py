"""What torch and Python are not told by default of the processor and memory they have: how to wait, which
library multiplies matrices of float32 fastest, which memory and objects to leave alone."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What OpenMP's runtimes (GNU's, Intel's) read, once, when torch loads them.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# What glibc's allocator reads, and the numbers of two requests to its mallopt.
_ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Where Linux says whose processor it is.
_CPUINFO = Path("/proc/cpuinfo")
# How many new objects Python looks for unreachable cycles after (with how many such searches go before one of
# older objects), and while a script imports.
_USUAL, _SELDOM = gc.get_threshold(), 100_000
# How many blocks with older objects left alone are open, and whether some are left alone for good.
# Python only counts them, which takes 45 ms where transformers is imported, and texts may be encoded singly.
_open_blocks, _for_good = 0, False
# An error of float32 products, relative to the sum of the factors' sizes; bfloat16 makes 1e-4, TF32 1e-5.
_FLOAT32_ERROR = 2e-6


def wait_asleep() -> None:
    """Have torch's threads sleep while they wait for each other, unless the environment says how they wait.

    By default they spin. Where other jobs hold the cores, a thread then spins away its share of time before
    the one it waits for gets any (scripts/drills/busy.py measures it). To be called before torch is
    imported; processes started from here inherit it.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def keep_freed_memory() -> bool:
    """Have glibc's allocator keep what is freed, unless the environment says what it does; return whether it
    will.

    By default each large block goes back to the system when it is freed, and the next comes page by page and
    zeroed. A training step frees and asks for the same blocks all the time. To be called when torch has been
    imported: some library that comes with it sets the same numbers.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name in os.environ for name in _ALLOCATOR):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 2**30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def give_back_freed_memory() -> None:
    """Give back to the system what was freed and kept, where glibc's allocator does so: between two pieces of
    work of one process, since what the first has freed lies between what it has not."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


@contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Have Python's search for unreachable cycles look in the block at objects made in it alone.

    torch, transformers and a tokenizer's words are millions of objects; who makes many more has them all
    looked through again and again. Where they are left alone already (`imports_are_over`, another block,
    `gc.freeze` of whoever uses the library), they stay so.
    """
    global _open_blocks, _for_good
    if not _open_blocks and not _for_good:
        # Counting is quick where there are none, and somebody else's are counted once.
        _for_good = gc.get_freeze_count() > 0
        if not _for_good:
            gc.freeze()
    _open_blocks += 1
    try:
        yield
    finally:
        _open_blocks -= 1
        if not _open_blocks and not _for_good:
            gc.unfreeze()


@contextmanager
def cycles_looked_for_seldom() -> Iterator[None]:
    """Have Python look for unreachable cycles once in 100,000 new objects, in the block or until
    `imports_are_over`.

    A script that imports torch and transformers makes a million objects that all stay, and Python looks
    through them again and again: a fifth of the time to a run's first step."""
    gc.set_threshold(_SELDOM, *_USUAL[1:])
    try:
        yield
    finally:
        gc.set_threshold(*_USUAL)


def imports_are_over() -> None:
    """Have Python look for unreachable cycles as often as ever from now on, since one may hold tensors, and,
    where this is the first call in the process, not at what was made until now. At a later one a part of that
    may be a model that nobody needs any more."""
    global _for_good
    gc.set_threshold(*_USUAL)
    if not _for_good:
        gc.freeze()
        _for_good = True


def use_quicker_float32() -> bool:
    """Have oneDNN compute float32 matrix products where MKL, which torch asks, is slow: on processors with
    AVX-512 that are not Intel's, MKL computes with half of each register. Return whether that was done.

    torch asks oneDNN only where it may round the factors to bfloat16 ("medium"), which oneDNN does with AMX
    alone. That it rounds nothing here is measured, each time. A setting other than torch's first stays.
    """
    import torch

    if (
        torch.backends.cpu.get_cpu_capability() != "AVX512"
        or _of_intel()
        or not torch.backends.mkldnn.is_available()
        or torch.get_float32_matmul_precision() != "highest"
    ):
        return False
    torch.set_float32_matmul_precision("medium")
    if largest_error() < _FLOAT32_ERROR:
        return True
    torch.set_float32_matmul_precision("highest")
    return False


def _of_intel() -> bool:
    """Return whether the processor is Intel's, or of a system that does not say."""
    try:
        words = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return "GenuineIntel" in words or "vendor_id" not in words


def largest_error() -> float:
    """Return the largest error of float32 matrix products against float64, over products as in a layer's
    forward and backward pass, relative to the sum of the factors' sizes."""
    import torch

    draw = torch.Generator().manual_seed(0)
    states, weight, gradient = (
        torch.randn(shape, generator=draw) for shape in ((192, 320), (256, 320), (192, 256))
    )
    errors = []
    for left, right in ((states, weight.T), (gradient, weight), (gradient.T, states)):
        exact = left.double() @ right.double()
        errors.append(((left @ right - exact).abs() / (left.abs() @ right.abs())).max())
    return float(max(errors))
