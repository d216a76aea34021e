"""One training outside a matrix: the data and the student in two folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dskd import hub, methods
from dskd.compatibility import LIVE, check, rules_of
from dskd.data.hub_rows import parse_hub_data
from dskd.data.options import DEFAULT, DataOptions
from dskd.data.reading import is_pipe, source_digest, spooled
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template
from dskd.training.options import TrainingOptions
from harness.config.explain import dotted, explain
from harness.config.names import find_method, notice_former_names
from harness.config.served import ServedSource
from harness.config.settings import Evaluation, TeacherCaches, TeacherOutputs
from harness.planning.checks import check_chat, check_pair, check_templates
from harness.planning.expand import cache_step, reference_step, responses_step
from harness.planning.plan import Plan, decide
from harness.planning.served import served_model
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes
from harness.runs.records import RecordCell
from harness.runs.store import Store, require_writable
from harness.steps.base import ModelInput
from harness.steps.base_model import model_in_folder
from harness.steps.data import FileExamples, PreparedData, RowExamples, said
from harness.steps.hub_data import hub_examples
from harness.steps.served_model import ServedModel
from harness.steps.training import Train, find_launch

_O = TypeVar("_O", bound=BaseModel)
_FOLDER = "train"
_INPUTS = Path(".harness") / "input"
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


_Learning = tuple[methods.Method, TrainingOptions, TeacherOutputs]


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
    data_options: DataOptions = DEFAULT,
    served: Mapping[str, Any] = {},
    teacher_cache: Mapping[str, Any] = {},
) -> Plan:
    """The plan of one training into `output`; `teacher_outputs`, `launch` and `template` are as in a matrix, but live by default.

    `data` is a path, a pipe, or a name on the hub (`dskd.data.hub_rows.parse_hub_data`), `data_options` how its rows are read.
    `served` are the keys of a teacher behind an address (`harness.config.served.ServedSource`); `teacher` is its head then.
    `teacher_cache` says what computes a cache, as in a matrix.
    InputError for what is wrong with any option, and where `output` holds something else already, unless `overwrite`.
    """
    behind = _served(teacher, served)
    learning = _learning(
        method, method_options, training, teacher_outputs, has_teacher=teacher is not None, served=behind is not None
    )
    chosen, options, outputs = learning
    processes, accelerate_config = _launch(launch)
    hashes, lock = FileHashes(), HubLock(output)
    examples = _examples(data, data_options, output, hashes, lock)
    author, learner = _models(behind or teacher, student, chosen, template, hashes, lock)
    name, author_name = called(student), called(teacher) if teacher else "none"
    step = Train(
        title=f"train {name} by {method}",
        name=name,
        cell=RecordCell(teacher=author_name, student=name, method=chosen.name, seed=seed),
        output_folder=_FOLDER,
        student=learner,
        teacher=author if chosen.requires.teacher else None,
        reference=reference_step(author) if chosen.requires.teacher and outputs.is_live else None,
        **_inputs(author, learner, examples, limit, learning, TeacherCaches.model_validate(dict(teacher_cache))),
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
    lock.write()
    return Plan(
        "train",
        "harness train",
        output,
        decide([step], output, "stale"),
        lambda _, key: f"harness train: {_flag(key)}",
        lock=lock,
    )


def _served(head: Path | None, given: Mapping[str, Any]) -> ServedSource | None:
    """What the flags say of a teacher behind an address; None without one."""
    if not given:
        return None
    if head is None:
        raise InputError("--served: needs --teacher, the folder or hub name of the model that it serves; fix: give it")
    try:
        return ServedSource.model_validate({"head": str(head), **given})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--served: {reason}") from None


def called(model: Path) -> str:
    """What a model is called by where it is: its folder's name, or that of its repository on the hub."""
    name = hub.parse(str(model))
    return model.resolve().name if name is None else name.short


def _examples(data: Path, options: DataOptions, output: Path, hashes: FileHashes, lock: HubLock) -> RowExamples:
    """The training set; what comes through a pipe is kept in the output's folder, so that the same command can resume."""
    try:
        named = parse_hub_data(str(data))
        if named is not None:
            return hub_examples("data", named, lock.resolve(named.name, "dataset"), options)
        if is_pipe(data):
            require_writable(output, str(output))
            Store(output).output(_FOLDER).require_ours()
        file = spooled(data, output / _INPUTS)
        return FileExamples(name="data", file=file.resolve(), sha256=source_digest(file, hashes.file), **said(options))
    except InputError as error:
        raise InputError(f"--data {error}") from None


def _launch(given: Mapping[str, Any]) -> tuple[int, Path | None]:
    try:
        return find_launch(**given)
    except InputError as error:
        raise InputError(f"--accelerate-config {error}") from None


def _require_same(output: Path, step: Train) -> None:
    earlier = Store(output).output(_FOLDER)
    earlier.require_ours()
    if earlier.manifest is not None and earlier.manifest.identity.hash != step.fingerprint.hash:
        raise InputError(f"--output {output}: holds another training; fix: give another folder, or --overwrite")


