"""From folders to what a training run holds in memory, with every mismatch reported before anything is trained."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from dskd.compatibility import OutputSource, Problem, RoleDifference, check, require
from dskd.data.batch_sampler import supports_packing
from dskd.data.preparation import preparation_report
from dskd.data.rows import label_spans, last_prompt_lengths
from dskd.errors import InputError
from dskd.methods.base import Method, UsesTokenizers
from dskd.modeling.causality import check_causal
from dskd.modeling.lm_head import check_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.modeling.lora import add_adapter
from dskd.modeling.saved_settings import name_end
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.rollouts import ModelText, Rollouts
from dskd.rollouts.sampler import Sampler, TransformersSampler
from dskd.rollouts.teacher_mixed_sampler import TeacherMixedSampler
from dskd.rollouts.vllm_sampler import VllmSampler
from dskd.teachers.cache_source import rows_of
from dskd.teachers.cached import CachedTeacher, CachedTopK, attach, open_teacher_cache
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import TeacherSource
from dskd.teachers.questions import question_of_row
from dskd.teachers.served import open_served_teacher
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary
from dskd.training.distiller import Distiller
from dskd.training.options import TrainingOptions

_PROBED = 4  # examples that a served teacher is asked about before the first step


@dataclass
class RunSetup:
    """What a training run holds in memory."""

    dataset: Any  # with rollouts, each example has its number as `example`
    tokenizer: Any  # the student's
    distiller: Distiller
    rollouts: Rollouts | None = None  # None where all text is the data's


@dataclass
class _Model:
    """One of the two models with its tokenizer; `model` is None for a teacher that does not run here."""

    folder: Path
    tokenizer: Any
    vocabulary: Vocabulary  # as far as the head predicts it
    model: Any = None

    def __str__(self) -> str:
        return f"{self.folder} ({self.vocabulary.size} tokens)"

    @property
    def text(self) -> ModelText:
        return ModelText(
            self.tokenizer,
            Vocabulary.from_tokenizer(self.tokenizer),
            None if self.model is None else _positions(self.model),
        )


def load_run(
    data: Path,
    student: Path,
    teacher: TeacherSource | None,
    method: Method,
    options: TrainingOptions,
    *,
    seed: int,
    device: Any,
) -> RunSetup:
    """Load a prepared dataset, the student and what is known of the teacher. Raises InputError for whatever does not go together.

    The student keeps float32 weights whatever options.dtype, because Adam's small steps are lost in bfloat16 ones.
    """
    cached = None if teacher is None or teacher.cache is None else open_teacher_cache(teacher.cache, device)
    rules = partial(
        check,
        method,
        teacher_outputs=_kind(teacher, cached),
        source=_source(teacher),
        top_k_temperature=cached.options.temperature if isinstance(cached, CachedTopK) else None,
        rollouts=options.rollouts,
        packing=options.packing,
        has_teacher=teacher is not None,
    )
    require(rules())
    report = preparation_report(data)
    dataset = datasets.load_from_disk(str(data))
    learner = _load_model(student, report, "student", "float32", device)
    name_end(learner.model, learner.tokenizer.eos_token_id)  # what it learns to end with, wherever it is used
    mentor = outputs = shared = None
    if teacher is not None:
        if report["teacher_vocabulary"] is None:
            raise InputError(f"{data}: prepared without a teacher; fix: prepare it with teacher {teacher.folder}")
        mentor, outputs = _load_teacher(teacher, cached, report, dataset, method, options, device)
        if teacher.cache is not None:
            dataset = attach(dataset, teacher.cache)
        shared = _share(mentor, learner, rules)
        if isinstance(method, UsesTokenizers):
            method.use_tokenizers(learner.tokenizer, mentor.tokenizer)
            dataset = _with_own_pairs(dataset, method) if method.requires.pairing == "own" else dataset
    _ready(learner, mentor, options, seed)
    distiller = Distiller(
        learner.model,
        method,
        student_size=learner.vocabulary.size,
        teacher=outputs,
        shared=shared,
        chunked=options.chunked_loss,
        chunk_tokens=options.chunk_tokens,
    )
    if options.rollouts is None or mentor is None or shared is None:
        return RunSetup(dataset, learner.tokenizer, distiller)
    rollouts = _rollouts(dataset, method, options, learner, mentor, same_vocabulary=shared.same, seed=seed)
    return RunSetup(dataset.add_column("example", range(len(dataset))), learner.tokenizer, distiller, rollouts)


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
) -> tuple[_Model, Teacher]:
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
        return _Model(source.folder, tokenizer, served.vocabulary), served
    if cached is not None and source.cache is not None:
        if cached.vocabulary != report["teacher_vocabulary"]:
            raise InputError(
                f"{source.cache}: of a teacher with another tokenizer; fix: build the cache of {source.folder}"
            )
        tokenizer, whole = _tokenizer(source.tokenizer_folder, report, "teacher")
        return _Model(source.folder, tokenizer, whole.truncate_to_head(cached.size, str(source.folder))), cached
    mentor = _load_model(source.folder, report, "teacher", options.dtype, device)
    return mentor, LiveTeacher(mentor.model, mentor.vocabulary.size, padded_hidden=method.requires.padded_hidden)


def _ready(student: _Model, teacher: _Model | None, options: TrainingOptions, seed: int) -> None:
    """Check that the models can read packed rows, and give the student its adapter and compiled layers."""
    for loaded in filter(None, (student, teacher)):
        if options.packing and loaded.model is not None and not supports_packing(loaded.model):
            raise InputError(
                f"{loaded.folder}: this model sees from one packed example into another; fix: train with packing: false, or on "
                "attention that is told where examples begin (sdpa)"
            )
    if options.lora is not None:
        student.model = add_adapter(student.model, options.lora, seed)
    if options.torch_compile:
        student.model.base_model.compile(dynamic=True)


def _rollouts(
    dataset: Any, method: Method, options: TrainingOptions, student: _Model, teacher: _Model, **settings: Any
) -> Rollouts:
    """What puts sampled responses in the place of examples. Raises InputError where the model has no room for a response."""
    assert options.rollouts is not None
    new, positions = options.rollouts.max_new_tokens, _positions(student.model)
    longest = int(last_prompt_lengths(dataset, "student").max())
    if positions is not None and longest + new > positions:
        raise InputError(
            f"{student.folder}: the model has {positions} positions, but the longest prompt {longest} tokens; "
            f"fix: set rollouts.max_new_tokens to {max(positions - longest, 1)} or less, or leave out long prompts"
        )
    return Rollouts(
        options.rollouts,
        _sampler(method, options.rollouts, student, teacher, longest + new, options.dtype),
        student.text,
        teacher.text,
        mix_in_offpolicy=method.requires.mix_in_offpolicy,
        **settings,
    )


def _share(teacher: _Model, student: _Model, rules: Callable[..., list[Problem]]) -> SharedVocabulary:
    """What the vocabularies have in common. Raises InputError where that does not suit the method."""
    shared = share_vocabulary(teacher.vocabulary, student.vocabulary)
    both = sum(teacher.vocabulary.tokens[k] is not None for k in shared.teacher_ids.tolist())
    roles = _role_difference(teacher, student)
    require(rules(same_vocabulary=shared.same, shared_tokens=both, roles=roles, pair=f"{teacher} and {student}"))
    return shared


def _role_difference(teacher: _Model, student: _Model) -> RoleDifference | None:
    """The tokens by which two models with one vocabulary end or begin a text, where they differ."""
    first, second = teacher.vocabulary, student.vocabulary
    if first.tokens != second.tokens or first.special_token_text != second.special_token_text:
        return None
    return RoleDifference.between(
        *(
            {role: (tokenizer.convert_ids_to_tokens(k), k) for role, k in vocabulary.special_roles.items()}
            for tokenizer, vocabulary in ((teacher.tokenizer, first), (student.tokenizer, second))
        )
    )


def _load_model(folder: Path, report: dict[str, Any], side: str, dtype: str, device: Any) -> _Model:
    """A model that runs. Raises InputError where the data was not prepared for it."""
    tokenizer, whole = _tokenizer(folder, report, side)
    model = load_model(folder, dtype).to(device)
    positions, longest = _positions(model), report[f"longest_{side}"]
    if positions is not None and longest > positions:
        raise InputError(
            f"{folder}: the model has {positions} positions, but the data examples of {longest} tokens; "
            f"fix: prepare it with max_length {positions}"
        )
    vocabulary = whole.truncate_to_head(model.get_output_embeddings().weight.shape[0], str(folder))
    check_head(model, vocabulary.size)
    check_causal(model, vocabulary.size)
    return _Model(folder, tokenizer, vocabulary, model)


def _tokenizer(folder: Path, report: dict[str, Any], side: str) -> tuple[Any, Vocabulary]:
    """A folder's tokenizer and vocabulary; InputError where the data was prepared with another."""
    tokenizer = load_tokenizer(folder)
    whole = Vocabulary.from_tokenizer(tokenizer)
    if whole.fingerprint != report[f"{side}_vocabulary"]:
        raise InputError(
            f"{folder}: the data was prepared for another {side} tokenizer; fix: prepare it with this folder"
        )
    return tokenizer, whole


