"""What is in a training file, and what has been found for files like it."""
