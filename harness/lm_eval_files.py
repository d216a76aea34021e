"""Files of the installed lm-eval, read without importing lm-eval, which takes seconds."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType


def tasks_of_lm_eval() -> Path:
    """Return the folder of lm-eval's own tasks."""
    found = importlib.util.find_spec("lm_eval")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "tasks"


@cache
def module_of_lm_eval(file: str) -> ModuleType:
    """Return a Python file of lm-eval's tasks as a module, `hendrycks_math/utils.py` for one."""
    name = "harness_lm_eval_" + file.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, tasks_of_lm_eval() / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
