"""The steps of a run, one kind a file."""
