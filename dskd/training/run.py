"""One training run from folders to a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object
from transformers import TrainerState
from transformers.integrations import get_available_reporting_integrations

from dskd import methods
from dskd.compatibility import missing_engine, require
from dskd.data.batch_sampler import EpochBatches
from dskd.data.collator import Collator
from dskd.data.preparation import preparation_report
from dskd.errors import InputError, OutOfMemory, Stopped, TrainingFailed, is_disk_full, is_out_of_memory
from dskd.options import MAX_SEED
from dskd.rollouts.replay_buffer import held_out
from dskd.teachers.options import TeacherSource
from dskd.training.checkpoint_times import CheckpointTimes, expected_seconds
from dskd.training.checkpoints import SHARE, RunFolder
from dskd.training.example_lengths import example_lengths
from dskd.training.loop_callback import LoopCallback, Progress, steps_of_share
from dskd.training.options import TrainingOptions, TrainingReport
from dskd.training.reports import report_of
from dskd.training.setup import RunSetup, load_run
from dskd.training.setup_several import checked_teachers, load_run_of_several
from dskd.training.trackers import PROJECT, Trackers
from dskd.training.trainer import DistillationTrainer, save_student

_PROCESS_GROUP = 1800  # seconds that processes wait for each other, as transformers has it


def train(
    *,
    data: Path | None = None,
    student: Path,
    teacher: Path | None = None,
    method: str = "sft",
    method_options: dict[str, Any] | None = None,
    options: TrainingOptions,
    seed: int = 0,
    output: Path,
    teacher_cache: Path | None = None,
    teacher_source: TeacherSource | None = None,
    teachers: Sequence[TeacherSource] = (),
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    reference: Path | None = None,
    tags: Mapping[str, str] | None = None,
    share: float = 1.0,
    start: Path | None = None,
) -> TrainingReport:
    """Train a student on a prepared dataset and write it to output/model.

    A run that was killed resumes from output/checkpoints; one that is done returns its report again. Started by torchrun or
    accelerate, all processes call this with the same arguments and train one student.

    Args:
        data: A folder of `prepare_dataset`, made for this student and, where the method needs one, this teacher. Not with `teachers`.
        student, teacher: Model folders with their tokenizers.
        method: A name of `dskd.methods.METHODS`, or a class from outside (`dskd.methods.get`).
        method_options: The method's options.
        options: How to train.
        seed: Of everything random.
        output: A folder for this training alone: the same method, options, seed and data. The models are not compared.
        teacher_cache: A folder of `build_teacher_cache`, whose outputs take the place of a running teacher.
        teacher_source: Where the teacher is, in place of `teacher` and `teacher_cache`; for one that is served.
        teachers: Several teachers in place of one, each with its own data (docs/several-teachers.md). With weights they all teach the
            examples that all have; without, each teaches the examples of its data.
        progress: Called with {"step", "steps", "tokens"} after every step (the student's tokens so far), and with {"step", "steps"}
            and the means of the loss and its terms when they are logged.
        stop: Asked after every step whether the training is to stop there, so it has to be quick. Of several processes any may ask.
        reference: The folder of the frozen model of a method that requires one, with the student's vocabulary; by default the method's
            option `reference`, or else the student as it is before the training.
        tags: What the run is known by in `options.trackers` (`dskd.training.trackers.open_run`); no part of what is trained.
        share: Of the steps, those that are trained now. The learning rate is that of the whole training, and checkpoints stay in
            `output`, for another training to go on from.
        start: The `output` of the same training with a smaller share, which this one goes on from. The student is that of a training
            in one go. Without checkpoints there, all steps are trained.

    Returns:
        What the run cost and how it ended.

    Raises:
        InputError: For unusable input and an output folder that holds another training, before anything is written.
        TrainingFailed: For a loss that is not finite, or too little memory or disk; the last checkpoint stays.
        Stopped: Where it was asked to stop, once a checkpoint is written; the same call goes on from there.
    """
    new_method = partial(methods.get(method), method_options)
    chosen = new_method()
    one = [data, teacher, teacher_cache, teacher_source]
    if bool(teachers) == (data is not None) or (teachers and any(each is not None for each in one)):
        raise InputError(
            "teachers: each has its own data and source; fix: give either teachers, or data and one teacher"
        )
    teachers = checked_teachers(teachers)
    require(missing_engine(options.rollouts))
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed: {seed} is not between 0 and {MAX_SEED}; fix: give a seed that is")
    folder = RunFolder(output)
    if not 0 < share <= 1:
        raise InputError(f"share: {share} is not above 0 and up to 1; fix: give a share of the steps")
    request = _request(
        chosen, options, seed, _content(teachers) if data is None else preparation_report(data)["content"]
    )
    if start is not None:
        RunFolder(start).require_same(request)
    if share < 1:
        request[SHARE] = share
    if finished := folder.finished(request):
        return TrainingReport.model_validate(finished)
    tags = dict(tags or {})
    patience = _patience([*teachers, *filter(None, [teacher_source])])
    arguments = _arguments(options, folder, seed, tags, patience=patience)
    source = teacher_source
    if source is None and teacher is not None:
        source = TeacherSource(folder=teacher, cache=teacher_cache)
    if not chosen.requires.teacher:
        source = None
    _unless_stopped(stop, arguments)
    with _hints():
        loading: Any = {"seed": seed, "device": arguments.device}
        if data is None:
            run = load_run_of_several(student, teachers, new_method, options, **loading)
        else:
            run = load_run(data, student, source, chosen, options, reference=_reference(reference, chosen), **loading)
    with nullcontext() if run.distiller.teacher is None else closing(run.distiller.teacher):
        run.dataset, validation = _held_out(run.dataset, options, data or teachers[0].data)
        if arguments.process_index == 0:
            folder.begin(request, start)
        _unless_stopped(stop, arguments)
        trainer = _trainer(run, options, arguments, validation)
        trackers = Trackers(options.trackers, output, tags)
        resumed = _train(trainer, folder, options, trackers, progress, stop, share)
        report = report_of(trainer, resumed)
        _finish(trainer, folder, report, goes_on=share < 1)
    return report


def _reference(folder: Path | None, method: methods.Method) -> Path | None:
    """The folder of the reference model; None for that of the student. InputError where there is none."""
    named = getattr(method.options, "reference", None)
    found = folder or (Path(named) if named is not None else None)
    if found is not None and method.requires.reference and not found.is_dir():
        raise InputError(
            f"methods.{method.name}.reference: no folder '{found}'; fix: correct the path, or leave it out"
        )
    return found


def _content(teachers: Sequence[TeacherSource]) -> dict[str, Any]:
    """What several teachers teach: the content of each one's data, and its weight."""
    return {
        teacher.name: [preparation_report(teacher.data)["content"], teacher.weight]
        for teacher in teachers
        if teacher.data is not None
    }


def _request(method: methods.Method, options: TrainingOptions, seed: int, content: Any) -> dict[str, Any]:
    return {
        "method": method.name,
        "method_options": method.options.identity(),
        "options": options.identity(),
        "seed": seed,
        "data": content,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),  # each adds its examples to a step
    }


