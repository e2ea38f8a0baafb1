"""A configuration is read without the code of models, and checked as it would be with it."""

import json
import subprocess
import sys
from pathlib import Path

from script_loader import SRC
from tiny import make_tiny_model
from transformers.activations import ACT2FN

from instruction_modelling.models.configurations import COMMON, Activations

# What models are made of, and what else is slow to import; none of it reads rows or a configuration.
HEAVY = (
    *("transformers.activations", "transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor"),
    *("accelerate", "scipy.stats", "sympy"),
)


def test_the_stand_in_knows_the_activations_that_transformers_knows() -> None:
    activations = Activations()
    assert COMMON <= set(ACT2FN) == set(activations.keys())
    assert all(name in activations for name in ACT2FN)
    assert "nope" not in activations and len(activations) > 0


def test_a_tokenizer_is_loaded_without_the_code_of_models_and_a_model_after_it(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    program = f"""
import json, sys
import instruction_modelling.comparison.jobs, instruction_modelling.analysis.advisor
light = [name for name in {HEAVY} + ("torch", "transformers") if name in sys.modules]
from instruction_modelling.models.loading import load_model, load_tokenizer
tokenizer = load_tokenizer({str(tmp_path / "model")!r})
with_tokenizer = [name for name in {HEAVY} if name in sys.modules]
import torch
model = load_model({str(tmp_path / "model")!r}, torch.float32)
from transformers.activations import ACT2FN
print(json.dumps([light, with_tokenizer, len(tokenizer), type(model).__name__, len(ACT2FN)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SRC)},
    )
    light, with_tokenizer, tokens, model, activations = json.loads(done.stdout)
    assert light == [] and with_tokenizer == []
    assert tokens > 256 and model == "LlamaForCausalLM" and activations == len(ACT2FN)
