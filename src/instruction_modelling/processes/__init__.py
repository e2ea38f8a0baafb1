"""Many processes that act as one, signals, and the processes of a run."""
