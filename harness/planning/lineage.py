"""Which data a cell's models were trained on, stage by stage, as far as a matrix knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.config.matrix import Cell, FirstLayersModel, PathModel
from harness.planning.artifacts import Artifact, Artifacts

Source = dict[str, Any]


def training_data(
    artifacts: Artifacts, cell: Cell, *, taught: bool = True, answers: Artifact | None = None
) -> list[Source]:
    """The training data behind a cell: {"of", "data", "path", "columns", "limit", "reason"}, each file once for each model.

    `of` is "student" or "teacher": whose training it was, from the start; the teacher's only where the student is `taught` by it.
    `data` is the matrix's name; `answers` to it are what a student is trained on that learns from those alone. A model from
    elsewhere has no data and no path, and a reason.
    """
    found = []
    if cell.student is not None:
        found += [{"of": "student", **source} for source in _of_model(artifacts, cell.student)]
        own = artifacts.training_file(artifacts.matrix.training.data)
        if answers is not None:
            name = f"{artifacts.matrix.training.data}, answered by {cell.teacher}"
            own = {"data": name, "path": str(answers.path), "columns": None, "limit": None}
        found.append({"of": "student", "reason": None, **own})
    if taught or cell.student is None:
        found += [{"of": "teacher", **source} for source in _of_model(artifacts, cell.teacher)]
    return [source for number, source in enumerate(found) if source not in found[:number]]


def _of_model(artifacts: Artifacts, name: str) -> Iterator[Source]:
    """What a model was trained on before any distillation."""
    source = artifacts.matrix.models[name]
    if isinstance(source, PathModel):
        reason = f"{name} is a model folder from elsewhere: what it was trained on is not known here"
        yield {"data": None, "path": None, "columns": None, "limit": None, "reason": reason}
        return
    if isinstance(source, FirstLayersModel):
        yield from _of_model(artifacts, source.layers_of)
    for stage in source.training:
        yield {"reason": None, **artifacts.training_file(stage.data)}
