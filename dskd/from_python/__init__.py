"""`dskd.distill`: distillation as one call from Python, with models and data as they are in memory, in folders or on the hub."""
