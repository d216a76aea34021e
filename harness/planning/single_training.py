"""One training outside a matrix: the data and the student in two folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from dskd import methods
from dskd.compatibility import LIVE, check
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template
from dskd.training.options import TrainingOptions
from harness.config.explain import dotted, explain
from harness.config.matrix import Evaluation, TeacherOutputs
from harness.config.names import find_method, notice_former_names
from harness.planning.checks import check_chat, check_pair, check_templates
from harness.planning.plan import Plan, decide
from harness.runs.identity import FileHashes
from harness.runs.records import RecordCell
from harness.runs.store import Store
from harness.steps.base import ModelInput
from harness.steps.base_model import model_in_folder
from harness.steps.data import FileExamples, PreparedData
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.training import Train, find_launch

_FOLDER = "train"
# The flag of the command line that a problem is about. Every other training option is one of --set.
_FLAGS = {
    "teacher_outputs.kind": "--teacher-outputs",
    "teacher": "--teacher",
    "method": "--method",
    "pair": "--teacher and --student",
    "training": "training options",
} | {
    f"training.{name}": f"--{name.replace('_', '-')}"
    for name in ("steps", "epochs", "batch_size", "batch_tokens", "packing", "learning_rate", "max_length", "dtype")
}


def single_plan(
    *,
    teacher: Path | None,
    student: Path,
    data: Path,
    method: str,
    method_options: Mapping[str, Any],
    training: Mapping[str, Any],
    teacher_outputs: Mapping[str, Any],
    launch: Mapping[str, Any],
    template: Mapping[str, Any],
    seed: int,
    limit: int | None,
    output: Path,
    overwrite: bool = False,
) -> Plan:
    """The plan of one training into `output`.

    `teacher_outputs`, `launch` and `template` are as in a matrix, but the teacher runs live unless asked otherwise. InputError for
    what is wrong with any option, and where `output` holds something else already, unless `overwrite`.
    """
    chosen = _method(method, method_options)
    options = _training_options(training)
    if teacher is None and (chosen.requires.teacher or chosen.requires.response_source == "teacher"):
        raise InputError(f"--method {method}: needs a teacher; fix: give --teacher DIR")
    outputs = _teacher_outputs(chosen, teacher_outputs)
    for problem in check(chosen, teacher_outputs=outputs.kind, rollouts=options.rollouts, packing=options.packing):
        raise InputError(problem.text(_flag(problem.key)))
    try:
        processes, accelerate_config = find_launch(launch.get("processes"), launch.get("accelerate_config"))
    except InputError as error:
        raise InputError(f"--accelerate-config {error}") from None
    hashes = FileHashes()
    if not data.is_file():
        raise InputError(f"--data {data}: no such file; fix: correct the path")
    examples = FileExamples(name="data", file=data.resolve(), sha256=hashes.file(data))
    pair = _models(teacher, student, chosen, template, hashes)
    cell = RecordCell(
        teacher=teacher.resolve().name if teacher else "none",
        student=student.resolve().name,
        method=chosen.name,
        seed=seed,
    )
    step = Train(
        title=f"train {cell.student} by {method}",
        name=student.resolve().name,
        cell=cell,
        output_folder=_FOLDER,
        data=_data(chosen, examples, limit, options.max_length, pair),
        student=pair.student,
        teacher=pair.teacher if chosen.requires.teacher else None,
        cache=_cache(examples, limit, options, outputs, pair) if outputs.kind != LIVE else None,
        method=method,
        method_options=chosen.options.model_dump(mode="json"),
        method_code=methods.own_code(method),
        teacher_outputs=outputs.options if chosen.requires.teacher else None,
        training=options,
        seed=seed,
        processes=processes,
        accelerate_config=accelerate_config,
    )
    if not overwrite:
        _require_same(output, step)
    return Plan("train", "harness train", output, decide([step], output, "stale"), lambda _, key: _flag(key))


def _flag(key: str) -> str:
    return _FLAGS.get(key, f"--set {key.removeprefix('training.')}")


class _Pair(NamedTuple):
    teacher: ModelInput
    student: ModelInput


def _models(
    teacher: Path | None, student: Path, method: methods.Method, template: Mapping[str, Any], hashes: FileHashes
) -> _Pair:
    asked = read_template(template)
    learner = model_in_folder("student", student, hashes, "--student", template=asked)
    # A training without teacher is prepared as if the student were its own: no example is left out for another's tokenizer.
    pair = _Pair(
        model_in_folder("teacher", teacher, hashes, "--teacher", template=asked) if teacher else learner, learner
    )
    check_pair(*pair, [method], _flag)
    check_templates(*pair, lambda _: "--template")
    for model in pair:
        check_chat(model, "--template")
    return pair


def _data(
    method: methods.Method, examples: FileExamples, limit: int | None, max_length: int, pair: _Pair
) -> PreparedData:
    """The training set in the tokens of both models; for a method of the teacher's responses, these in the student's."""
    if method.requires.response_source != "teacher":
        return PreparedData(
            title="data for student and teacher",
            examples=examples,
            student_tokenizer=pair.student.tokenizer_input,
            teacher_tokenizer=pair.teacher.tokenizer_input,
            limit=limit,
            max_length=max_length,
        )
    settings = Evaluation()
    responses = TeacherResponses(
        title="responses of teacher to data",
        examples=examples,
        limit=limit,
        teacher=pair.teacher,
        max_new_tokens=method.options.max_new_tokens,
        temperature=method.options.answer_temperature,
        engine=settings.engine,
        dtype=settings.dtype,
        seed=settings.seed,
    )
    return PreparedData(
        title=f"{responses.title} for student",
        examples=responses,
        student_tokenizer=pair.student.tokenizer_input,
        max_length=max_length,
    )


def _cache(
    examples: FileExamples, limit: int | None, options: TrainingOptions, outputs: TeacherOutputs, pair: _Pair
) -> TeacherCache:
    return TeacherCache(
        title="teacher cache of teacher on data",
        teacher=pair.teacher,
        data=PreparedData(
            title="data for teacher",
            examples=examples,
            student_tokenizer=pair.teacher.tokenizer_input,
            limit=limit,
            max_length=options.max_length,
        ),
        options=outputs.options,
        dtype=options.dtype,
    )


def _require_same(output: Path, step: Train) -> None:
    earlier = Store(output).output(_FOLDER)
    earlier.require_ours()
    manifest = earlier.manifest
    if manifest is not None and manifest.identity.hash != step.fingerprint.hash:
        raise InputError(f"--output {output}: holds another training; fix: give another folder, or --overwrite")


def read_template(given: Mapping[str, Any]) -> Template | None:
    """The template of `--template` and `--system`."""
    if "system" in given and given.get("kind") != "chat":
        raise InputError("--system goes with --template chat; fix: add it, or leave out --system")
    return Template.model_validate(dict(given)) if given else None


def _method(name: str, given: Mapping[str, Any]) -> methods.Method:
    method = find_method(name, "--method")
    notice_former_names(method.Options, given, "--option ")
    try:
        method.Options.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(explain(error, lambda key: f"--option {dotted(key)}", method.Options)) from None
    return method(dict(given))


def _training_options(given: Mapping[str, Any]) -> TrainingOptions:
    notice_former_names(TrainingOptions, given, "--set ")
    try:
        return TrainingOptions.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(explain(error, lambda key: _flag(dotted(("training", *key))), TrainingOptions)) from None


def _teacher_outputs(method: methods.Method, given: Mapping[str, Any]) -> TeacherOutputs:
    """What the student learns from; top-k probabilities are kept at the method's temperature."""
    settings = {"kind": LIVE, **given}
    kind = settings["kind"]
    if kind == LIVE or not method.requires.teacher:
        if len(settings) > 1:
            raise InputError(
                "--cache-dtype and --top-k belong to a teacher cache; fix: add --teacher-outputs hidden_states or top_k"
            )
        return TeacherOutputs(kind="live")
    if kind == "top_k":
        settings["temperature"] = getattr(method.options, "temperature", 1.0)
    elif "k" in settings:
        raise InputError("--top-k: belongs to --teacher-outputs top_k; fix: leave it out")
    return TeacherOutputs.model_validate(settings)
