"""A checkpoint's files are safetensors' own, written from the tensors' memory."""

import pytest
import torch
from safetensors.torch import load, save

from instruction_modelling.runs.tensor_files import DTYPES, file_parts


def test_the_parts_are_byte_for_byte_what_the_library_writes() -> None:
    torch.manual_seed(0)
    tensors = {
        "weight/b": torch.randn(3, 5),
        "weight/a": torch.randn(7),
        "step/a": torch.tensor(4.0),
        "half": torch.randn(2, 3).to(torch.bfloat16),
        "wide": torch.randn(2, dtype=torch.float64),
        "count": torch.arange(5),
        "mask": torch.tensor([True, False, True]),
        "naïve/ключ": torch.zeros(0, 4),
    }
    assert b"".join(file_parts(tensors)) == save(tensors)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_number_format_comes_back_as_it_was(dtype: torch.dtype) -> None:
    tensors = {"x": torch.tensor([[1, 0], [1, 1]]).to(dtype), "y": torch.tensor(1).to(dtype)}
    whole = b"".join(file_parts(tensors))
    assert whole == save(tensors)
    back = load(whole)
    assert all(back[name].dtype == dtype and torch.equal(back[name], tensors[name]) for name in tensors)


def test_the_tensors_are_not_copied() -> None:
    tensor = torch.zeros(4)
    _, memory = file_parts({"x": tensor})
    tensor[1] = 1.0
    assert bytes(memory) == tensor.numpy().tobytes()
