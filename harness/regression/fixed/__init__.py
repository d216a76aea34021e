"""The check of what the code does with models and texts that do not change: no verdict depends on where a training ends."""
