"""Models and tokenizers: loading, attention, 4-bit weights, the embedded model and a tiny one."""
