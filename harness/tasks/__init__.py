"""The tasks: documents, prompts and scores."""

from harness.tasks.task import LM_EVAL, Doc, Metric, Task, documents_digest, load, names, tasks_folder

__all__ = ["LM_EVAL", "Doc", "Metric", "Task", "documents_digest", "load", "names", "tasks_folder"]
