"""What every teacher cache of a matrix is told of its teacher and of what computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config.settings import TeacherCaches
from harness.steps.base import ModelInput
from harness.steps.served_model import ServedModel


def settings_of_cache(
    teacher: ModelInput, kept: Mapping[str, Any], dtype: str, caches: TeacherCaches
) -> dict[str, Any]:
    """Fields of a `TeacherCache`, all but its title and its data. kept: the outputs; dtype: of the teacher."""
    return {
        "teacher": teacher,
        "options": dict(kept),
        "dtype": dtype,
        "engine": None if caches.engine == "auto" else caches.engine,
        "tensor_parallel": caches.tensor_parallel,
        "served": teacher.served_for_cache(kept) if isinstance(teacher, ServedModel) else None,
    }
