"""Evaluation by generation: a model and tasks to completions and scores."""
