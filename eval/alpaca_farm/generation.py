"""A model's answers to AlpacaEval's instructions: greedy, each kept as it comes."""

import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.alpaca_farm.pairs import Output, OutputFile
from eval.alpaca_farm.results import write

if TYPE_CHECKING:
    from eval.alpaca_farm.run_eval import AlpacaEvalOptions

logger = logging.getLogger(__name__)

SAMPLE_SEED = 42


def sample(reference: OutputFile, count: int | None) -> OutputFile:
    """The file with a fixed random sample of its instructions, in its order; all of them for None."""
    if count is None or count >= len(reference.outputs):
        return reference
    kept = sorted(random.Random(SAMPLE_SEED).sample(range(len(reference.outputs)), count))
    return replace(reference, outputs=[reference.outputs[place] for place in kept])
