"""No change to the code moves a number of training unseen."""

import json
from pathlib import Path

import golden_run


def test_losses_gradient_norms_and_weights_of_eleven_small_runs_are_those_on_record(tmp_path: Path) -> None:
    record = json.loads(golden_run.RECORD.read_text())
    assert golden_run.problems(golden_run.measure(tmp_path), record) == []


def test_one_changed_number_is_seen(tmp_path: Path) -> None:
    record = json.loads(golden_run.RECORD.read_text())
    arms = json.loads(json.dumps(record["arms"]))
    assert golden_run.problems(arms, record) == []
    arms["IM packed"]["losses"][3] *= 1 + 3 * golden_run.TOLERANCE
    (found,) = golden_run.problems(arms, record)
    assert found.startswith(
        "IM packed" if golden_run.environment() == record["environment"] else "3e-05 apart: IM packed"
    )
