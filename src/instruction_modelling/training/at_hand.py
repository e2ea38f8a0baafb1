"""What a process is busy with, and the one line that says so where its memory ends."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from instruction_modelling.errors import OwnError, UserError, first_line, is_out_of_memory
from instruction_modelling.processes.connections import lost_machine

if TYPE_CHECKING:
    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.training.batches import MicroBatch

READING = "reading the rows"
# What gloo and NCCL say to a process that waits for one that is gone.
_GONE = ("connection closed by peer", "connection reset by peer", "remote process exited", "broken pipe")


@dataclass
class AtHand:
    """What this process of a run is busy with."""

    doing: str = READING
    batch: "MicroBatch | None" = None

    def now(self, doing: str, batch: "MicroBatch | None" = None) -> None:
        """Say what begins, in words that go on "out of memory ...", and of which micro-batch."""
        self.doing, self.batch = doing, batch

    @contextmanager
    def told(self, options: "FinetuneOptions") -> Iterator[None]:
        """Turn an end of memory in the block into one line that says where and what would help; so too the
        end of another process or machine, which this one would wait for, and an operation that
        --deterministic refuses.

        Raises:
            OwnError: that line; only the process that met it knows of it.
            UserError: the operation that has no deterministic algorithm.
        """
        try:
            yield
        except (RuntimeError, MemoryError, OSError) as error:
            if is_out_of_memory(error):
                raise OwnError(self._memory_line(error, options)) from error
            if lost := lost_machine():
                raise OwnError(lost) from error
            several = int(os.environ.get("WORLD_SIZE", "1")) > 1
            if several and isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _GONE):
                raise OwnError(
                    f"process {_rank()}: another process of this run has ended; its own message says why"
                ) from error
            if options.deterministic and "does not have a deterministic" in str(error):
                raise UserError(f"--deterministic: {first_line(error)}. Leave the flag out") from error
            raise

    def _memory_line(self, error: BaseException, options: "FinetuneOptions") -> str:
        batch, of = self.batch, ""
        if batch is not None:
            rows, columns = batch.input_ids.shape
            of = (
                f" (a micro-batch of {rows} x {columns:,} tokens, {batch.tokens_with_loss:,} of them with a "
                "loss)"
            )
        process = f" on process {_rank()}" if "RANK" in os.environ else ""
        return f"out of memory {self.doing}{of}{process}: {_asked(error)}. {_what_helps(options, self.doing)}"


def _rank() -> str:
    return os.environ.get("RANK", "0")


def _asked(error: BaseException) -> str:
    """Return what was asked for and what is free, as far as an error says it."""
    words = first_line(error)
    if asked := re.search(r"tried to allocate (\d+) bytes", words):
        return f"{int(asked[1]) / 2**30:,.2f} GiB were asked for on the CPU"
    # CUDA's goes on with statistics of its allocator.
    if found := re.search(r"Tried to allocate .*? is free", words):
        return found[0]
    return words.rstrip(".")


def _what_helps(options: "FinetuneOptions", doing: str) -> str:
    if doing == READING:
        return "Give fewer rows, or a machine with more memory"
    limit = (
        "a smaller --max_tokens_per_device" if options.packing else "--packing with --max_tokens_per_device"
    )
    flags = [
        *([] if options.gradient_checkpointing else ["--gradient_checkpointing"]),
        limit if options.packing or options.per_device_train_batch_size > 1 else "a smaller --max_seq_length",
        *([] if options.use_lora or options.use_qlora else ["--use_lora"]),
    ]
    return f"Give {', or '.join(flags)}, or share the model between processes (ds_configs, fsdp_configs)"
