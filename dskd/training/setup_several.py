"""From folders to what a training with several teachers holds in memory."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from dskd.compatibility import check_several, require
from dskd.data.preparation import preparation_report
from dskd.errors import InputError
from dskd.methods.base import Method
from dskd.modeling.loading import load_model
from dskd.rollouts.several import SeveralRollouts, TeacherText
from dskd.teachers.options import TeacherSource, wrong_weights
from dskd.training.distiller import Distiller
from dskd.training.example_lengths import prompt_lengths
from dskd.training.options import TrainingOptions
from dskd.training.sampling import sampler_of, warn_of_ends
from dskd.training.setup import RunSetup, load_student, load_taught, open_source, ready
from dskd.training.several import SEPARATOR, SeveralDistiller, TaughtBy
from dskd.training.several_examples import SeveralCollator, SeveralDatasets, StudentCollator, matched, routed


def checked_teachers(teachers: Sequence[TeacherSource]) -> list[TeacherSource]:
    """The teachers in the order of their names. InputError where names, data or weights do not go together."""
    names = [teacher.name for teacher in teachers]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"teachers: two are called {repeated[0]!r}; fix: give each a name of its own")
    for teacher in teachers:
        if not teacher.name or SEPARATOR in teacher.name:
            raise InputError(f"teachers: {teacher.name!r} is no name; fix: give one without {SEPARATOR!r}")
        if teacher.data is None:
            raise InputError(
                f"teachers: {teacher.name} has no data; fix: give the folder that prepare_dataset made for the student and it"
            )
    weights = [teacher.weight for teacher in teachers if teacher.weight is not None]
    if weights and len(weights) < len(teachers):
        missing = next(teacher.name for teacher in teachers if teacher.weight is None)
        raise InputError(f"teachers: {missing} has no weight and others have; fix: give all a weight, or none")
    if weights and (problem := wrong_weights(weights)):
        raise InputError(f"teachers: {problem}")
    return sorted(teachers, key=lambda teacher: teacher.name)


def load_run_of_several(
    student: Path,
    teachers: Sequence[TeacherSource],
    new_method: Callable[[], Method],
    options: TrainingOptions,
    *,
    seed: int,
    device: Any,
) -> RunSetup:
    """Load the student and what is known of each teacher.

    Args:
        student: A model folder.
        teachers: From `checked_teachers`; with weights all teach the examples that all have, without each teaches its own.
        new_method: Makes the method; once for each teacher, as each has projectors of its own.
        options, seed, device: Of the training.

    Raises:
        InputError: For whatever does not go together.
    """
    method = new_method()
    require(check_several(method))
    if not method.requires.teacher:
        return _without_teachers(student, teachers, method, options, seed=seed, device=device)
    opened = {}
    for teacher in teachers:
        with _named(teacher):
            opened[teacher.name] = open_source(teacher, method, options, device)
    learner = load_student(student, _joint_report(teachers), device)
    load, taught, methods = _LoadedOnce(), {}, {}
    for teacher in teachers:
        own = methods[teacher.name] = new_method()
        with _named(teacher):
            taught[teacher.name] = load_taught(
                teacher, *opened[teacher.name], _data(teacher), learner, own, options, device, load
            )
    examples = _joined({name: own.dataset for name, own in taught.items()}, teachers)
    packed = ready(learner, [own.model for own in taught.values()], method, options, seed)
    distiller = SeveralDistiller(
        learner.model,
        {
            teacher.name: TaughtBy(
                methods[teacher.name], taught[teacher.name].outputs, taught[teacher.name].shared, teacher.weight
            )
            for teacher in teachers
        },
        student_size=learner.vocabulary.size,
        chunked=options.chunked_loss,
        chunk_tokens=options.chunk_tokens,
    )
    setup = RunSetup(examples, learner.tokenizer, distiller, packed, collator=SeveralCollator)
    if options.rollouts is not None:
        prompts = examples.largest(prompt_lengths)
        setup.rollouts = SeveralRollouts(
            options.rollouts,
            sampler_of(options.rollouts, method, learner, None, prompts, options),
            learner.text,
            {name: TeacherText(own.model.text, own.shared.same) for name, own in taught.items()},
            seed=seed,
            mix_in_offpolicy=method.requires.mix_in_offpolicy,
        )
        warn_of_ends(setup.rollouts, learner, {f"teacher {name}": own.model for name, own in taught.items()})
    return setup


def _without_teachers(
    student: Path,
    teachers: Sequence[TeacherSource],
    method: Method,
    options: TrainingOptions,
    *,
    seed: int,
    device: Any,
) -> RunSetup:
    """A training on the text of the same examples alone."""
    open_source(None, method, options, device)
    learner = load_student(student, _joint_report(teachers), device)
    examples = _joined({teacher.name: datasets.load_from_disk(str(_data(teacher))) for teacher in teachers}, teachers)
    packed = ready(learner, [], method, options, seed)
    distiller = Distiller(
        learner.model,
        method,
        student_size=learner.vocabulary.size,
        chunked=options.chunked_loss,
        chunk_tokens=options.chunk_tokens,
    )
    return RunSetup(examples, learner.tokenizer, distiller, packed, collator=StudentCollator)


def _joined(own: dict[str, Any], teachers: Sequence[TeacherSource]) -> SeveralDatasets:
    return routed(own) if teachers[0].weight is None else matched(own)


def _joint_report(teachers: Sequence[TeacherSource]) -> dict[str, Any]:
    """What the student's part of all data is like. InputError where it was prepared for several students."""
    reports = {teacher.name: preparation_report(_data(teacher)) for teacher in teachers}
    first, *others = reports.items()
    for name, report in others:
        if report["student_vocabulary"] != first[1]["student_vocabulary"]:
            raise InputError(
                f"teachers: the data of {first[0]} and of {name} were prepared for two tokenizers of a student; "
                "fix: prepare both for the one that is trained"
            )
    return {**first[1], "longest_student": max(report["longest_student"] for report in reports.values())}


def _data(teacher: TeacherSource) -> Path:
    assert teacher.data is not None
    return teacher.data


@contextmanager
def _named(teacher: TeacherSource) -> Iterator[None]:
    """Put the name of a teacher before an error about it."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"teachers.{teacher.name}: {error}") from error


class _LoadedOnce:
    """Loads a model once for all folders with the same files."""

    def __init__(self) -> None:
        self._loaded: list[tuple[Path, str, Any]] = []

    def __call__(self, folder: Path, dtype: str) -> Any:
        for other, own_dtype, model in self._loaded:
            if own_dtype == dtype and _same_model(folder, other):
                return model
        self._loaded.append((folder, dtype, load_model(folder, dtype)))
        return self._loaded[-1][-1]


def _same_model(first: Path, second: Path) -> bool:
    """Whether two folders hold the same configuration and the same weights, byte by byte."""
    if first.resolve() == second.resolve():
        return True
    patterns = ("config.json", "adapter_config.json", "*.safetensors", "*.bin")
    names = [sorted(file.name for pattern in patterns for file in folder.glob(pattern)) for folder in (first, second)]
    if names[0] != names[1] or not names[0]:
        return False
    return filecmp.cmpfiles(first, second, names[0], shallow=False)[0] == names[0]
