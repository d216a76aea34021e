"""What a person sees of a run: counted and rendered here, from inside the harness process or from the disk."""
