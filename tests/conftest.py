"""Fixtures that more than one test module uses."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["inspector_fixtures"]

# Where the tests themselves are run in the background, Ctrl-C is ignored, and what they start would inherit
# that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a limit on the time of an example: a busy machine is no failure of what is tested.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data files beside the repository; the test is skipped where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("the public data files are not there: no shared/data beside the repository")
    return _SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Encoded files are kept in a folder that goes with the tests, so that no test reads or writes the user's
    cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def float32_products_as_torch_starts() -> Iterator[None]:
    """Put back, after each test, how torch multiplies in float32: what starts a run within the test's process
    changes it (`cpu.use_quicker_float32`), and the packed attention goes by it."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_float32_matmul_precision("highest")
