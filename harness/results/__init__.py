"""Reading and exporting the records of a run."""
