"""From folders to what a training run holds in memory, with every mismatch told before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dskd.compatibility import LIVE, Problem, check, require
from dskd.data.batch_sampler import supports_packing
from dskd.data.preparation import preparation_report
from dskd.errors import InputError
from dskd.methods.base import Method
from dskd.modeling.lm_head import check_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.modeling.lora import add_adapter
from dskd.rollouts.rollouts import Rollouts, Side
from dskd.rollouts.sampler import Sampler, TransformersSampler
from dskd.rollouts.teacher_mixed_sampler import TeacherMixedSampler
from dskd.teachers.outputs import CachedHiddenStates, CachedTopK, LiveTeacher, TeacherSignal, attach, open_signal
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training.options import TrainingOptions
from dskd.training.trainer import Distiller


def load_run(
    data: Path,
    student: Path,
    teacher: Path | None,
    method: Method,
    options: TrainingOptions,
    *,
    signal: Path | None,
    seed: int,
    device: Any,
) -> tuple[Any, Any, Distiller, Rollouts | None]:
    """(dataset, student tokenizer, distiller on `device`, rollouts) of a prepared dataset and model folders.

    The student keeps float32 weights whatever options.dtype, because Adam's small steps are lost in bfloat16 ones. With a cached
    `signal` the teacher's weights are not loaded. Raises InputError for folders that cannot be used, data prepared for other
    tokenizers, examples longer than a model's context, and vocabularies or signals that the method cannot take.
    """
    import datasets

    cached = None if signal is None or teacher is None else open_signal(signal, device)
    suits = _rules(method, options, cached, teacher)
    require(suits())
    report = preparation_report(data)
    dataset = datasets.load_from_disk(str(data))
    tokenizer = load_tokenizer(student)
    student_model = load_model(student).to(device)
    student_vocabulary = _vocabulary(student, tokenizer, student_model, report, "student")
    reader = teacher_model = None  # the teacher as it reads text, and its model, where it runs
    given: TeacherSignal | None = cached
    shared = None
    if teacher is not None:
        if report["teacher_vocabulary"] is None:
            raise InputError(f"{data}: prepared without a teacher; fix: prepare it with teacher {teacher}")
        if cached is None:
            teacher_model = model = load_model(teacher, options.dtype).to(device)
            teacher_tokenizer = load_tokenizer(teacher)
            teacher_vocabulary = _vocabulary(teacher, teacher_tokenizer, model, report, "teacher")
            reader = Side(teacher_tokenizer, Vocabulary.from_tokenizer(teacher_tokenizer), _positions(model))
            given = LiveTeacher(model, teacher_vocabulary.size, statistics=method.teacher_statistics)
            if options.packing:
                _require_packing(teacher, model)
        else:
            if cached.vocabulary != report["teacher_vocabulary"]:
                raise InputError(f"{signal}: of a teacher with another tokenizer; fix: build the signal of {teacher}")
            assert signal is not None
            dataset = attach(dataset, signal)
            whole = _known(teacher, load_tokenizer(teacher), report, "teacher")
            teacher_vocabulary = whole.within(cached.size, str(teacher))
        shared = share_vocabulary(teacher_vocabulary, student_vocabulary)
        require(
            suits(
                same_vocabulary=shared.same,
                shared_tokens=sum(teacher_vocabulary.tokens[k] is not None for k in shared.teacher_ids.tolist()),
                pair=f"{teacher} ({teacher_vocabulary.size} tokens) and {student} ({student_vocabulary.size} tokens)",
            )
        )
    if options.packing:
        _require_packing(student, student_model)
    if options.lora is not None:
        student_model = add_adapter(student_model, options.lora, seed)
    if options.torch_compile:
        student_model.base_model.compile(dynamic=True)
    distiller = Distiller(
        student_model,
        method,
        student_size=student_vocabulary.size,
        signal=given,
        shared=shared,
        fused=options.chunked_loss,
        chunk_tokens=options.chunk_tokens,
    )
    if options.rollouts is None:
        return dataset, tokenizer, distiller, None
    assert reader is not None
    assert shared is not None
    positions = _positions(student_model)
    longest = max(dataset["student_prompt_length"])
    if positions is not None and longest + options.rollouts.max_new_tokens > positions:
        raise InputError(
            f"{student}: the model has {positions} positions, but the longest prompt {longest} tokens; "
            f"fix: set rollouts.max_new_tokens to {max(positions - longest, 1)} or less, or leave out long prompts"
        )
    sampled: Any = student_model, student_vocabulary, tokenizer.eos_token_id
    draws: Any = {"temperature": options.rollouts.temperature, "top_p": options.rollouts.top_p}
    sampler: Sampler
    if method.teacher_mix:
        sampler = TeacherMixedSampler(*sampled, teacher=teacher_model, teacher_mix=method.teacher_mix, **draws)
    elif options.rollouts.engine == "vllm":
        from dskd.rollouts.vllm_sampler import VllmSampler

        sampler = VllmSampler(
            *sampled,
            length=longest + options.rollouts.max_new_tokens,
            dtype=options.dtype,
            gpu_memory_utilization=options.rollouts.gpu_memory_utilization,
            **draws,
        )
    else:
        sampler = TransformersSampler(*sampled, **draws)
    rollouts = Rollouts(
        options.rollouts,
        sampler,
        Side(tokenizer, Vocabulary.from_tokenizer(tokenizer), positions),
        reader,
        same_vocabulary=shared.same,
        seed=seed,
        keeps_data=method.keeps_data,
    )
    return dataset.add_column("example", range(len(dataset))), tokenizer, distiller, rollouts


def _positions(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _require_packing(folder: Path, model: Any) -> None:
    if not supports_packing(model):
        raise InputError(
            f"{folder}: this model sees from one packed example into another; fix: train with packing: false, or on "
            "attention that is told where examples begin (sdpa)"
        )


def _rules(
    method: Method, options: TrainingOptions, outputs: CachedHiddenStates | CachedTopK | None, teacher: Path | None
) -> Callable[..., list[Problem]]:
    """`check` with everything but the vocabularies filled in."""
    return partial(
        check,
        method,
        teacher_outputs=LIVE if outputs is None else outputs.options.kind,
        top_k_temperature=outputs.temperature if isinstance(outputs, CachedTopK) else None,
        rollouts=options.rollouts,
        packing=options.packing,
        has_teacher=teacher is not None,
    )


def _known(folder: Path, tokenizer: Any, report: dict[str, Any], side: str) -> Vocabulary:
    """The vocabulary of a folder; InputError where the data was prepared with another."""
    whole = Vocabulary.from_tokenizer(tokenizer)
    if whole.fingerprint != report[f"{side}_vocabulary"]:
        raise InputError(
            f"{folder}: the data was prepared for another {side} tokenizer; fix: prepare it with this folder"
        )
    return whole


def _vocabulary(folder: Path, tokenizer: Any, model: Any, report: dict[str, Any], side: str) -> Vocabulary:
    whole = _known(folder, tokenizer, report, side)
    positions = _positions(model)
    longest = report[f"longest_{side}"]
    if positions is not None and longest > positions:
        raise InputError(
            f"{folder}: the model has {positions} positions, but the data examples of {longest} tokens; "
            f"fix: prepare it with max_length {positions}"
        )
    vocabulary = whole.within(model.get_output_embeddings().weight.shape[0], str(folder))
    check_head(model, vocabulary.size)
    return vocabulary
