"""Whether a loss on the instruction helps on one person's data: the protocol, its runs, and the answer."""