def _patience(sources: Sequence[TeacherSource]) -> int:
    """Seconds that a process may wait for an answer: of the first try, of `patience`, and of a last try that began within it."""
    served = [source.served for source in sources if source.served is not None]
    return max((math.ceil(each.patience + 2 * each.timeout) for each in served), default=0)


def _arguments(
    options: TrainingOptions, folder: RunFolder, seed: int, tags: Mapping[str, str], *, patience: int = 0
) -> Any:
    """transformers' arguments. From here on every random number follows from the seed.

    `patience`: seconds that one process may wait for a teacher, while the others wait for it.
    """
    for name in options.trackers:
        if name not in get_available_reporting_integrations():
            raise InputError(f"trackers: {name} is not installed; fix: pip install {name}, or leave it out")
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(seed)
    on_cpu = not torch.accelerator.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder.checkpoints),
        max_steps=options.steps or -1,
        num_train_epochs=options.epochs or 1,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        use_cpu=on_cpu,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ and on_cpu else None,
        ddp_timeout=_PROCESS_GROUP + patience,
        ddp_find_unused_parameters=False,  # every parameter is in the loss, also where its gradient is zero
        bf16=options.dtype == "bfloat16",
        gradient_checkpointing=options.gradient_checkpointing,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_gradient_norm,
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is not finite is an error, not a line to smooth over
        save_strategy="no",  # LoopCallback decides
        seed=seed,
        data_seed=seed,
        report_to=list(options.trackers) or "none",
        run_name=tags.get("name"),
        project=tags.get("run", PROJECT),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    # One process a GPU: DataParallel would split the index tensors of a batch.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _trainer(run: RunSetup, options: TrainingOptions, arguments: Any, validation: Any) -> DistillationTrainer:
    requires = run.distiller.method.requires
    run.distiller.student.config.use_cache = False
    trainer = DistillationTrainer(
        model=run.distiller,
        args=arguments,
        train_dataset=run.dataset,
        data_collator=run.collator(Collator(packing=run.packed, by_position=requires.pairing == "position")),
        processing_class=run.tokenizer,
        projector_learning_rate=options.projector_learning_rate,
        rollouts=run.rollouts,
        validation=validation,
        split_batches=options.split_batches,
        batches=EpochBatches(
            example_lengths(run.dataset, options, keeps_data=requires.mix_in_offpolicy),
            seed=arguments.seed,
            batch_size=None if options.batch_tokens else options.batch_size,
            batch_tokens=options.batch_tokens,
            grouping=options.batching,
            rank=arguments.process_index,
            world=arguments.world_size,
            padded=options.packing is not True,
        ),
    )
    _check_processes(trainer, options)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _train(
    trainer: DistillationTrainer,
    folder: RunFolder,
    options: TrainingOptions,
    trackers: Trackers,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
    share: float,
) -> int:
    """Train to the end, or to the end of a share of the steps, from the last good checkpoint, if there is one; returns its step, or 0. Raises Stopped."""
    arguments, rollouts = trainer.args, trainer.rollouts
    with arguments.main_process_first(local=False):  # the first removes what is damaged
        checkpoint = folder.last_good_checkpoint(arguments.world_size)
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else TrainerState()
    resumed, first = state.global_step, arguments.process_index == 0
    if rollouts is not None:
        rollouts.path = folder.rollouts(arguments.process_index, resumed)
        rollouts.sampler.precision = trainer.accelerator.autocast
        rollouts.gather = gather_object
    times = CheckpointTimes(
        options.checkpoint_steps,
        options.checkpoint_seconds,
        expected=expected_seconds(_checkpoint_bytes(trainer)),
        stalled=folder.started(resumed) if first else 0,
    )
    told = progress if first else None
    loop = LoopCallback(trainer, times, progress=told, stop=stop, checkpoint=checkpoint, share=share)
    trainer.add_callback(loop)
    with _hints(), nullcontext() if rollouts is None else closing(rollouts.sampler):
        if checkpoint and state.global_step >= steps_of_share(share, state.max_steps):
            # Killed after the last step; another call would train one more.
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.loop.load(checkpoint)
            trainer.loop.begin()
            trainer.state = state
        else:
            with trackers.open(trainer, after_step=resumed):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if loop.stopped:
        raise Stopped(trainer.state.global_step)
    trainer.model.student.config.use_cache = True
    return resumed


