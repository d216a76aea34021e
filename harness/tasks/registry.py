"""Tasks by name: those of `tasks/`, of the entry points `harness.tasks`, `file.py:Class`, and `lm_eval/NAME` for lm-eval's own.

`NAME:validation` is a task with its validation documents in place of the test set, for choosing settings. It is a task of another
name everywhere: in matrices, folders, records and tables, so that its scores are never taken for those of the test set.
"""

from __future__ import annotations

import inspect
import os
from functools import cache
from pathlib import Path

from dskd.errors import InputError
from dskd.plugins import code_hash
from harness.plugins import Plugins
from harness.tasks.lm_eval_generation import LmEvalGenerationTask
from harness.tasks.lm_eval_loglikelihood import LmEvalLogLikelihoodTask
from harness.tasks.lm_eval_yaml import LM_EVAL, VARIABLE, find, kind_of, read_config, refuse
from harness.tasks.task import Task

VALIDATION = ":validation"


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
    if name.endswith(VALIDATION):
        return _validation(name)
    if name.startswith(LM_EVAL):
        return _of_lm_eval(name.removeprefix(LM_EVAL))
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


def _of_lm_eval(name: str) -> Task:
    source = find(name, os.environ.get(VARIABLE))
    config = read_config(source, resolve_func=False)
    refuse(name, config)
    is_generation = kind_of(config) == "generate_until"
    return (LmEvalGenerationTask if is_generation else LmEvalLogLikelihoodTask)(name, source, config)


def _validation(name: str) -> Task:
    test = load(name.removesuffix(VALIDATION))
    if not test.has_validation:
        known = [test.validation_from] if test.validation_from else names()
        able = [f"{other}{VALIDATION}" for other in known if load(other).has_validation]
        raise InputError(
            f"task {name}: {test.name} has no validation documents; fix: choose settings by another's: {', '.join(able)}"
        )
    task = test.for_validation()
    task.name = name
    return task
