"""One training outside a matrix: the data and the student in two folders."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd import hub, methods
from dskd.data.hub_rows import parse_hub_data
from dskd.data.options import DEFAULT, DataOptions
from dskd.data.reading import is_pipe, source_digest, spooled
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template
from harness.config.served import ServedSource
from harness.config.settings import Evaluation, TeacherCaches
from harness.planning.checks import check_chat, check_pair, check_templates
from harness.planning.expand import cache_step, reference_step
from harness.planning.plan import Plan, decide
from harness.planning.served import served_model
from harness.planning.single_learning import Learning, flag_of, read_learning
from harness.planning.written import responses_step, written_by
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes
from harness.runs.records import RecordCell
from harness.runs.store import Store, require_writable
from harness.steps.base import ModelInput
from harness.steps.base_model import model_in_folder
from harness.steps.data import FileExamples, PreparedData, RowExamples, said
from harness.steps.hub_data import hub_examples
from harness.steps.served_model import ServedModel
from harness.steps.text_mixture import TextMixture, Written
from harness.steps.training import Train, find_launch

_FOLDER = "train"
_INPUTS = Path(".harness") / "input"


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
    text: Any = None,
    allow_code_execution: bool = False,
    served: Mapping[str, Any] = {},
    teacher_cache: Mapping[str, Any] = {},
) -> Plan:
    """The plan of one training into `output`; `teacher_outputs`, `launch` and `template` are as in a matrix, but live by default.

    `data` is a path, a pipe, or a name on the hub (`dskd.data.hub_rows.parse_hub_data`), `data_options` how its rows are read.
    `served` are the keys of a teacher behind an address (`harness.config.served.ServedSource`); `teacher` is its head then.
    `teacher_cache` says what computes a cache, and `text` who writes what is trained on, as in a matrix.
    InputError for what is wrong with any option, and where `output` holds something else already, unless `overwrite`.
    """
    behind = _served(teacher, served)
    learning = read_learning(
        method,
        method_options,
        training,
        teacher_outputs,
        text,
        has_teacher=teacher is not None,
        served=behind is not None,
    )
    chosen, options, outputs = learning.method, learning.options, learning.outputs
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
        **_inputs(
            author,
            learner,
            examples,
            limit,
            learning,
            TeacherCaches.model_validate(dict(teacher_cache)),
            allow_code_execution=allow_code_execution,
        ),
        method=learning.name,
        method_options=chosen.options.model_dump(mode="json"),
        method_code=methods.own_code(learning.name),
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
        lambda _, key: f"harness train: {flag_of(key)}",
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
    check_pair(author, learner, [method], flag_of)
    check_templates(author, learner, lambda _: "--template")
    for model in (author, learner):
        check_chat(model, "--template")
    return author, learner


def _inputs(
    teacher: ModelInput,
    student: ModelInput,
    examples: RowExamples,
    limit: int | None,
    learning: Learning,
    caches: TeacherCaches,
    *,
    allow_code_execution: bool,
) -> dict[str, Any]:
    """The training set, in the tokens of both models or as the teacher's responses in the student's; and the teacher cache."""
    method, options, outputs = learning.method, learning.options, learning.outputs
    written = _written(teacher, examples, limit, learning, allow_code_execution=allow_code_execution)
    source: dict[str, Any] = {"examples": examples, "limit": limit} if written is None else {"examples": written}
    whole = partial(PreparedData, max_length=options.max_length, **source)
    own, others = student.tokenizer_input, teacher.tokenizer_input
    if method.requires.response_source == "teacher":
        data = whole(title=f"{written.title if written else ''} for student", student_tokenizer=own)
    else:
        data = whole(title="data for student and teacher", student_tokenizer=own, teacher_tokenizer=others)
    if outputs.is_live:
        return {"data": data}
    read = whole(title="data for teacher", student_tokenizer=others)
    return {"data": data, "cache": cache_step(teacher, read, outputs.options, options, caches)}


def _written(
    teacher: ModelInput, examples: RowExamples, limit: int | None, learning: Learning, *, allow_code_execution: bool
) -> Written | TextMixture | None:
    """What the student is trained on where the teacher writes some of it before the training."""
    if learning.text is None or learning.text.teacher is None:
        return None
    if isinstance(teacher, ServedModel):
        raise InputError(
            f"--served: gives hidden states, and {learning.method.name} learns from responses; fix: `harness teacher responses` "
            "writes them as a training set for --method sft"
        )
    answering = Evaluation().answering
    responses = responses_step(examples, limit, teacher, learning.text.teacher, answering)
    try:
        return written_by(responses, learning.text, allow_code_execution=allow_code_execution)
    except InputError as error:
        raise InputError(f"--text teacher.{error}") from None


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
