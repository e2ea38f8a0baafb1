"""What every token of a file is and weighs."""
