"""A conversation to one text, and spans of characters that say who wrote what."""
