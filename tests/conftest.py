"""Fixtures that more than one test module uses."""

from pathlib import Path

import pytest

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data files beside the repository; the test is skipped where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("the public data files are not there: no shared/data beside the repository")
    return _SHARED_DATA