def _unless_stopped(stop: Callable[[], bool] | None, arguments: Any) -> None:
    """Raise Stopped where one was asked for before the first step; several processes agree after a step alone."""
    if stop is not None and arguments.world_size == 1 and stop():
        raise Stopped(0)


def _checkpoint_bytes(trainer: DistillationTrainer) -> int:
    """Of a checkpoint: what is trained, with Adam's two moments."""
    return 3 * sum(each.numel() * each.element_size() for each in trainer.model.parameters() if each.requires_grad)


def _finish(trainer: DistillationTrainer, folder: RunFolder, report: TrainingReport, *, goes_on: bool) -> None:
    """Save the student with its report and the logged steps; all processes call this."""
    state = trainer.whole_state()
    if trainer.args.process_index == 0:
        with _hints():
            folder.finish(
                lambda model: save_student(trainer.model, trainer.processing_class, model, state=state, merge=True),
                report.model_dump(),
                [entry for entry in trainer.state.log_history if "loss" in entry],
                goes_on=goes_on,
            )
    trainer.accelerator.wait_for_everyone()


def _held_out(dataset: Any, options: TrainingOptions, data: Any) -> tuple[Any, Any]:
    """(examples to train on, examples to validate on or None) where the schedule of the student's text follows a loss."""
    replay = options.rollouts.replay if options.rollouts is not None else None
    if replay is None or replay.schedule != "adaptive":
        return dataset, None
    if len(dataset) < 2:
        raise InputError(f"{data}: a single example, none of which can be held out; fix: remove rollouts.replay")
    kept = held_out(len(dataset), replay.validation_share)
    rest = sorted(set(range(len(dataset))) - set(kept))
    return dataset.select(rest), dataset.select(kept)


def _check_processes(trainer: DistillationTrainer, options: TrainingOptions) -> None:
    """InputError where several processes are used in a way that the loss cannot work with."""
    plugin = trainer.accelerator.state.deepspeed_plugin
    if plugin is not None and plugin.zero_stage == 3:
        raise InputError(
            "accelerate_config: DeepSpeed ZeRO-3 releases the output head before the loss needs it; "
            "fix: use fsdp2 (dskd/accelerate_configs/fsdp2-1x8.yaml), which spreads the weights as well, or ZeRO-2"
        )
    if options.split_batches > 1 and (plugin is not None or trainer.model.method.requires.padded_hidden):
        why = "DeepSpeed counts micro-batches itself" if plugin is not None else "the method reads padding"
        raise InputError(f"split_batches: {why}; fix: lower batch_size and raise gradient_accumulation_steps")
    if options.rollouts is not None and trainer.is_fsdp_enabled:
        raise InputError(
            "rollouts: processes that write texts of different lengths cannot share weights spread by FSDP; "
            "fix: use a ddp configuration"
        )
    if trainer.model.method.requires.embeddings and trainer.is_fsdp_enabled:
        raise InputError(
            f"{trainer.model.method.name}: reads the student's embedding, of which a process holds a part alone under FSDP; "
            "fix: use a ddp configuration"
        )
    if options.lora is not None and trainer.is_fsdp_enabled:
        raise InputError("lora: an adapter cannot be merged from weights spread by FSDP; fix: use a ddp configuration")


@contextmanager
def _hints() -> Iterator[None]:
    """Turn what machines run out of into TrainingFailed with a hint; whatever else goes wrong passes as it is."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(
                "out of memory; fix: lower batch_size (raise gradient_accumulation_steps by as much) or batch_tokens, "
                "turn gradient_checkpointing on, or lower chunk_tokens of the fused loss"
            ) from error
        if is_disk_full(error):
            raise TrainingFailed(
                "the disk is full; fix: free some room or give another output folder, then run again: "
                "it goes on from the last good checkpoint"
            ) from error
        raise
