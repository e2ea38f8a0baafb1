"""The hub of models and data sets: does it answer?

Its own client asks six times, half a minute, before it says that there is no connection, and each library
that stands on it asks so for each file: most often, what is asked for is a mistyped folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

# For an answer to one request.
SECONDS = 8.0


def why_no_answer(name: str, kind: Literal["model", "dataset"] = "model") -> str | None:
    """Ask the hub once for a model or a data set, and return why it does not answer, in words; None where it
    does, whatever it says, where it is not to be asked (`HF_HUB_OFFLINE`), and where the model is kept on
    this machine."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    file = "config.json" if kind == "model" else "README.md"
    try:
        if constants.is_offline_mode() or isinstance(try_to_load_from_cache(name, file, repo_type=kind), str):
            return None
        get_hf_file_metadata(hf_hub_url(name, file, repo_type=kind), timeout=SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return None
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"{constants.ENDPOINT} cannot be reached ({first})"
    return None


@contextmanager
def not_asked() -> Iterator[None]:
    """Have the libraries that read data sets take what is kept on this machine, at once."""
    from datasets import config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before
