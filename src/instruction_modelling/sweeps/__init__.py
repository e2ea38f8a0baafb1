"""The rows of a sweep: what they need, and running them."""
