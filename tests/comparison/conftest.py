"""What the tests of the report share."""

from pathlib import Path

import pytest
from report_checks import Refusal


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """Return the script run on what it must refuse."""
    return Refusal(monkeypatch, capsys, tmp_path)
