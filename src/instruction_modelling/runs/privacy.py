"""What is said of privacy to whoever trains with a loss on instructions, with the figure measured here.

measured_memorisation.json holds a part of the result of one run of src/measure_memorisation.py; a test holds
it against the committed result."""

import json
from functools import cache
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("measured_memorisation.json")


@cache
def measured() -> dict[str, Any]:
    """Return what was measured: `model`, `epochs`, `repeats`, `completed` (by arm: how many of how many
    secrets), `exposure` (by arm, bits, and `most` and `chance`), `command` and `date`."""
    found: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return found


def privacy_note() -> str:
    """Return the warning in sentences: what others found, and what was measured here."""
    found = measured()
    completed = ", ".join(
        f"{count} of {of} {'by the untuned model' if arm == 'untuned' else f'under {arm}'}"
        for arm, (count, of) in found["completed"].items()
    )
    exposure = found["exposure"]
    bits = ", ".join(
        f"{value:.1f} {'untuned' if arm == 'untuned' else f'under {arm}'}"
        for arm, value in exposure["by_arm"].items()
    )
    script, held = found["command"].split()[1], found["repeats"]
    return (
        "Queries were extracted from models tuned with a loss on them (arXiv 2505.15656), and personal data "
        "in inputs are memorised to a part even without one (arXiv 2601.17480). Measured here: of secrets "
        f"that {held} training instructions held, {found['model']} tuned for {found['epochs']} passes "
        f"wrote out {completed}; their mean exposure in bits was {bits} (at most {exposure['most']:.1f}, by "
        f"chance {exposure['chance']:.1f}; {found['date']}, {script}). Larger models and more passes "
        "usually memorise more. Do not train on instructions with personal data or secrets."
    )
