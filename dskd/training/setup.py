"""From folders to what a training run holds in memory, with every mismatch told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from dskd.training.trainer import Distiller

if TYPE_CHECKING:
    from dskd.training.run import TrainingOptions


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

    report = preparation_report(data)
    dataset = datasets.load_from_disk(str(data))
    tokenizer = load_tokenizer(student)
    student_model = load_model(student).to(device)
    student_vocabulary = _vocabulary(student, tokenizer, student_model, report, "student")
    reader = teacher_model = None  # the teacher as it reads text, and its model, where it runs
    given: TeacherSignal | None = None
    shared = None
    if teacher is not None:
        if report["teacher_vocabulary"] is None:
            raise InputError(f"{data}: prepared without a teacher; fix: prepare it with teacher {teacher}")
        if method.teacher_statistics:
            _require_whole_batches(method, signal, packing=options.packing)
        if signal is None:
            teacher_model = model = load_model(teacher, options.dtype).to(device)
            teacher_tokenizer = load_tokenizer(teacher)
            teacher_vocabulary = _vocabulary(teacher, teacher_tokenizer, model, report, "teacher")
            reader = Side(teacher_tokenizer, Vocabulary.from_tokenizer(teacher_tokenizer), _positions(model))
            given = LiveTeacher(model, teacher_vocabulary.size, statistics=method.teacher_statistics)
            if options.packing:
                _require_packing(teacher, model)
        else:
            given = open_signal(signal, device)
            _require_use(method, given, signal)
            if given.vocabulary != report["teacher_vocabulary"]:
                raise InputError(f"{signal}: of a teacher with another tokenizer; fix: build the signal of {teacher}")
            dataset = attach(dataset, signal)
            whole = _known(teacher, load_tokenizer(teacher), report, "teacher")
            teacher_vocabulary = whole.within(given.size, str(teacher))
        shared = share_vocabulary(teacher_vocabulary, student_vocabulary)
        if method.vocabulary == "same" and not shared.same:
            raise InputError(
                f"{method.name}: needs one vocabulary, but {teacher} has {teacher_vocabulary.size} tokens and {student} "
                f"{student_vocabulary.size}, not the same; fix: use a method for two vocabularies, such as dskd-v2-eta"
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
        fused=options.fused_loss,
        chunk_tokens=options.chunk_tokens,
    )
    if options.rollouts is None:
        return dataset, tokenizer, distiller, None
    assert reader is not None
    assert shared is not None
    if method.pairing == "string":
        raise InputError(
            f"{method.name}: string_alignment of upstream_parity knows no rollouts; fix: leave one of the two out"
        )
    positions = _positions(student_model)
    longest = max(dataset["student_prompt_length"])
    if positions is not None and longest + options.rollouts.max_new_tokens > positions:
        raise InputError(
            f"{student}: the model has {positions} positions, but the longest prompt {longest} tokens; "
            f"fix: set rollouts.max_new_tokens to {max(positions - longest, 1)} or less, or leave out long prompts"
        )
    sampled = (student_model, student_vocabulary, tokenizer.eos_token_id, options.rollouts)
    sampler: Sampler
    if method.teacher_mix:
        sampler = TeacherMixedSampler(student_model, teacher_model, *sampled[1:], method.teacher_mix)
    elif options.rollouts.engine == "vllm":
        from dskd.rollouts.vllm_sampler import VllmSampler

        sampler = VllmSampler(*sampled, length=longest + options.rollouts.max_new_tokens, dtype=options.dtype)
    else:
        sampler = TransformersSampler(*sampled)
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


def _require_whole_batches(method: Method, signal: Path | None, *, packing: bool) -> None:
    if signal is not None:
        raise InputError(
            f"{signal}: keeps labelled tokens alone, but upstream_parity of {method.name} takes prompt and padding in; "
            "fix: teacher_signal: {kind: live}, or leave upstream_parity out"
        )
    if packing:
        raise InputError(
            f"packing: packed rows have not the padding that upstream_parity of {method.name} takes in; fix: packing: false"
        )


def _require_use(method: Method, signal: CachedHiddenStates | CachedTopK, folder: Path) -> None:
    if signal.options.kind not in method.signals:
        raise InputError(
            f"{folder}: holds a {signal.options.kind} signal, from which {method.name} cannot learn; "
            f"fix: build one of {method.signals[0]}"
        )
    if isinstance(signal, CachedTopK) and signal.temperature != method.options.temperature:
        raise InputError(
            f"{folder}: holds probabilities at temperature {signal.temperature:g}, but {method.name} has temperature "
            f"{method.options.temperature:g}; fix: build the signal at that temperature"
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
