"""The processes a script runs on, as the launcher says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


def total(accelerator: "Accelerator", values: "torch.Tensor") -> "torch.Tensor":
    """The sum over processes, on the CPU."""
    if accelerator.num_processes == 1:
        return values
    return accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()


def from_main(accelerator: "Accelerator", value: Any) -> Any:
    """The main process's value, on every process."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


@contextmanager
def together(accelerator: "Accelerator") -> Iterator[None]:
    """A block that fails on every process where it fails on one; none waits for another that is gone.

    Raises:
        UserError: an OSError or a UserError was raised on a process.
    """
    problem = None
    try:
        yield
    except OSError as error:
        problem = error.strerror or str(error)
    except UserError as error:
        problem = str(error)
    problems = [problem]
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        problems = gather_object(problems)
    first = next(filter(None, problems), None)
    if first:
        raise UserError(first)
