"""Students that leave this machine: the model card, the files that go with it, and the hub."""
