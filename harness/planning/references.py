"""What of a run's folder something still refers to; the rest is `harness.runs.garbage`.

An output is referred to by

1. a matrix of the run: the outputs of all its jobs, whether they are needed again or not;
2. the identity in the manifest or record of any output that stays: the parts of an input stand in it whole, so the hash of every
   part is compared with the names of artifacts;
3. the specification of the job of any output that stays, which also names what is no part of an identity (a teacher cache, a copy
   of a tokenizer). One that this version of the program cannot read refers to nothing: its job could not be resumed either.

Outputs of cells stay unless they are asked to go. Without a matrix (of `harness train` and `evaluate`) all artifacts stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object
from harness.planning.plan import Plan, PlannedJob
from harness.results.run_file import RunFile
from harness.runs.garbage import Kept, file_name, job_folder, outputs_under
from harness.runs.identity import Fingerprint
from harness.runs.job_spec import JobSpec
from harness.runs.store import MANIFEST, RESULT, RUN
from harness.steps.base import Step, closure


@dataclass(frozen=True)
class _Spec:
    name: str
    outputs: frozenset[str]
    jobs: dict[str, Step]  # it and all that it needs


def expected_outputs(root: Path, plans: Sequence[Plan]) -> frozenset[str]:
    """The folders of the outputs that the matrices of a run have, and of the records that its `run.json` lists."""
    path, listed = root / RUN, []
    if path.is_file():
        try:
            listed = RunFile.model_validate_json(path.read_bytes()).records
        except (OSError, ValueError):
            raise InputError(f"{path}: is damaged; fix: run the matrix again, which writes it anew") from None
    return frozenset(listed).union(*({each.output.folder for each in job.outputs} for job in _jobs(plans)))


def references(root: Path, plans: Sequence[Plan], dropped: Collection[str] = ()) -> Kept:
    """What of a run is needed.

    Args:
        root: its folder.
        plans: of its matrices, whole.
        dropped: outputs of cells that are to go; what only they refer to may go too.

    Returns:
        What stays.
    """
    expected = expected_outputs(root, plans)
    specs = [*_specs(root)]
    by_hash = {Path(folder).name: folder for folder in outputs_under(root, "artifacts")}
    artifacts = {*by_hash.values()}
    kept = {folder for folder in by_hash.values() if folder in expected or not plans}
    kept |= {folder for folder in outputs_under(root, "cells") if folder not in dropped}
    jobs = {file_name(job.id) for job in _jobs(plans)}
    folders = {job.step.folder for job in _jobs(plans)}
    waiting = [*kept]
    while waiting:
        folder = waiting.pop()
        folders.add(job_folder(folder))
        found = {by_hash[name] for name in _named(root / folder) if name in by_hash}
        for spec in specs:
            if folder in spec.outputs:
                jobs.add(spec.name)
                found |= {output.folder for step in spec.jobs.values() for output in step.outputs}
        new = (found & artifacts) - kept
        kept |= new
        waiting += new
    return Kept(frozenset(kept), expected, frozenset(jobs), frozenset(folders))


def _jobs(plans: Sequence[Plan]) -> Iterator[PlannedJob]:
    for plan in plans:
        yield from plan.jobs.values()


def _specs(root: Path) -> Iterator[_Spec]:
    for path in sorted((root / ".harness" / "specs").glob("*.json")):
        try:
            spec = JobSpec.model_validate_json(path.read_text(encoding="utf-8"))
            step = Step.model_validate(spec.step)
        except (OSError, ValueError, InputError):
            continue
        yield _Spec(path.stem, frozenset(spec.outputs), closure([step]))


def _named(folder: Path) -> set[str]:
    """The short hashes of all that an output was made of, as its manifest and its record say."""
    found: set[str] = set()
    for name in (MANIFEST, RESULT):
        try:
            parts = read_object(folder / name)["identity"]["parts"]
            _hashes(parts, found)
        except (InputError, KeyError, TypeError, ValueError):  # not there, or damaged: the other one says it
            continue
    return found


def _hashes(value: Any, found: set[str]) -> Any:
    """The value with the fingerprint of each object in place of it; what steps have made is added to `found`."""
    if isinstance(value, dict):
        fingerprint = Fingerprint.of({key: _hashes(item, found) for key, item in value.items()})
        if "code" in value:  # the version of a step
            found.add(fingerprint.short)
        return fingerprint
    return [_hashes(item, found) for item in value] if isinstance(value, list) else value
