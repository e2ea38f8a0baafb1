"""Texts of test sets within training rows."""
