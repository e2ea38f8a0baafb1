"""Text and spans to token ids, span kinds, loss weights and coefficients: numpy, no torch."""
