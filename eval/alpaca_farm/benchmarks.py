"""The two AlpacaEvals, and what of the alpaca-eval package this code stands on."""

import importlib.metadata
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError

DATA_DIR = Path("data/eval/alpaca_eval")
FETCH = "sh prepare_eval_data.sh alpaca_eval"
# What the length-controlled rate is fitted with beside a model's own judgments.
LENGTH_CONTROLLED_FILE = DATA_DIR / "df_gamed.csv"
ENVIRONMENT_VARIABLE = "IS_ALPACA_EVAL_2"


@dataclass(frozen=True)
class AlpacaEval:
    """One of the two: its number, the package's annotator, the model compared with, and the judge of the
    published numbers."""

    number: int
    annotator: str
    reference: str
    judge: str

    @property
    def name(self) -> str:
        """Return `alpaca_eval_1` or `alpaca_eval_2`, the folder of its results."""
        return f"alpaca_eval_{self.number}"

    @property
    def reference_path(self) -> Path:
        """Return where its reference answers are unless a flag says otherwise."""
        return DATA_DIR / f"{self.reference}.json"


ALPACA_EVAL_1 = AlpacaEval(1, "alpaca_eval_gpt4", "text_davinci_003", "gpt-4")
ALPACA_EVAL_2 = AlpacaEval(2, "weighted_alpaca_eval_gpt4_turbo", "gpt4_1106_preview", "gpt-4-1106-preview")


def chosen_benchmark() -> AlpacaEval:
    """Return the one that the environment variable IS_ALPACA_EVAL_2 names: True (the default) or False.

    Raises:
        UserError: it is neither.
    """
    value = os.environ.get(ENVIRONMENT_VARIABLE, "True")
    if value.strip().lower() not in ("true", "1", "false", "0"):
        raise UserError(
            f"the environment variable {ENVIRONMENT_VARIABLE} is {value!r}; it must be True (AlpacaEval 2) "
            "or False (AlpacaEval 1)"
        )
    return ALPACA_EVAL_2 if value.strip().lower() in ("true", "1") else ALPACA_EVAL_1


def package() -> Any:
    """Import the alpaca-eval package without its warnings and without the log level it sets for the whole
    program.

    Raises:
        UserError: it is not installed.
    """
    root = logging.getLogger()
    level = root.level
    # The package reads the variable as a Python literal when it is imported; which benchmark is meant, it is
    # told by argument.
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    os.environ[ENVIRONMENT_VARIABLE] = "True"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import alpaca_eval
            import alpaca_eval.annotators
            import alpaca_eval.metrics
            import alpaca_eval.utils
    except ImportError as error:
        raise UserError(
            f"the package alpaca-eval cannot be imported ({error}); install requirements-eval.txt"
        ) from error
    finally:
        root.setLevel(level)
        if before is None:
            del os.environ[ENVIRONMENT_VARIABLE]
        else:
            os.environ[ENVIRONMENT_VARIABLE] = before
    return alpaca_eval


def harness() -> dict[str, str]:
    """Return the package and its version, for the results."""
    return {"name": "alpaca-eval", "version": importlib.metadata.version("alpaca-eval")}
