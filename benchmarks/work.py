"""What a contender is given to do: the same for all of a row."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Work:
    """One row's work, and one process's share of it."""

    model: str
    """Folder of the model."""
    prepared: str
    """Folder of the rows that `preparation.prepare` made."""
    scratch: str
    """Folder that a contender may write to and that goes when it is done."""
    examples: int
    """Examples of an update."""
    steps: int
    """Updates that are planned: one to warm up, those that count, and one that is not reached."""
    lora_rank: int
    max_seq_length: int
    quick: bool
    """Everything small."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What is particular to the row and to the contenders of this process."""

    def to_json(self) -> str:
        """Return the work as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Work":
        """Return the work that `to_json` wrote."""
        return cls(**json.loads(text))

    def rows_file(self) -> Path:
        """Return the JSON Lines file of the rows to train on, as conversations."""
        return Path(self.prepared) / "rows.jsonl"

    def tokens(self) -> list[dict[str, list[int]]]:
        """Return `input_ids` and `labels` (-100 where there is no loss) of each row, in the order in which an
        epoch visits them."""
        return json.loads((Path(self.prepared) / f"tokens-{self.settings['arm']}.json").read_text())
