"""Runs code that a model wrote, where it can do no harm and cannot say of itself that it succeeded."""
