"""Where a training has a teacher from: a model that runs in it, a cache, or servers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dskd.compatibility import LIVE
from dskd.teachers.options import TeacherSource
from harness.steps.base import ModelInput
from harness.steps.served_model import ServedModel
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_reference import TeacherReference

ASKED_LIVE = {"kind": LIVE}


def teacher_source(
    teacher: ModelInput,
    cache: TeacherCache | None,
    reference: TeacherReference | None,
    outputs: Mapping[str, Any],
    root: Path,
    **more: Any,
) -> TeacherSource:
    """What `dskd.train` is told of a teacher.

    Args:
        teacher: the teacher.
        cache: of its outputs, where they are not asked for live.
        reference: what the local copy of a served teacher answers to the probe's texts.
        outputs: what it is asked for live.
        root: the folder of the run.
        more: further fields, of one of several teachers.
    """
    place: dict[str, Any] = {"folder": teacher.path(root)}
    if cache is not None:
        place["cache"] = cache.path(root)
    if isinstance(teacher, ServedModel):
        place["tokenizer"] = teacher.tokenizer_input.path(root)
        if cache is None:
            served = teacher.served(outputs)
            if reference is not None:
                served = served.model_copy(update={"reference": reference.path(root)})
            place["served"] = served
    return TeacherSource(**place, **more)


def runs_here(teacher: ModelInput | None, cache: TeacherCache | None) -> bool:
    """Whether a teacher's model is loaded by the training."""
    return teacher is not None and cache is None and not isinstance(teacher, ServedModel)


def addresses_of(
    teacher: ModelInput | None, cache: TeacherCache | None, outputs: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """The addresses that a training needs for a teacher, by its name; none for one that runs in it or is cached."""
    if cache is not None or not isinstance(teacher, ServedModel):
        return {}
    return {teacher.name: teacher.served(outputs).addresses}
