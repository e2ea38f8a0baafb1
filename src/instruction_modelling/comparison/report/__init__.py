"""Run folders to a report: numbers, words, figures, pages."""
