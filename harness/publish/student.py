"""Finds a student that was trained here, and what is known of it: what it was made of, what it cost, how it scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object
from dskd.training.checkpoints import REPORT
from dskd.training.provenance import Origin, Provenance, read_provenance
from harness.results.load import load_results
from harness.runs.identity import FileHashes, Fingerprint
from harness.runs.records import Record, read_record
from harness.runs.store import MANIFEST, RESULT
from harness.tables.leaderboard import make_leaderboard
from harness.tables.rows import ScoreRow

_REQUEST = "training_request.json"
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Score:
    """One metric of this very student on one task.

    Attributes:
        record: Of the evaluation.
        metric: Its name.
        teacher: The teacher's score in the same run, and its 95 % interval.
        seeds: The mean over all seeds of the method, where there are several.
    """

    record: Record
    metric: str
    teacher: ScoreRow | None = None
    seeds: ScoreRow | None = None


@dataclass(frozen=True)
class Student:
    """A student's folder and all that is known of it.

    Attributes:
        folder: The model's folder.
        provenance: What it was made of.
        record: Of its training; None for one that was trained from Python.
        report: What the training cost and how it ended (`TrainingReport`).
        scores: Of its evaluations, the headline metric of each task first.
    """

    folder: Path
    provenance: Provenance
    record: Record | None
    report: dict[str, Any]
    scores: list[Score] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it may be called: student, method and seed."""
        made = self.provenance
        return f"{made.student.name.rpartition('/')[2]}-{made.method}-seed{made.seed}"


def model_folder_in(given: Path) -> Path:
    """The student's folder in a folder of a training. InputError where there is none."""
    for folder in (given, given / "model", given / "train" / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise InputError(
        f"{given}: holds no student (a folder with config.json, or the folder of a training); fix: name one"
    )


def read_student(folder: Path, run: Path | None = None) -> Student:
    """What is known of a student.

    Args:
        folder: The model's folder.
        run: The run with its evaluations, also of `harness evaluate`; by default the one that the folder is in.

    Raises:
        InputError: For a folder that no training here has made, and a run that holds nothing.
    """
    record = _training_record(folder.parent)
    provenance = read_provenance(folder) or _from_record(record) or _from_request(folder.parent / _REQUEST)
    if provenance is None:
        raise InputError(
            f"{folder}: does not say what it was made of (no provenance.json, and no record of a training beside it); "
            "fix: give the folder of a student as its training left it"
        )
    report = read_object(folder / REPORT) if (folder / REPORT).is_file() else {}
    if run is not None and not run.is_dir():
        raise InputError(f"--run {run}: no such folder; fix: give the folder of a run")
    root = run or _run_of(folder)
    scores = [] if root is None else _scores(folder, record, root)
    if run is not None and not scores:
        raise InputError(f"--run {run}: has no evaluation of {folder}; fix: give the run that evaluated this student")
    return Student(folder, provenance, record, report, scores)


def _training_record(folder: Path) -> Record | None:
    """The record beside a model, if it is that of a training."""
    if not (folder / MANIFEST).is_file() or not (folder / RESULT).is_file():
        return None
    try:
        record = read_record(folder / RESULT)
    except ValueError as error:
        raise InputError(f"{error}; fix: train again, or remove the file") from None
    return record if record.cell.task is None and record.cell.student is not None else None


def _run_of(folder: Path) -> Path | None:
    """The run that a student's folder is in; None for a training by itself."""
    return next((place.parent for place in folder.absolute().parents if place.name == "cells"), None)


def _from_record(record: Record | None) -> Provenance | None:
    """What older students were made of, whose folders do not say it: names, and settings from the identity."""
    if record is None:
        return None
    parts, cell = record.identity.parts, record.cell
    return Provenance(
        teacher=Origin(name=cell.teacher, made=_UNKNOWN) if parts.get("teacher") else None,
        student=Origin(name=str(cell.student), made=_UNKNOWN),
        data=Origin(name="unknown", made=_UNKNOWN),
        method=cell.method,
        method_options=parts.get("options") or {},
        training=parts.get("training") or {},
        seed=cell.seed or 0,
        versions=record.environment.versions,
        commit=record.environment.commit,
        dirty=record.environment.dirty,
    )


def _from_request(request: Path) -> Provenance | None:
    """What `dskd.train` was asked for, which knows no names."""
    if not request.is_file():
        return None
    asked = read_object(request)
    unknown = Origin(name="unknown", made=_UNKNOWN)
    return Provenance(
        teacher=None if asked["method"] == "sft" else unknown,
        student=unknown,
        data=unknown,
        method=asked["method"],
        method_options=asked["method_options"],
        training=asked["options"],
        seed=asked["seed"],
        versions={},
    )


def _scores(folder: Path, training: Record | None, root: Path) -> list[Score]:
    """The scores of this very student among the records of a run: evaluations of other weights do not count."""
    results = load_results(root)
    evaluations = [each for each in results.records if each.cell.task is not None and each.status == "done"]
    files: dict[str, str] = {}
    own = []
    for record in evaluations:
        model = record.identity.parts.get("model") or {}
        if training is not None and Fingerprint.of(model).hash == training.identity.hash:
            own.append(record)
        elif record.cell.student is None and "files" in model:
            files = files or FileHashes().model_folder(folder)
            if model["files"] == files:
                own.append(record)
    board = make_leaderboard(results.records, results.items) if own else None
    scores = []
    for record in sorted(own, key=lambda each: each.cell.key):
        cell, column = record.cell, str(record.cell.column)
        teacher = seeds = None
        if board is not None and cell.student is not None:
            teacher = board.find(cell.teacher, None, "teacher", column)
            seeds = board.find(cell.teacher, cell.student, cell.method, column)
        for metric in sorted(record.metrics, key=lambda name: (name != record.headline, name)):
            headline = metric == record.headline
            several = headline and seeds is not None and seeds.seeds > 1
            scores.append(Score(record, metric, teacher if headline else None, seeds if several else None))
    return scores
