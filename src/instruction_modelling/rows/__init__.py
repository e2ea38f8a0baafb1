"""A file of rows to validated conversations."""
