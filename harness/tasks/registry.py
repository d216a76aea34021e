"""Tasks by name: those of `tasks/`, of the entry points `harness.tasks`, `file.py:Class`, and `lm_eval/NAME` for lm-eval's own."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

from dskd.errors import InputError
from dskd.plugins import code_hash
from harness.plugins import Plugins
from harness.tasks import lm_eval_task
from harness.tasks.lm_eval_task import LM_EVAL
from harness.tasks.task import Task


def tasks_folder() -> Path:
    """Return the folder of the tasks: beside the code in a checkout, inside the package once installed."""
    package = Path(__file__).resolve().parents[1]
    return folder if (folder := package / "_tasks").is_dir() else package.parent / "tasks"


def _shipped() -> dict[str, Path]:
    return {path.parent.name: path for path in tasks_folder().glob("*/task.py")}


# A file tasks/<name>/task.py exports its class as TASK.
TASKS = Plugins("task", "harness.tasks", _shipped, "TASK")


def names() -> list[str]:
    """Return the names of all tasks but lm-eval's, sorted."""
    return TASKS.names()


@cache
def load(name: str) -> Task:
    """Return the task of this name. InputError where there is none, or where it is not complete."""
    if name.startswith(LM_EVAL):
        return lm_eval_task.load(name.removeprefix(LM_EVAL))
    cls = TASKS.load(name)
    if not (inspect.isclass(cls) and issubclass(cls, Task)):
        raise InputError(f"task {name}: it is no subclass of harness.tasks.Task; fix: name the task's class")
    attributes = ("name", "version", "metrics", "max_new_tokens")
    if missing := sorted(cls.__abstractmethods__) + [key for key in attributes if not hasattr(cls, key)]:
        raise InputError(f"task {name}: its class has no {missing[0]}; fix: define it (docs/tasks.md)")
    task = cls()
    if name not in _shipped():
        task.own_code = code_hash(cls)
    return task
