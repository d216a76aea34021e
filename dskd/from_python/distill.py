"""Distillation as one call: `student, report = dskd.distill(teacher=…, student=…, dataset=…, method=…)`."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dskd import methods
from dskd.compatibility import check, check_text, missing_engine, require
from dskd.data.examples import LeftOut, write_examples
from dskd.data.options import DataOptions
from dskd.data.preparation import PreparationReport, prepare_dataset, what_is_taken
from dskd.errors import InputError
from dskd.from_python.models import Student, as_folder
from dskd.from_python.progress import Shown
from dskd.from_python.rows import as_source
from dskd.from_python.rows import data_options as as_options
from dskd.from_python.text import as_text, with_rollouts
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.prompt_templates import Template
from dskd.training.options import TrainingOptions, TrainingReport
from dskd.training.provenance import Origin, Provenance, checkout, package_versions
from dskd.training.run import train

Progress = Callable[[dict[str, Any]], None]
_SIDES = {"teacher", "student"}


class DistillationReport(BaseModel):
    """What became of the data, and what the training cost and how it ended. unusable_rows: how many, by reason."""

    data: PreparationReport
    unusable_rows: dict[str, int] = {}
    training: TrainingReport


class Distilled(NamedTuple):
    """The student and the report of `distill`."""

    student: Student
    report: DistillationReport


def distill(
    *,
    student: Any,
    dataset: Any,
    method: str,
    teacher: Any = None,
    output: str | os.PathLike[str] | None = None,
    template: Any = None,
    data_options: Mapping[str, Any] | DataOptions | None = None,
    limit: int | None = None,
    seed: int = 0,
    text: Any = None,
    method_options: Mapping[str, Any] | None = None,
    progress: bool | Progress = True,
    **options: Any,
) -> Distilled:
    """Distil a teacher into a student: the data is prepared for both, and the student is trained, as `harness train` does it.

    Objects are saved to a folder inside `output` (a temporary one without it) and loaded again, so they take memory twice: give
    large models by name or folder.

    Args:
        student, teacher: A model's folder or its name on the hub, `(model, tokenizer)`, or an object with `model` and `tokenizer`:
            also the student of an earlier call. No teacher for `sft`.
        dataset: A file or folder in any form of docs/data-sources.md, `org/name:split` on the hub, a `datasets.Dataset`, or an
            iterable of dictionaries with `prompt` and `output`, or `instruction` and `output` for models with a template.
        method: A name of `dskd.methods.METHODS`, or `path/to/file.py:Class`.
        output: A folder for this distillation alone: `output/model` will be the student. The same call again resumes one that was
            killed, and returns at once if it is done. Without it the student is in memory alone.
        template: How both models are asked: "chat", "alpaca", or a `Template`; `{"teacher": …, "student": …}` where they differ. By
            default as their folders say, which is mostly without a template.
        data_options: How its rows are read, as beside `file` in a matrix: `{"prompt": "Question: {question}", "output": "{answer}"}`.
        limit: Train on the first examples alone.
        seed: Of everything random.
        text: Who writes what the student is trained on: "data", "student", or a mixture as `{"data": 0.5, "student": 0.5}`
            (docs/text.md). By default the data, and the student as `rollouts` has it.
        method_options: Options of the method; they may also be given by name.
        progress: Whether to show it, or a function that gets the events of `dskd.train`.
        options: Training options by name (`TrainingOptions`), such as `epochs`, `batch_size`, `max_length`, `lora={"rank": 16}`, and
            options of the method. One epoch by default.

    Returns:
        The trained student, loaded on the CPU, and the report.

    Raises:
        InputError: For what cannot be used, before anything is trained.
        TrainingFailed: For a loss that is not finite, or too little memory or disk; the last checkpoint stays in `output`.
    """
    written = as_text(text, method)
    chosen, training = _options(method, method_options, with_rollouts(options, written))
    if written is not None:
        require(check_text(chosen, written))
    _check(chosen, training, has_teacher=teacher is not None)
    asked = _Asked(teacher, student, dataset, as_options(data_options), _templates(template), limit)
    with _work(output) as (folder, work), _named(work), Shown() if progress is True else nullcontext() as shown:
        inputs = _inputs(asked, training.max_length, work, shown)
        report = train(
            data=work / "data",
            student=inputs.student,
            teacher=inputs.teacher,
            method=method,
            method_options=chosen.options.model_dump(mode="json"),
            options=training,
            seed=seed,
            output=folder,
            progress=progress if callable(progress) else shown.step if shown is not None else None,
        )
        _provenance(chosen, training, seed, inputs).write(folder / "model")
        model, tokenizer = load_model(folder / "model").eval(), load_tokenizer(folder / "model")
    trained = Student(model, tokenizer, folder=None if output is None else folder / "model")
    done = DistillationReport(data=inputs.prepared, unusable_rows=inputs.unusable_rows, training=report)
    return Distilled(trained, done)


@dataclass(frozen=True)
class _Asked:
    """What is distilled, as it was given."""

    teacher: Any
    student: Any
    dataset: Any
    data_options: DataOptions
    templates: Mapping[str, Template | None]
    limit: int | None


@dataclass(frozen=True)
class _Inputs:
    """The same as folders, with the data prepared, and where each came from."""

    teacher: Path | None
    student: Path
    prepared: PreparationReport
    unusable_rows: dict[str, int]
    origins: Mapping[str, Origin]


def _inputs(asked: _Asked, max_length: int, work: Path, shown: Shown | None) -> _Inputs:
    """Make folders of models and prepare the data, in `work`."""
    if shown is not None:
        shown.stage("reading models and data")
    folders: dict[str, Path] = {}
    origins: dict[str, Origin] = {}
    for side, given in (("student", asked.student), ("teacher", asked.teacher)):
        if given is not None or side == "student":
            folders[side], origins[side] = as_folder(given, side, work, asked.templates[side])
    rows, origins["data"] = as_source(asked.dataset, work)
    if shown is not None:
        shown.stage("preparing the data")
    # As a run does it: in data of the user's own, a text that is missing is a mistake to correct.
    left_out = LeftOut(strict=origins["data"].hub is None)
    takes = what_is_taken(*map(load_tokenizer, folders.values()))
    prepared = prepare_dataset(
        write_examples(rows, work, takes, asked.data_options, limit=asked.limit, left_out=left_out),
        work / "data",
        student=folders["student"],
        teacher=folders.get("teacher"),
        max_length=max_length,
        limit=asked.limit,
        progress=shown.prepared if shown is not None else None,
    )
    return _Inputs(folders.get("teacher"), folders["student"], prepared, left_out.counts, origins)


def _options(
    method: str, method_options: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> tuple[methods.Method, TrainingOptions]:
    """The method with its options, and how to train. InputError for a name that neither has."""
    cls = methods.get(method)
    own = {name: value for name, value in options.items() if name not in TrainingOptions.model_fields}
    known = {*cls.Options.model_fields, *TrainingOptions.model_fields}
    for name in own:
        if name not in cls.Options.model_fields and not _is_former_name(cls.Options, name):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{name}: is no option of {method} or of training{hint}")
    training = {name: value for name, value in options.items() if name not in own}
    if training.get("steps") is None and training.get("epochs") is None:
        training["epochs"] = 1
    try:
        return cls({**own, **(method_options or {})}), TrainingOptions.model_validate(training)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "training options"
        raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}; fix: correct it") from None


def _is_former_name(options: type[BaseModel], name: str) -> bool:
    """Whether an option is called so in older files; its model takes that name too."""
    aliases = (field.validation_alias for field in options.model_fields.values())
    return any(name in getattr(alias, "choices", ()) for alias in aliases) or name in getattr(options, "retired", {})


def _check(method: methods.Method, training: TrainingOptions, *, has_teacher: bool) -> None:
    """InputError for what cannot work, known before anything is read."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("distill: runs in one process; fix: use dskd.train under torchrun (docs/processes.md)")
    if method.requires.response_source == "teacher":
        raise InputError(
            f"method: {method.name} learns from responses that the teacher writes first; fix: harness train "
            f"--method {method.name}, or give a dataset of such responses with method='sft'"
        )
    require(check(method, rollouts=training.rollouts, packing=training.packing is True, has_teacher=has_teacher))
    require(missing_engine(training.rollouts))


