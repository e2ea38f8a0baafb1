"""Several arms and seeds on several files, measured and reported."""
