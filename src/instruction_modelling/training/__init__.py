"""From coefficients to a step: plan, micro-batches, loss, optimiser, sharding."""