def _templates(given: Any) -> dict[str, Template | None]:
    """The template of each side."""
    apart = isinstance(given, Mapping) and set(given) <= _SIDES and bool(given)
    return {side: _template(given.get(side) if apart else given) for side in sorted(_SIDES)}


def _template(given: Any) -> Template | None:
    if given is None or isinstance(given, Template):
        return given
    try:
        return Template.model_validate({"kind": given} if isinstance(given, str) else given)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"template: {given!r}: {reason}; fix: chat, alpaca, or None") from None


@contextmanager
def _work(output: str | os.PathLike[str] | None) -> Iterator[tuple[Path, Path]]:
    """(the folder of the training, one for what it is made from, which is removed)."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="dskd-") as scratch:
            (work := Path(scratch) / "work").mkdir()
            yield Path(scratch) / "run", work
        return
    folder = Path(output)
    work = folder / ".work"
    work.mkdir(parents=True, exist_ok=True)
    for entry in work.iterdir():  # of a call that was killed; blocks that it prepared are used again
        if entry.name != ".data.parts":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    try:
        yield folder, work
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _named(work: Path) -> Iterator[None]:
    """Errors about files that were made of objects name the argument, not the file."""
    try:
        yield
    except InputError as error:
        told = str(error)
        for file, argument in (
            ("rows.jsonl", "dataset"),
            ("examples.jsonl", "dataset"),
            *zip(_SIDES, _SIDES, strict=True),
        ):
            told = told.replace(str(work / file), argument)
        if told == str(error):
            raise
        raise InputError(told) from None


def _provenance(method: methods.Method, training: TrainingOptions, seed: int, inputs: _Inputs) -> Provenance:
    commit, dirty = checkout()
    return Provenance(
        teacher=inputs.origins.get("teacher") if method.requires.teacher else None,
        student=inputs.origins["student"],
        data=inputs.origins["data"],
        examples=inputs.prepared.kept,
        method=method.name,
        method_options=method.options.model_dump(mode="json"),
        training=training.model_dump(mode="json"),
        seed=seed,
        versions=package_versions(),
        commit=commit,
        dirty=dirty,
    )
