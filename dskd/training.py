"""One training run from folders to a folder: what the harness calls, and what a program of one's own may call."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dskd.errors import InputError

if TYPE_CHECKING:
    from dskd.trainer import DistillationTrainer

Progress = Callable[[dict[str, Any]], None]


class TrainingOptions(BaseModel):
    """How a student is trained. Exactly one of `steps` and `epochs` is given; lengths are in tokens.

    A step is one optimizer step over batch_size × gradient_accumulation_steps examples a process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(16, gt=0)
    gradient_accumulation_steps: int = Field(1, gt=0)
    learning_rate: float = Field(5e-4, gt=0)
    projector_learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_gradient_norm: float = Field(1.0, ge=0, description="0 does not clip")
    max_length: int = Field(512, gt=1, description="longer examples are left out and counted, never cut")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: the teacher's weights and the products; the student's weights stay float32"
    )
    gradient_checkpointing: bool = False
    checkpoint_steps: int = Field(200, gt=0)
    logging_steps: int = Field(10, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> TrainingOptions:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


class TrainingReport(BaseModel):
    """What a run cost and how it ended. Seconds are of this process; a resumed run counts what came after it was resumed."""

    steps: int
    train_seconds: float
    teacher_seconds: float
    tokens: int = Field(description="student tokens trained on in this process, prompts included, padding not")
    losses: dict[str, float | None] = Field(description="mean of each term over the last logged steps")
    resumed_from_step: int


def _last_good_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; the trainer's state is the last file of one. Torn ones are removed."""
    if not folder.is_dir():
        return None
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    good = [path for path in checkpoints if (path / "trainer_state.json").is_file()]
    for path in checkpoints:
        if path not in good:
            shutil.rmtree(path)
    return good[0] if good else None


def train(
    *,
    data: Path,
    student: Path,
    teacher: Path | None = None,
    method: str = "sft",
    method_options: dict[str, Any] | None = None,
    options: TrainingOptions,
    seed: int = 0,
    output: Path,
    progress: Progress | None = None,
) -> TrainingReport:
    """Train a student on a prepared dataset and write it to output/model.

    `data` is a folder of `prepare_dataset`, made for this student and, where the method needs one, this teacher. A run that was
    killed goes on from output/checkpoints. `progress` gets {"step", "steps", "loss", …} after every logged step.
    Raises InputError for unusable input before anything is written.
    """
    import datasets
    import torch
    import transformers
    from transformers import TrainingArguments, set_seed

    from dskd import methods
    from dskd.data import Collator
    from dskd.models import load_model, load_tokenizer
    from dskd.trainer import DistillationTrainer, Distiller, save_student
    from dskd.vocabulary import Vocabulary, share_vocabulary

    chosen = methods.get(method)(method_options)
    if chosen.needs_teacher and teacher is None:
        raise InputError(f"{method}: this method needs a teacher; fix: give the teacher's model folder")
    if not chosen.needs_teacher:
        teacher = None
    if not (data / "report.json").is_file():
        raise InputError(f"{data}: no prepared dataset; fix: make it with dskd.data.prepare_dataset")
    transformers.utils.logging.disable_progress_bar()
    dataset = datasets.load_from_disk(str(data))
    tokenizer = load_tokenizer(student)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    teacher_model = shared = teacher_vocabulary = None
    if teacher is not None:
        teacher_vocabulary = Vocabulary.from_tokenizer(load_tokenizer(teacher))
        shared = share_vocabulary(teacher_vocabulary, vocabulary)
        if chosen.vocabulary == "same" and not shared.same:
            raise InputError(
                f"{method}: needs one vocabulary, but {teacher} has {teacher_vocabulary.size} tokens and {student} "
                f"{vocabulary.size}, not the same; fix: use a method for two vocabularies, such as dskd-v2-eta"
            )
        if "teacher_ids" not in dataset.column_names:
            raise InputError(f"{data}: prepared without a teacher; fix: prepare it with teacher {teacher}")
        teacher_model = load_model(teacher, options.dtype)
    set_seed(seed)
    # Adam's small steps are lost in bfloat16 weights, so the student keeps float32 ones and computes under autocast.
    student_model = load_model(student)
    student_model.config.use_cache = False
    output.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints"),
        max_steps=options.steps or -1,
        num_train_epochs=options.epochs or 1,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        use_cpu=not torch.accelerator.is_available(),
        bf16=options.dtype == "bfloat16",
        gradient_checkpointing=options.gradient_checkpointing,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_gradient_norm,
        logging_steps=options.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is not finite is an error, not a line to smooth over
        save_steps=options.checkpoint_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    device = arguments.device
    distiller = Distiller(
        student_model.to(device),
        chosen,
        student_size=vocabulary.size,
        teacher=teacher_model.to(device) if teacher_model is not None else None,
        teacher_size=teacher_vocabulary.size if teacher_vocabulary is not None else 0,
        shared=shared,
    )
    trainer = DistillationTrainer(
        model=distiller,
        args=arguments,
        train_dataset=dataset,
        data_collator=Collator(),
        processing_class=tokenizer,
        projector_learning_rate=options.projector_learning_rate,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if progress is not None:
        trainer.add_callback(_progress_callback(progress))
    checkpoint = _last_good_checkpoint(output / "checkpoints")
    resumed = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - start
    student_model.config.use_cache = True
    _finish(output, lambda folder: save_student(distiller, tokenizer, folder))
    return TrainingReport(
        steps=trainer.state.global_step,
        train_seconds=seconds,
        teacher_seconds=distiller.teacher_seconds,
        tokens=trainer.tokens_seen,
        losses=_last_losses(trainer),
        resumed_from_step=resumed,
    )


def _finish(output: Path, save: Callable[[Path], None]) -> None:
    """Put the model in place in one rename, then drop what only a resumed run would need."""
    unfinished = output / "model.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    save(unfinished)
    if (output / "model").exists():
        shutil.rmtree(output / "model")
    unfinished.rename(output / "model")
    shutil.rmtree(output / "checkpoints", ignore_errors=True)


def _last_losses(trainer: DistillationTrainer) -> dict[str, float | None]:
    skipped = {"epoch", "step", "grad_norm", "learning_rate"}
    for entry in reversed(trainer.state.log_history):
        if "loss" in entry:
            return {name: value for name, value in entry.items() if name not in skipped}
    return {}


def _progress_callback(progress: Progress) -> Any:
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress({"step": state.global_step, "steps": state.max_steps})

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                progress({"step": state.global_step, "steps": state.max_steps, **logs})

    return Report()
