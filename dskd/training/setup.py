"""From folders to what a training run holds in memory, with every mismatch reported before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from dskd.compatibility import OutputSource, check, require
from dskd.data.batch_sampler import supports_packing
from dskd.data.collator import Collator
from dskd.data.preparation import preparation_report
from dskd.data.rows import last_prompt_lengths
from dskd.errors import InputError
from dskd.methods.base import Method, UsesTokenizers
from dskd.modeling.causality import check_causal
from dskd.modeling.lm_head import check_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.modeling.lora import add_adapter
from dskd.modeling.saved_settings import name_end
from dskd.rollouts.rollouts import Rollouts
from dskd.teachers.cache_source import rows_of
from dskd.teachers.cached import CachedTeacher, CachedTopK, attach, open_teacher_cache
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import TeacherSource
from dskd.teachers.questions import question_of_row
from dskd.teachers.served import open_served_teacher
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary
from dskd.training.distiller import Distiller, StudentModule
from dskd.training.loaded_model import LoadedModel
from dskd.training.options import TrainingOptions
from dskd.training.own_pairs import with_own_pairs
from dskd.training.own_teacher import as_its_own_teacher
from dskd.training.reference import ReferenceModel
from dskd.training.sampling import sampler_of, warn_of_ends
from dskd.training.shared_vocabulary import Rules, shared_vocabulary

log = logging.getLogger(__name__)

_PROBED = 4  # examples that a served teacher is asked about before the first step


@dataclass
class RunSetup:
    """What a training run holds in memory."""

    dataset: Any  # with rollouts, each example has its number as `example`
    tokenizer: Any  # the student's
    distiller: StudentModule
    packed: bool = False  # several examples in a row
    rollouts: Rollouts | None = None  # None where all text is the data's
    # What makes batches of examples, from what makes them of rows.
    collator: Callable[[Collator], Any] = lambda rows: rows


def load_run(
    data: Path,
    student: Path,
    teacher: TeacherSource | None,
    method: Method,
    options: TrainingOptions,
    *,
    seed: int,
    device: Any,
    reference: Path | None = None,
) -> RunSetup:
    """Load a prepared dataset, the student and what is known of the teacher. Raises InputError for whatever does not go together.

    The student keeps float32 weights whatever options.dtype, because Adam's small steps are lost in bfloat16 ones. `reference`: the
    folder of the reference model of a method that requires one; by default the student's, which is as it was before any training.
    """
    opened, rules = open_source(teacher, method, options, device)
    report = preparation_report(data)
    dataset = datasets.load_from_disk(str(data))
    learner = load_student(student, report, device)
    taught = None
    if teacher is not None:
        taught = load_taught(teacher, opened, rules, data, learner, method, options, device)
        dataset = taught.dataset
    elif method.requires.on_policy == "always":
        dataset = as_its_own_teacher(dataset)
    frozen = read = None
    if method.requires.reference:
        frozen = _load_model(reference or student, report, "student", options.dtype, device)
        read = ReferenceModel.of(method, frozen.model, frozen.vocabulary.size, options.chunk_tokens)
    others = [None if taught is None else taught.model, frozen]
    packed = ready(learner, [loaded for loaded in others if loaded is not None], method, options, seed)
    distiller = Distiller(
        learner.model,
        method,
        student_size=learner.vocabulary.size,
        teacher=None if taught is None else taught.outputs,
        shared=None if taught is None else taught.shared,
        chunked=options.chunked_loss,
        chunk_tokens=options.chunk_tokens,
        reference=read,
    )
    if options.rollouts is None:
        return RunSetup(dataset, learner.tokenizer, distiller, packed)
    mentor = learner if taught is None else taught.model
    prompts = last_prompt_lengths(dataset, "student")
    rollouts = Rollouts(
        options.rollouts,
        sampler_of(options.rollouts, method, learner, mentor, prompts, options),
        learner.text,
        mentor.text,
        same_vocabulary=taught is None or taught.shared.same,
        seed=seed,
        mix_in_offpolicy=method.requires.mix_in_offpolicy,
    )
    warn_of_ends(rollouts, learner, {} if taught is None else {"teacher": mentor})
    return RunSetup(dataset.add_column("example", range(len(dataset))), learner.tokenizer, distiller, packed, rollouts)


@dataclass
class Taught:
    """A teacher as a method needs it, and the examples that it teaches."""

    model: LoadedModel
    outputs: Teacher
    shared: SharedVocabulary
    dataset: Any


Load = Callable[[Path, str], Any]  # (folder, dtype) -> a model


def open_source(
    teacher: TeacherSource | None, method: Method, options: TrainingOptions, device: Any
) -> tuple[CachedTeacher | None, Rules]:
    """(the teacher's cache, what checks the method with this teacher). Raises InputError where they do not go together."""
    cached = None if teacher is None or teacher.cache is None else open_teacher_cache(teacher.cache, device)
    rules = partial(
        check,
        method,
        teacher_outputs=_kind(teacher, cached),
        source=_source(teacher),
        top_k_temperature=cached.options.temperature if isinstance(cached, CachedTopK) else None,
        rollouts=options.rollouts,
        packing=options.packing is True,
        has_teacher=teacher is not None,
    )
    require(rules())
    return cached, rules


def load_student(folder: Path, report: dict[str, Any], device: Any) -> LoadedModel:
    """The student, with float32 weights. Raises InputError where the data was not prepared for it."""
    learner = _load_model(folder, report, "student", "float32", device)
    name_end(learner.model, learner.tokenizer.eos_token_id)  # what it learns to end with, wherever it is used
    return learner


def load_taught(
    source: TeacherSource,
    cached: CachedTeacher | None,
    rules: Rules,
    data: Path,
    learner: LoadedModel,
    method: Method,
    options: TrainingOptions,
    device: Any,
    load: Load | None = None,
) -> Taught:
    """A teacher, with its data joined to what it gives. Raises InputError where it does not suit student, data or method.

    Args:
        source, cached, rules: The teacher, and what `open_source` said of it.
        data: Prepared for the student and this teacher.
        learner: The student.
        method, options, device: Of the training.
        load: What loads a model from a folder in a dtype.
    """
    report, dataset = preparation_report(data), datasets.load_from_disk(str(data))
    if report["teacher_vocabulary"] is None:
        raise InputError(f"{data}: prepared without a teacher; fix: prepare it with teacher {source.folder}")
    mentor, outputs = _load_teacher(source, cached, report, dataset, method, options, device, load)
    if source.cache is not None:
        dataset = attach(dataset, source.cache)
    shared = shared_vocabulary(mentor, learner, rules)
    if isinstance(method, UsesTokenizers):
        method.use_tokenizers(learner.tokenizer, mentor.tokenizer)
        dataset = with_own_pairs(dataset, method) if method.requires.pairing == "own" else dataset
    return Taught(mentor, outputs, shared, dataset)


def _kind(teacher: TeacherSource | None, cached: CachedTeacher | None) -> str:
    """What the teacher gives."""
    if cached is not None:
        return cached.options.kind
    return "hidden_states" if teacher is None or teacher.served is None else teacher.served.kind


def _source(teacher: TeacherSource | None) -> OutputSource:
    if teacher is None or teacher.is_live:
        return "live"
    return "cache" if teacher.cache is not None else "served"


def _load_teacher(
    source: TeacherSource,
    cached: CachedTeacher | None,
    report: dict[str, Any],
    dataset: Any,
    method: Method,
    options: TrainingOptions,
    device: Any,
    load: Load | None,
) -> tuple[LoadedModel, Teacher]:
    """(the teacher with its tokenizer, what knows its outputs). Only of a live one is the model loaded."""
    if source.served is not None:
        tokenizer, whole = _tokenizer(source.tokenizer_folder, report, "teacher")
        served = open_served_teacher(
            source,
            whole,
            tokenizer=tokenizer,
            dtype=options.dtype,
            device=device,
            embedding=method.requires.embeddings,
            longest=report["longest_teacher"],
            examples=[question_of_row(*row) for row in rows_of(dataset.take(_PROBED), "teacher")],
        )
        return LoadedModel(source.folder, tokenizer, served.vocabulary), served
    if cached is not None and source.cache is not None:
        if cached.vocabulary != report["teacher_vocabulary"]:
            raise InputError(
                f"{source.cache}: of a teacher with another tokenizer; fix: build the cache of {source.folder}"
            )
        tokenizer, whole = _tokenizer(source.tokenizer_folder, report, "teacher")
        return LoadedModel(source.folder, tokenizer, whole.truncate_to_head(cached.size, str(source.folder))), cached
    mentor = _load_model(source.folder, report, "teacher", options.dtype, device, load)
    return mentor, LiveTeacher(mentor.model, mentor.vocabulary.size, padded_hidden=method.requires.padded_hidden)


def ready(
    student: LoadedModel, teachers: Sequence[LoadedModel], method: Method, options: TrainingOptions, seed: int
) -> bool:
    """Give the student its adapter and compiled layers, and return whether examples are packed.

    Raises InputError where that was asked for and a model cannot read packed rows.
    """
    packed = bool(options.packing) and not method.requires.padded_hidden
    for loaded in (student, *teachers):
        if packed and loaded.model is not None and not supports_packing(loaded.model):
            sees = f"{loaded.folder}: this model sees from one packed example into another"
            if options.packing is True:
                raise InputError(
                    f"{sees}; fix: train with packing: auto or false, or on attention that is told where examples begin (sdpa)"
                )
            log.info("%s, so each example has a row of its own", sees)
            packed = False
    if options.lora is not None:
        student.model = add_adapter(student.model, options.lora, seed)
    if options.torch_compile:
        student.model.base_model.compile(dynamic=True)
    return packed


def _load_model(
    folder: Path,
    report: dict[str, Any],
    side: str,
    dtype: str,
    device: Any,
    load: Load | None = None,
) -> LoadedModel:
    """A model that runs. Raises InputError where the data was not prepared for it."""
    tokenizer, whole = _tokenizer(folder, report, side)
    model = (load or load_model)(folder, dtype).to(device)
    vocabulary = whole.truncate_to_head(model.get_output_embeddings().weight.shape[0], str(folder))
    loaded = LoadedModel(folder, tokenizer, vocabulary, model)
    if loaded.positions is not None and report[f"longest_{side}"] > loaded.positions:
        raise InputError(
            f"{folder}: the model has {loaded.positions} positions, but the data examples of {report[f'longest_{side}']} tokens; "
            f"fix: prepare it with max_length {loaded.positions}"
        )
    check_head(model, vocabulary.size)
    check_causal(model, vocabulary.size)
    return loaded


def _tokenizer(folder: Path, report: dict[str, Any], side: str) -> tuple[Any, Vocabulary]:
    """A folder's tokenizer and vocabulary; InputError where the data was prepared with another."""
    tokenizer = load_tokenizer(folder)
    whole = Vocabulary.from_tokenizer(tokenizer)
    if whole.fingerprint != report[f"{side}_vocabulary"]:
        raise InputError(
            f"{folder}: the data was prepared for another {side} tokenizer; fix: prepare it with this folder"
        )
    return tokenizer, whole
