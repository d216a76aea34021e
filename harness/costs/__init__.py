"""Cost estimates from shapes: operations, memory and time of a training."""
