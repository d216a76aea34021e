"""What computes a teacher's outputs outside a training's loss: transformers, vLLM in a process of its own, or a server. One file each."""
