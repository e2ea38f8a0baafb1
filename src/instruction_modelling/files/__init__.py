"""Files that are whole or not there, locks, and what was made already."""
