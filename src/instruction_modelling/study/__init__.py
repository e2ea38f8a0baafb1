"""The study of docs/results.md: its grid of cells, its runs, what they are kept as, and its page."""
