"""What this repository costs beside what else does the same work, measured in one run."""
