"""The training loop: transformers.Trainer with a distillation loss, a teacher, and projectors beside the student."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import DataLoader
from transformers import Trainer

from dskd.data.batch_sampler import EpochBatches
from dskd.errors import NotFinite
from dskd.methods.base import reads_step_statistics
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.loading import load_model
from dskd.modeling.lora import is_adapted, load_adapter, save_merged
from dskd.rollouts.guards import COUNTED
from dskd.rollouts.rollouts import Rollouts
from dskd.rollouts.text_ahead import TextAhead
from dskd.training.checkpoints import REPLAY, complete, unfinished
from dskd.training.distiller import StudentModule
from dskd.training.loop_state import LoopState
from dskd.training.read_ahead import ReadAhead
from dskd.training.split_batches import SplitCollator, parts_of, regrouped
from dskd.training.written_statistics import note_written

log = logging.getLogger(__name__)

# In a folder of its own: vLLM takes every *.safetensors beside a model's weights for a part of them.
PROJECTORS = Path("projectors") / "projectors.safetensors"


class _Batches(DataLoader[Any]):
    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class DistillationTrainer(Trainer):
    """A transformers Trainer for a `StudentModule`; saves the student as an ordinary model folder, projectors beside it.

    Args:
        model: The student with what its method trains beside it.
        batches: The batches of this process.
        projector_learning_rate: Of the projectors.
        rollouts: Replace examples of each step by on-policy samples.
        validation: The examples on which the schedule of rollouts measures the student.
        split_batches: Parts in which each micro-batch is computed.
        arguments, options: As for transformers.Trainer.
    """

    model: StudentModule

    def __init__(
        self,
        model: StudentModule,
        *arguments: Any,
        batches: EpochBatches,
        projector_learning_rate: float,
        rollouts: Rollouts | None = None,
        validation: Any = None,
        split_batches: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(model, *arguments, **options)
        self.batches = batches
        self.projector_learning_rate = projector_learning_rate
        self.rollouts = rollouts
        self.validation = validation
        self.split_batches = split_batches
        self._collate = self.data_collator if split_batches == 1 else SplitCollator(self.data_collator, split_batches)
        self._parts = 1  # of all micro-batches of the step
        # The loss is normalised over the whole step; the trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        self._read_ahead = ReadAhead()
        self.text_ahead = None if rollouts is None else TextAhead(rollouts)
        if rollouts is not None:
            rollouts.note_weights = self._note_written
        # Sums with their normalizers since the last logged step: of the loss's terms, and of metrics of this process.
        self.terms_seen: dict[str, list[Tensor]] = {}
        self.metrics_seen: dict[str, list[Tensor]] = {}
        self.tokens_seen = 0
        self.places_seen = 0  # tokens and padding
        self.loop = LoopState(self)
        self.checkpoint_seconds = 0.0  # that the last checkpoint took
        self._gradient_norm: Any = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process. The sampler divides them among processes, so accelerate must not do it again."""
        return _Batches(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.batches,
            collate_fn=self._collate if self.rollouts is None else list,  # put together when the samples are there
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _prepare_inputs(self, inputs: Any) -> Any:  # a TokenBatch, or one of several teachers
        return inputs.to(self.args.device)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # nobody reads them, and transformers would look for keys in the batch

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """All micro-batches of an optimizer step with the teacher's outputs, and the counts of the whole step."""
        distiller: StudentModule = self.accelerator.unwrap_model(self.model)
        read = self._read(epoch_iterator, num_batches, distiller)
        collated = [part for batch in read for part in parts_of(batch)]
        self._parts = len(collated)
        distiller.on_step_begin()
        alone = len(collated) == 1 and self.accelerator.num_processes == 1  # the forward itself counts
        at_once = not alone and not reads_step_statistics(distiller.method)
        batches: list[Any] = []
        counts: list[dict[str, Tensor]] = []
        for batch in collated:
            batches.append(distiller.fetch(self._prepare_inputs(batch)))
            if at_once:  # while a teacher elsewhere is still at the next
                counts.append(self._counts(distiller, batches[-1]))
        with self.accelerator.autocast():
            distiller.precompute_step(batches, lambda sums: self.accelerator.reduce(sums, "sum"))
        self.tokens_seen += sum(batch.student.size for batch in batches)
        self.places_seen += sum(batch.student.input_ids.numel() for batch in batches)
        if alone:
            return regrouped(read, batches), None
        counts = counts or [self._counts(distiller, batch) for batch in batches]
        totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]} if counts else {}
        if self.accelerator.num_processes > 1:
            reduced = self.accelerator.reduce(torch.stack(list(totals.values())), "sum")
            totals = dict(zip(totals, reduced.unbind(), strict=True))
        return regrouped(read, batches), totals

    def _read(self, epoch_iterator: Iterator[Any], number: int, distiller: StudentModule) -> list[Any]:
        """The micro-batches of a step on the CPU, for which the teacher is asked; and for those of later steps as far as their text is known."""
        accumulated, left = self.args.gradient_accumulation_steps, self.state.max_steps - self.state.global_step - 1
        if self.text_ahead is None:
            teacher = distiller.teacher
            ahead = 0 if teacher is None else min(teacher.ahead, left) * accumulated
            return self._read_ahead.take(
                epoch_iterator, number, ahead=ahead, begin=lambda batch: _request(distiller, batch)
            )
        step = self.state.global_step + 1
        self._validate(step)
        rows = self.text_ahead.take(
            epoch_iterator, number, step=step, epoch=self.batches.epoch, later=left, accumulated=accumulated
        )
        collated: list[Any] = [self._collate(batch) for batch in rows]
        for batch in collated:
            _request(distiller, batch)
        return collated

    def _note_written(self, rows: list[dict[str, Any]]) -> None:
        """Add to rows what the method will want to know of the weights as they are."""
        distiller: StudentModule = self.accelerator.unwrap_model(self.model)
        collate: Any = self.data_collator
        with self.accelerator.autocast():
            note_written(
                distiller,
                rows,
                lambda part: self._prepare_inputs(collate(part).student),
                rows_at_once=self.args.per_device_train_batch_size,
            )

    def _counts(self, distiller: StudentModule, batch: Any) -> dict[str, Tensor]:
        with self.accelerator.autocast():  # as in the forward, so that both see the same predictions
            return distiller.counts(batch)

    def _validate(self, step: int) -> None:
        """Measure the student on the held-out examples where the schedule of its text asks for it."""
        replay = self.rollouts.replay if self.rollouts is not None else None
        if replay is None:
            return
        replay.steps = self.state.max_steps
        if replay.validation_is_due(step, self.batches.epoch):
            replay.validated(self.validation_loss(), step, self.batches.epoch)

    def validation_loss(self) -> float:
        """Cross entropy per token on all examples of `validation`, which the processes share; each gets the same number."""
        distiller: StudentModule = self.accelerator.unwrap_model(self.model)
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # of the cross entropy, and of labels
        own = range(self.args.process_index, len(self.validation), self.args.world_size)
        size = self.args.per_device_train_batch_size
        parts = ([self.validation[k] for k in own[first : first + size]] for first in range(0, len(own), size))
        with self.accelerator.autocast(), evaluating(distiller.student):
            for rows in parts:
                batch = self._prepare_inputs(self.data_collator(rows))
                sums[0] += distiller.cross_entropy(batch)
                sums[1] += len(batch.student.labels)
        total, count = self.accelerator.reduce(sums, "sum").tolist()
        return total / count

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, terms = model(inputs, num_items_in_batch)
        # The step's normalizer comes with each part of it; each adds its share, so that the sum is the normalizer.
        batches = self._parts if num_items_in_batch else 1
        metrics = self.accelerator.unwrap_model(model).metrics
        for sums, added, parts in ((self.metrics_seen, metrics, 1), (self.terms_seen, terms, batches)):
            for name, term in added.items():
                total = sums.setdefault(name, [torch.zeros_like(term.total), torch.zeros_like(term.normalizer)])
                total[0] += term.total
                total[1] += term.normalizer / parts
        loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, counts are of all of them
        return (loss, terms) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        # transformers divides by the accumulation steps unless it is handed a count; a step of one batch has none to hand on.
        if num_items_in_batch is None:
            assert self.current_gradient_accumulation_steps == 1
        *first, last = parts_of(inputs)
        loss: Any = 0.0
        for part in first:
            with self.accelerator.no_sync(model):  # the last part's gradients are synchronised, with all before them
                loss = loss + super().training_step(model, part, num_items_in_batch)
        return loss + super().training_step(model, last, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._require_finite("loss", logs["loss"])
            logs = {**logs, **self.pop_means()}
            if self.rollouts is not None:
                logs |= self.rollouts.progress()
                self._look_at(self.rollouts)
        super().log(logs, start_time)

    def _look_at(self, rollouts: Rollouts) -> None:
        """Warn where the samples of all processes show that something goes wrong."""
        own = torch.tensor([float(rollouts.counts[name]) for name in COUNTED], dtype=torch.float64)
        total = self.accelerator.reduce(own.to(self.args.device), "sum").tolist()
        for message in rollouts.guards.look(dict(zip(COUNTED, total, strict=True)), self.state.global_step):
            if self.args.process_index == 0:
                log.warning(message)

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise NotFinite(
                f"the {what} is {value} at step {self.state.global_step}; fix: lower learning_rate or "
                "projector_learning_rate, raise warmup_steps, or clip with a smaller max_gradient_norm"
            )

    def pop_means(self) -> dict[str, float]:
        """The mean of each term, and of each metric beside them, since it was last asked for."""
        means, counts = {}, {}
        for name, (total, count) in self.terms_seen.items():
            # Counts are of all processes already, sums of this one.
            means[name] = float(self.accelerator.reduce(total, "sum") / count.clamp_min(1.0))
            counts[name] = float(count)
        zeros = [torch.zeros((), device=self.args.device)] * 2
        for name in self._metrics_of_all_processes():
            both = self.accelerator.reduce(torch.stack(self.metrics_seen.get(name, zeros)), "sum")
            means[name] = float(both[0] / both[1].clamp_min(1.0))
            counts[name] = float(both[1])
        self.terms_seen, self.metrics_seen = {}, {}
        distiller: StudentModule = self.accelerator.unwrap_model(self.model)
        return distiller.logged(means, counts)

    def _metrics_of_all_processes(self) -> list[str]:
        """Names, in one order: a process that has seen no example of a teacher has no metrics of it."""
        if self.accelerator.num_processes == 1:
            return list(self.metrics_seen)
        return list(dict.fromkeys(gather_object(list(self.metrics_seen))))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's groups for the student; the projectors' parameters in a group of their own, without weight decay."""
        optimizer = super().create_optimizer(model)
        if self.model.projectors is None or any("projectors" in group for group in optimizer.param_groups):
            return optimizer
        own = {id(parameter) for parameter in self.model.projectors.parameters()}
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
        group = {"lr": self.projector_learning_rate, "weight_decay": 0.0, "projectors": True}
        optimizer.add_param_group({"params": list(self.model.projectors.parameters()), **group})
        return optimizer

    def whole_state(self) -> dict[str, Tensor] | None:
        """The state of the whole model where its weights are spread over processes, which all must ask; None where they are not."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return self.accelerator.get_state_dict(self.model_wrapped)
        return None

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *arguments: Any, **more: Any) -> None:
        self._gradient_norm = grad_norm
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, **more)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside the others, and move it among them once all processes have written theirs."""
        start = time.perf_counter()
        # No step may have been logged since the loss went wrong; a gradient that did has spoilt the weights.
        loss = self.accelerator.reduce(self._tr_loss.detach().clone(), "sum")
        self._require_finite("loss", float(loss))
        if self._gradient_norm is not None:
            self._require_finite("norm of the gradient", float(self._gradient_norm))
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.process_index == 0:
            complete(Path(str(self.args.output_dir)), self.state.global_step)
        self.checkpoint_seconds = time.perf_counter() - start

    def _get_output_dir(self, trial: Any) -> str:
        return str(unfinished(Path(str(self.args.output_dir))))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        save_student(self.accelerator.unwrap_model(self.model), None, folder, state=state_dict)
        if self.rollouts is not None and self.rollouts.replay is not None:
            self.rollouts.replay.save(folder / REPLAY)

    def _save_rng_state(self, output_dir: str) -> None:  # each process calls it
        super()._save_rng_state(output_dir)
        self.loop.save(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        student = self.model.student
        if is_adapted(student):
            load_adapter(student, folder)
        else:
            dtype = str(next(student.parameters()).dtype).removeprefix("torch.")
            _load_whole(student, load_model(folder, dtype).state_dict())
        if self.model.projectors is not None:
            _load_whole(self.model.projectors, load_file(folder / PROJECTORS))
        if self.rollouts is not None and self.rollouts.replay is not None:
            self.rollouts.replay.load(folder / REPLAY)


def _request(distiller: StudentModule, batch: Any) -> None:
    for part in parts_of(batch):
        distiller.request(part)


def _load_whole(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights into a module whose own may be spread over processes by FSDP2, which all must call then."""
    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))


def save_student(
    distiller: StudentModule,
    tokenizer: Any,
    folder: Path,
    *,
    state: dict[str, Tensor] | None = None,
    merge: bool = False,
) -> None:
    """Write the student as a model folder with its tokenizer, if any, and its projectors in a folder of their own inside.

    `state`: the gathered state where weights are spread over processes. `merge`: an adapter (LoRA) is merged, not written alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if merge and is_adapted(distiller.student):
        save_merged(distiller.student, tokenizer, folder)
    else:
        distiller.student.save_pretrained(folder, state_dict=_below(state, "student."))
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    if distiller.projectors is not None:
        own = _below(state, "projectors.") or distiller.projectors.state_dict()
        (folder / PROJECTORS).parent.mkdir(exist_ok=True)
        save_file({name: value.detach().contiguous().cpu() for name, value in own.items()}, folder / PROJECTORS)


def _below(state: dict[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    whole = (state or {}).items()
    return {name.removeprefix(prefix): value for name, value in whole if name.startswith(prefix)} or None
