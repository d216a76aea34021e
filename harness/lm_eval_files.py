"""Files of the installed lm-eval, found without importing lm-eval, which takes seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def tasks_of_lm_eval() -> Path:
    """Return the folder of lm-eval's own tasks."""
    spec = find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "tasks"
