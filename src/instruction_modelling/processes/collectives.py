"""What the processes that a launcher started do together: sums, one value for all, one failure for all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


def total(accelerator: "Accelerator", values: "torch.Tensor") -> "torch.Tensor":
    """Return the sum over processes of tensors of one shape, on the CPU."""
    if accelerator.num_processes == 1:
        return values
    return accelerator.reduce(values.to(accelerator.device), reduction="sum").cpu()


def from_main(accelerator: "Accelerator", value: Any) -> Any:
    """Return the main process's value, any object that can be pickled, on every process."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


@contextmanager
def together(accelerator: "Accelerator") -> Iterator[None]:
    """Fail on every process where the block fails on one: else the others wait for it in their next
    collective for ever.

    Raises:
        UserError: an OSError or a UserError was raised in the block, on any process.
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