def _positions(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _with_own_pairs(dataset: Any, method: UsesTokenizers) -> Any:
    """The dataset with the pairs of labels that the method finds, in place of those on the same bytes."""
    # Python's lists would be ten times as large.
    columns = {name: ([0], array("i")) for name in ("student_pairs", "teacher_pairs")}
    for row in dataset:
        spans = [label_spans(row, side) for side in ("student", "teacher")]
        before = [0, 0]
        for turn in zip(*spans, strict=True):
            labels = (row[f"{side}_ids"][a:b] for side, (a, b) in zip(("student", "teacher"), turn, strict=True))
            for k, ((_, values), pairs) in enumerate(zip(columns.values(), method.pair(*labels), strict=True)):
                values.extend(before[k] + number for number in pairs)
                before[k] += turn[k][1] - turn[k][0]
        for offsets, values in columns.values():
            offsets.append(len(values))
    dataset = dataset.remove_columns(list(columns))
    for name, (offsets, values) in columns.items():
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.asarray(values)))
        dataset = dataset.add_column(name, lists)
    return dataset


def _sampler(
    method: Method, options: RolloutOptions, student: _Model, teacher: _Model, length: int, dtype: str
) -> Sampler:
    """What samples the student's responses; `length`: the most tokens of a prompt with its response."""
    sampled: Any = student.model, student.vocabulary, student.tokenizer.eos_token_id
    draws: Any = {"temperature": options.temperature, "top_p": options.top_p}
    if share := method.requires.teacher_mix_in_alpha:
        return TeacherMixedSampler(*sampled, teacher=teacher.model, teacher_mix=share, **draws)
    if options.engine == "vllm":
        memory = options.gpu_memory_utilization
        return VllmSampler(*sampled, length=length, dtype=dtype, gpu_memory_utilization=memory, **draws)
    return TransformersSampler(*sampled, **draws)
