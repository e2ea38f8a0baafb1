"""The paper's benchmarks that lm-eval judges."""
