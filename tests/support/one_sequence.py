"""A row of one sequence, for tests that look at nothing else."""

from typing import Any

import numpy as np

from instruction_modelling.chat.spans import Rendered
from instruction_modelling.rows.conversations import BadRow
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.encoder import Tokens
from instruction_modelling.tokens.weights import WeightPolicy


class OneSequence(EncodedRow):
    """A row with what its one sequence has."""

    @property
    def tokens(self) -> Tokens:
        """The sequence's tokens."""
        return self.first.tokens

    @property
    def rendered(self) -> Rendered:
        """The sequence's text and spans."""
        return self.first.rendered

    @property
    def released(self) -> np.ndarray | None:
        """The released masks' bits."""
        return self.first.released

    def weights(self, policy: WeightPolicy) -> np.ndarray:  # type: ignore[override]
        """The weights of the sequence's tokens."""
        (weights,) = super().weights(policy)
        return weights


def one_sequence(row: EncodedRow | BadRow) -> Any:
    """The row, which has one sequence or was refused."""
    if isinstance(row, BadRow):
        return row
    assert len(row.sequences) == 1
    return OneSequence(row.conversation, row.sequences)
