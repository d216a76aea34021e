"""Jobs: steps in processes of their own, `python -m harness.jobs SPEC.json`."""