def _flag(key: str) -> str:
    return _FLAGS.get(key, f"--set {key.removeprefix('training.')}")


def _models(
    teacher: Path | ServedSource | None,
    student: Path,
    method: methods.Method,
    template: Mapping[str, Any],
    hashes: FileHashes,
    lock: HubLock,
) -> tuple[ModelInput, ModelInput]:
    asked = read_template(template)

    def find(role: str, folder: Path) -> ModelInput:
        return model_in_folder(role, hub.parse(str(folder)) or folder, hashes, f"--{role}", asked, lock=lock)

    learner = find("student", student)
    # A training without teacher is prepared as if the student were its own: no example is left out for another's tokenizer.
    author: ModelInput = learner
    if isinstance(teacher, ServedSource):
        source = teacher.model_copy(update={"template": asked})
        author = served_model("teacher", source, hashes, lock, lambda _: "--teacher")
    elif teacher is not None:
        author = find("teacher", teacher)
    check_pair(author, learner, [method], _flag)
    check_templates(author, learner, lambda _: "--template")
    for model in (author, learner):
        check_chat(model, "--template")
    return author, learner


def _inputs(
    teacher: ModelInput,
    student: ModelInput,
    examples: RowExamples,
    limit: int | None,
    learning: _Learning,
    caches: TeacherCaches,
) -> dict[str, Any]:
    """The training set, in the tokens of both models or as the teacher's responses in the student's; and the teacher cache."""
    method, options, outputs = learning
    prepared = partial(PreparedData, max_length=options.max_length)
    whole = partial(prepared, examples=examples, limit=limit)
    own, others = student.tokenizer_input, teacher.tokenizer_input
    if method.requires.response_source == "teacher":
        if isinstance(teacher, ServedModel):
            raise InputError(
                f"--served: gives hidden states, and {method.name} learns from responses; fix: `harness teacher responses` writes "
                "them as a training set for --method sft"
            )
        answering = Evaluation().answering
        responses = responses_step(examples, limit, teacher, method.options, answering)
        data = prepared(title=f"{responses.title} for student", examples=responses, student_tokenizer=own)
    else:
        data = whole(title="data for student and teacher", student_tokenizer=own, teacher_tokenizer=others)
    if outputs.is_live:
        return {"data": data}
    read = whole(title="data for teacher", student_tokenizer=others)
    return {"data": data, "cache": cache_step(teacher, read, outputs.options, options, caches)}


def read_template(given: Mapping[str, Any]) -> Template | None:
    """The template of `--template` and the flags that go with it."""
    flags = {"system": "--system", "arguments": "--template-argument", "reasoning": "--reasoning"}
    for key, flag in flags.items():
        if key in given and given.get("kind") != "chat":
            raise InputError(f"{flag} goes with --template chat; fix: add it, or leave out {flag}")
    try:
        return Template.model_validate(dict(given)) if given else None
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--template-argument: {reason.removeprefix('arguments: ')}; fix: leave it out") from None


def _learning(
    name: str,
    method_options: Mapping[str, Any],
    training: Mapping[str, Any],
    teacher_outputs: Mapping[str, Any],
    *,
    has_teacher: bool,
    served: bool,
) -> _Learning:
    """The method, how it is trained, and what the student learns from, which go together."""
    learned = find_method(name, "--method")
    _checked(learned.Options, method_options, lambda key: f"--option {key}", "--option ")
    method = learned(dict(method_options))
    options = _checked(
        TrainingOptions, training, lambda key: _flag(f"training.{key}") if key else "training options", "--set "
    )
    if not has_teacher and (method.requires.teacher or method.requires.response_source == "teacher"):
        raise InputError(f"--method {name}: needs a teacher; fix: give --teacher DIR")
    outputs = _teacher_outputs(method, teacher_outputs)
    known = rules_of(outputs.options, served=served) | {
        "rollouts": options.rollouts,
        "packing": options.packing is True,
    }
    for problem in check(method, **known):
        raise InputError(problem.text(_flag(problem.key)))
    return method, options, outputs


def _checked(options: type[_O], given: Mapping[str, Any], flag: Callable[[str], str], former: str) -> _O:
    """Options as they were given; `flag` says by which flag a key was, `former` what goes before a former name."""
    notice_former_names(options, given, former)
    try:
        return options.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(explain(error, lambda key: flag(dotted(key)), options)) from None


def _teacher_outputs(method: methods.Method, given: Mapping[str, Any]) -> TeacherOutputs:
    """What the student learns from; top-k probabilities are kept at the method's temperature."""
    settings = {"kind": LIVE, **given}
    if settings["kind"] == LIVE or not method.requires.teacher:
        if len(settings) > 1:
            raise InputError(
                "--cache-dtype and --top-k belong to a teacher cache; fix: add --teacher-outputs hidden_states or top_k"
            )
        return TeacherOutputs(kind="live")
    if settings["kind"] == "top_k":
        settings["temperature"] = getattr(method.options, "temperature", 1.0)
    elif "k" in settings:
        raise InputError("--top-k: belongs to --teacher-outputs top_k; fix: leave it out")
    return TeacherOutputs.model_validate(settings)
