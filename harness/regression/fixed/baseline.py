"""The file baseline.json of a folder of fixed models: measured, written, read, and what an update changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import transformers
from pydantic import ValidationError

from dskd.errors import InputError
from dskd.io import read_object
from harness.regression.baseline import Provenance, json_lines
from harness.regression.fixed.completions import measure_scores
from harness.regression.fixed.first_steps import measure_first_steps, shipped_methods
from harness.regression.fixed.folder import MODELS, FixedFolder
from harness.regression.fixed.outputs import measure_outputs
from harness.regression.fixed.records import Behaviour, FirstSteps, FixedBaseline
from harness.runs.environment import environment
from harness.runs.store import now, write_text_atomic


def measure(
    folder: FixedFolder,
    *,
    allow_code_execution: bool,
    methods: Sequence[str] | None = None,
    models: Sequence[str] = MODELS,
    told: Callable[[str], None] = lambda _: None,
) -> Behaviour:
    """What the code does now with the models and texts of the folder.

    Args:
        folder: With models and texts.
        allow_code_execution: Whether the programs among the stored completions may be run.
        methods: Those whose first steps are measured; by default all that ship.
        models: Those whose outputs are measured.
        told: Called with the name of each part before it is measured.

    Raises:
        InputError: Before anything is measured: a file is missing, or running programs was not allowed.
    """
    folder.require()
    transformers.utils.logging.disable_progress_bar()
    found = Behaviour()
    told("stored completions")
    found.scores = dict(measure_scores(folder.completions, allow_code_execution=allow_code_execution))
    found.outputs = dict(measure_outputs(folder, models, told))
    for cell, steps in measure_first_steps(folder, shipped_methods() if methods is None else methods, told):
        if isinstance(steps, FirstSteps):
            found.first_steps[cell] = steps
        else:
            found.failed[cell] = steps
    return found


def make_fixed_baseline(folder: FixedFolder, behaviour: Behaviour, reason: str) -> FixedBaseline:
    """The baseline of what was measured. InputError where a training failed, or without a reason."""
    if not reason.strip():
        raise InputError("--reason: is empty; fix: say in a few words why the baseline changes")
    for cell, message in behaviour.failed.items():
        raise InputError(f"{folder.path}: {cell}: {message}; fix: correct the method first")
    made_in = environment("transformers")
    provenance = Provenance(
        reason=" ".join(reason.split()),
        date=now()[:10],
        matrix=None,
        commit=made_in.commit,
        dirty=made_in.dirty,
        harness=made_in.versions.get("dskd-harness"),
    )
    kept = made_in.model_dump(include={"cpu", "threads", "platform", "python", "device"})
    kept["versions"] = {name: made_in.versions.get(name) for name in ("torch", "transformers", "tokenizers")}
    return FixedBaseline(provenance=provenance, environment=kept, files=_files(folder), behaviour=behaviour)


def write_fixed_baseline(folder: FixedFolder, baseline: FixedBaseline) -> None:
    """Write the file, an item, a value and a score a line."""
    write_text_atomic(folder.baseline, "".join(json_lines(baseline.model_dump(mode="json"))) + "\n")


def read_fixed_baseline(folder: FixedFolder, *, any_files: bool = False) -> FixedBaseline:
    """Read the file.

    Args:
        folder: Of the models.
        any_files: Whether its models and texts may have changed since.

    Raises:
        InputError: The file is missing or damaged, or was made from other models or texts.
    """
    path = folder.baseline
    if not path.is_file():
        fix = f'harness baseline update --baseline {folder.path} --reason "first baseline"'
        raise InputError(f"{path}: no such file; fix: {fix}")
    try:
        baseline = FixedBaseline.model_validate(read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}; fix: make the file with harness baseline update") from None
    files = baseline.files if any_files else _files(folder)
    if changed := sorted(name for name in {*files, *baseline.files} if files.get(name) != baseline.files.get(name)):
        raise InputError(
            f"{folder.path / changed[0]}: is not the file that the baseline was made with; "
            "fix: restore it, or harness baseline update"
        )
    return baseline


def _files(folder: FixedFolder) -> dict[str, str]:
    paths = [folder.examples, folder.completions, *sorted((folder.path / "models").rglob("*"))]
    kept = {path.relative_to(folder.path).as_posix(): path for path in paths if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def fixed_changes(before: FixedBaseline | None, after: FixedBaseline) -> list[str]:
    """The changes of an update, one line a cell. Empty if all that is compared stays the same to the last digit."""
    old = _cells(before.behaviour) if before is not None else {}
    new = _cells(after.behaviour)
    lines = [f"- {name}" for name in old if name not in new]
    lines += [f"+ {name}" for name in new if name not in old]
    lines += [f"~ {name}" for name in new if name in old and old[name] != new[name]]
    if before is not None and before.files != after.files:
        lines.append("~ models or texts")
    return lines


def _cells(behaviour: Behaviour) -> dict[str, Any]:
    parts = ("outputs", "first_steps", "scores")
    return {f"{part} {name}": cell for part in parts for name, cell in getattr(behaviour, part).items()}
