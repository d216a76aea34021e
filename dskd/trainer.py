"""The training loop: transformers.Trainer with a distillation loss, a teacher, and projectors beside the student."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Trainer

from dskd.data import IGNORED
from dskd.heads import Head, final_hidden_states, output_head
from dskd.methods.base import LabelledTokens, Method
from dskd.vocabulary import SharedVocabulary

# In a folder of its own: vLLM takes every *.safetensors beside a model's weights for a part of them.
PROJECTORS = Path("projectors") / "projectors.safetensors"


class Distiller(nn.Module):
    """A student with what its method trains beside it. Its forward is the method's loss, so gradients of both are synchronised.

    The teacher is not part of it: it is frozen, gives hidden states before the step (`look_up`), and is neither saved nor wrapped.
    """

    def __init__(
        self,
        student: Any,  # a transformers causal model
        method: Method,
        *,
        student_size: int,
        teacher: Any = None,
        teacher_size: int = 0,
        shared: SharedVocabulary | None = None,
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.method = method
        self._student_size = student_size
        self._teacher: tuple[Any, ...] = ()
        self.teacher_head: Head | None = None
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            self._teacher = (teacher,)  # in a tuple, so that it is no submodule
            self.teacher_head = output_head(teacher, teacher_size).detach()
        self.projectors = method.prepare(self.student_head, self.teacher_head, shared)
        self.teacher_seconds = 0.0

    @property
    def student_head(self) -> Head:
        return output_head(self.student, self._student_size)

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.student.gradient_checkpointing_enable(**arguments)

    @torch.no_grad()
    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the teacher on a micro-batch and add `teacher_hidden` [teacher labelled tokens, hidden] to it."""
        if not self._teacher:
            return batch
        start = time.perf_counter()
        hidden = final_hidden_states(
            self._teacher[0], batch["teacher_input_ids"], batch["teacher_attention_mask"], batch["teacher_position_ids"]
        )
        labelled = hidden[batch["teacher_labels"] != IGNORED]
        if labelled.is_cuda:
            torch.cuda.synchronize()
        self.teacher_seconds += time.perf_counter() - start
        return {**batch, "teacher_hidden": labelled}

    def _tokens(self, batch: dict[str, Tensor], student_hidden: Tensor) -> LabelledTokens:
        teacher_labels = batch.get("teacher_labels")
        return LabelledTokens(
            student_head=self.student_head,
            student_hidden=student_hidden,
            student_labels=batch["student_labels"][batch["student_labels"] != IGNORED],
            teacher_head=self.teacher_head,
            teacher_hidden=batch.get("teacher_hidden"),
            teacher_labels=teacher_labels[teacher_labels != IGNORED] if teacher_labels is not None else None,
            teacher_pairs=batch.get("teacher_pairs"),
            student_pairs=batch.get("student_pairs"),
        )

    def counts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The counts of a micro-batch's terms. They depend on the teacher, the projectors and the student's head alone."""
        labelled = int((batch["student_labels"] != IGNORED).sum())
        return self.method.counts(
            self._tokens(batch, self.student_head.weight.new_zeros(labelled, self.student_head.weight.shape[1]))
        )

    def forward(
        self, batch: dict[str, Tensor], totals: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """(loss, {term: (sum, total count)}); `totals` are the counts of the whole step, by default those of this batch."""
        hidden = final_hidden_states(
            self.student, batch["student_input_ids"], batch["student_attention_mask"], batch["student_position_ids"]
        )
        terms = self.method.terms(self._tokens(batch, hidden[batch["student_labels"] != IGNORED]))
        if totals is None:
            totals = {name: term.count for name, term in terms.items()}
        # A count of zero (no aligned token in the whole step) belongs to a sum of zero.
        means = {name: term.sum / totals[name].clamp_min(1.0) for name, term in terms.items()}
        loss = self.method.objective(means)
        return loss, {name: (term.sum.detach(), totals[name]) for name, term in terms.items()}


class DistillationTrainer(Trainer):
    """Trains a `Distiller`; saves its student as an ordinary model folder with its tokenizer, projectors beside it."""

    model: Distiller

    def __init__(self, model: Distiller, *arguments: Any, projector_learning_rate: float, **options: Any) -> None:
        super().__init__(model, *arguments, **options)
        self.projector_learning_rate = projector_learning_rate
        # The loss is normalised over the whole step; the trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        self._sums: dict[str, list[Tensor]] = {}
        self.tokens_seen = 0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """All micro-batches of an optimizer step with the teacher's hidden states, and the counts of the whole step."""
        batches: list[dict[str, Tensor]] = []
        for _, batch in zip(range(num_batches), epoch_iterator, strict=False):
            batches.append(self._prepare_inputs(batch))
        distiller: Distiller = self.accelerator.unwrap_model(self.model)
        distiller.method.begin_step(distiller.student_head)
        batches = [distiller.look_up(batch) for batch in batches]
        self.tokens_seen += sum(int(batch["student_attention_mask"].sum()) for batch in batches)
        if len(batches) == 1 and self.accelerator.num_processes == 1:
            return batches, None  # the forward itself counts
        with self.accelerator.autocast():  # as in the forward, so that both see the same predictions
            counts = [distiller.counts(batch) for batch in batches]
        totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]} if counts else {}
        return batches, {name: self.accelerator.reduce(total, "sum") for name, total in totals.items()}

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, terms = model(inputs, num_items_in_batch)
        for name, (total, count) in terms.items():
            kept = self._sums.setdefault(name, [torch.zeros_like(total), torch.zeros_like(count)])
            kept[0] += total
            # The step's count comes with each of its micro-batches; each adds its share, so that the sum is the count.
            kept[1] += count / (self.current_gradient_accumulation_steps if num_items_in_batch else 1)
        loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, counts are of all of them
        return (loss, terms) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        # transformers divides by the accumulation steps unless it is handed a count; a step of one batch has none to hand on.
        if num_items_in_batch is None:
            assert self.current_gradient_accumulation_steps == 1
        return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} at step {self.state.global_step}; lower the learning rate or clip gradients"
            )
        if "loss" in logs:
            logs = {**logs, **self.pop_means()}
        super().log(logs, start_time)

    def pop_means(self) -> dict[str, float]:
        """The mean of each term since it was last asked for."""
        means = {}
        for name, (total, count) in self._sums.items():
            # Counts are of all processes already, sums of this one.
            means[name] = float(self.accelerator.reduce(total, "sum") / count.clamp_min(1.0))
        self._sums = {}
        return means

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's groups for the student; the projectors' parameters in a group of their own, without weight decay."""
        optimizer = super().create_optimizer(model)
        if self.model.projectors is None or any("projectors" in group for group in optimizer.param_groups):
            return optimizer
        own = {id(parameter) for parameter in self.model.projectors.parameters()}
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
        optimizer.add_param_group(
            {
                "params": list(self.model.projectors.parameters()),
                "lr": self.projector_learning_rate,
                "weight_decay": 0.0,
                "projectors": True,
            }
        )
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        save_student(self.model, self.processing_class, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        student = self.model.student
        dtype = next(student.parameters()).dtype
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        student.load_state_dict(saved.state_dict())
        if self.model.projectors is not None:
            self.model.projectors.load_state_dict(load_file(folder / PROJECTORS))


def save_student(distiller: Distiller, tokenizer: Any, folder: Path) -> None:
    """Write the student as a model folder with its tokenizer, and its projectors in a folder of their own inside."""
    folder.mkdir(parents=True, exist_ok=True)
    distiller.student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if distiller.projectors is not None:
        state = {name: value.detach().contiguous().cpu() for name, value in distiller.projectors.state_dict().items()}
        (folder / PROJECTORS).parent.mkdir(exist_ok=True)
        save_file(state, folder / PROJECTORS)
