"""Where should the loss fall? Instruction tuning with a loss weight for every token."""
