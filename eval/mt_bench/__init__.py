"""MT-Bench: 80 two-turn questions, answered in the checkpoint's own chat format and judged with FastChat's
prompts."""
