"""The tasks: documents, prompts and scores."""

from harness.tasks.loglikelihood_task import LogLikelihoodTask
from harness.tasks.registry import LM_EVAL, TASKS, load, names, tasks_folder
from harness.tasks.task import Doc, Metric, Task, documents_digest

__all__ = [
    "LM_EVAL",
    "TASKS",
    "Doc",
    "LogLikelihoodTask",
    "Metric",
    "Task",
    "documents_digest",
    "load",
    "names",
    "tasks_folder",
]
