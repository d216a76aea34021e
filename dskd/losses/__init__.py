"""Loss functions of tensors: divergences, cross entropy, and their computation in chunks."""
