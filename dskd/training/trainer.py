"""The training loop: transformers.Trainer with a distillation loss, a teacher, and projectors beside the student."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, Trainer

from dskd.data.batch_sampler import EpochBatches
from dskd.errors import TrainingFailed
from dskd.losses.chunked import chunk_size, chunked_counts, chunks, fused_loss
from dskd.losses.cross_entropy import cross_entropy_and_hits
from dskd.methods.base import LabelledTokens, Method, Term
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import Head, final_hidden_states, output_head, whole_output_head
from dskd.modeling.lora import is_adapted, load_adapter, save_merged
from dskd.rollouts.rollouts import Rollouts
from dskd.teachers.outputs import TeacherSignal
from dskd.tokenization.vocabulary import SharedVocabulary

# In a folder of its own: vLLM takes every *.safetensors beside a model's weights for a part of them.
PROJECTORS = Path("projectors") / "projectors.safetensors"
REPLAY = "replay.json"  # in a checkpoint: the student's texts that may be drawn again, and how often they are


class Distiller(nn.Module):
    """A student with what its method trains beside it. Its forward is the method's loss, so gradients of both are synchronised.

    The teacher is not part of it: its signal is looked up before the step, and it is neither saved nor wrapped. `student_size`: the
    real tokens of the student's vocabulary. `fused` takes the loss in chunks (dskd/losses/chunked.py) of `chunk_tokens`, by default as many
    as suit the vocabulary.
    """

    def __init__(
        self,
        student: Any,  # a transformers causal model
        method: Method,
        *,
        student_size: int,
        signal: TeacherSignal | None = None,
        shared: SharedVocabulary | None = None,
        fused: bool = True,
        chunk_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.method = method
        self.signal = signal
        self.fused = fused and method.per_token
        self.chunk_tokens = chunk_tokens
        self.figures: dict[str, Term] = {}  # of the last forward, of this process
        self.student_size = student_size
        # The layers that FSDP spreads one by one; accelerate asks the outermost module for them.
        self._no_split_modules = getattr(student, "_no_split_modules", None)
        self.projectors = method.prepare(self.whole_student_head(), self.teacher_head, shared)

    @property
    def teacher_head(self) -> Head | None:
        """The teacher's head; None without a teacher, and where its top-k tokens are all there is."""
        return self.signal.head if self.signal is not None else None

    def whole_student_head(self) -> Head:
        """The live head outside the forward, gathered where its weights are spread over processes; without gradient."""
        return whole_output_head(self.student, self.student_size)

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        self.student.gradient_checkpointing_enable(**arguments)

    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add what the teacher says at the labelled tokens of a micro-batch."""
        return batch if self.signal is None else self.signal.look_up(batch)

    def _tokens(self, batch: dict[str, Tensor], head: Head, student_hidden: Tensor) -> LabelledTokens:
        given: dict[str, Any] = {name: batch.get(name) for name in _FROM_BATCH}
        if self.method.pairing != "bytes":
            kind = f"{self.method.pairing}_pairs"
            given |= {f"{side}_pairs": batch.get(f"{side}_{kind}") for side in ("teacher", "student")}
            given["student_pairs_on_host"] = batch.get(f"student_{kind}_on_host")
        for side in ("student", "teacher"):
            if f"{side}_labelled" in batch:
                given[f"{side}_inputs"] = batch[f"{side}_input_ids"].flatten()[batch[f"{side}_labelled"]]
        if self.method.embeddings:
            given["student_embedding"] = self.student.get_input_embeddings().weight.detach()
            given["teacher_embedding"] = self.signal.embedding if self.signal is not None else None
        if self.method.teacher_statistics:
            given["notes"] = {name: batch[name] for name in _STATISTICS if name in batch}
        return LabelledTokens(head, student_hidden, batch["student_labels"], self.teacher_head, **given)

    @torch.no_grad()
    def score(
        self, batches: Sequence[dict[str, Tensor]], total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> None:
        """Put what the method wants to know of all micro-batches of a step into them; `total` adds up over processes."""
        if not self.method.scored or not batches:
            return
        head = self.whole_student_head()
        with evaluating(self.student):
            hidden = [self.labelled_hidden(batch) for batch in batches]
        tokens = [self._tokens(batch, head, states) for batch, states in zip(batches, hidden, strict=True)]
        for batch, scores in zip(batches, self.method.scores(tokens, total), strict=True):
            batch["student_scores"] = scores

    def labelled_hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """What enters the student's head at the labelled tokens [tokens, hidden]."""
        hidden = final_hidden_states(
            self.student,
            batch["student_input_ids"],
            batch.get("student_attention_mask"),
            batch["student_position_ids"],
        )
        return hidden.flatten(0, 1)[batch["student_labelled"]]

    def cross_entropy(self, batch: dict[str, Tensor]) -> Tensor:
        """The student's cross entropy, added up over the labels of a micro-batch, a float64 scalar without gradient."""
        head = output_head(self.student, self.student_size)
        tokens = LabelledTokens(head, self.labelled_hidden(batch), batch["student_labels"])
        sums = torch.zeros((), dtype=torch.float64, device=tokens.student_labels.device)
        for part in chunks(tokens, chunk_size(tokens, self.chunk_tokens)):
            logits = head.logits(part.student_hidden, padded=True)
            sums += cross_entropy_and_hits(logits, part.student_labels)[0].double()
        return sums

    def counts(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The counts of a micro-batch's terms. They depend on the teacher, the projectors and the student's head alone."""
        head = self.whole_student_head()
        hidden = head.weight.new_zeros(1, 1).expand(len(batch["student_labels"]), head.weight.shape[1])
        return chunked_counts(self.method, self._tokens(batch, head, hidden), self.chunk_tokens)

    def forward(
        self, batch: dict[str, Tensor], totals: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """(loss, {term: (sum, total count)}); `totals` are the counts of the whole step, by default those of this batch."""
        hidden = self.labelled_hidden(batch)
        head = output_head(self.student, self.student_size)
        tokens = self._tokens(batch, head, hidden)
        self.figures = tokens.figures
        if self.fused and len(tokens.student_labels) > chunk_size(tokens, self.chunk_tokens):
            parameters = [] if self.projectors is None else list(self.projectors.parameters())
            loss, sums = fused_loss(self.method, tokens, totals, parameters, self.chunk_tokens)
            return loss, {name: (term.sum, term.count) for name, term in sums.items()}
        terms = self.method.terms(tokens)
        if totals is None:
            totals = {name: term.count for name, term in terms.items()}
        # A count of zero (no aligned token in the whole step) belongs to a sum of zero.
        means = {name: term.sum / totals[name].clamp_min(1.0) for name, term in terms.items()}
        loss = self.method.objective(means)
        return loss, {name: (term.sum.detach(), totals[name]) for name, term in terms.items()}


# What a loss gets of a batch as it stands there.
_FROM_BATCH = (
    "teacher_hidden",
    "teacher_labels",
    "teacher_pairs",
    "student_pairs",
    "student_pairs_on_host",
    "teacher_predictions",
    "teacher_top_k_ids",
    "teacher_top_k_log_probabilities",
    "student_sampled",
    "student_scores",
    "student_sizes",
    "teacher_sizes",
    "student_groups",
    "teacher_groups",
)
_STATISTICS = ("teacher_positions", "teacher_hidden_deviation")
# What stays in the memory of the CPU, where a step may read it without waiting for a device.
_ON_HOST = ("teacher_rows", "student_size", "teacher_size", "student_sizes", "teacher_sizes")
_PAIRS = (
    "student_pairs",
    "student_position_pairs",
    "student_string_pairs",
)  # on the device and in the memory of the CPU


class _Batches(DataLoader[Any]):
    """A data loader whose batch sampler is told the epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class DistillationTrainer(Trainer):
    """Trains a `Distiller`; saves its student as an ordinary model folder with its tokenizer, projectors beside it.

    With `rollouts`, some of the examples of each step get a response of the student's own before the step's tokens are counted;
    `validation` are the rows on which its schedule measures the student, where it does.
    """

    model: Distiller

    def __init__(
        self,
        model: Distiller,
        *arguments: Any,
        batches: EpochBatches,
        projector_learning_rate: float,
        rollouts: Rollouts | None = None,
        validation: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, *arguments, **options)
        self.batches = batches
        self.projector_learning_rate = projector_learning_rate
        self.rollouts = rollouts
        self.validation = validation
        # The loss is normalised over the whole step; the trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        self._sums: dict[str, list[Tensor]] = {}
        self._figures: dict[str, list[Tensor]] = {}
        self.tokens_seen = 0
        self.places_seen = 0  # tokens and padding

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process. The sampler divides them among processes, so accelerate must not do it again."""
        return _Batches(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.batches,
            collate_fn=self.data_collator if self.rollouts is None else list,  # put together when the samples are there
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _prepare_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        host = {f"{key}_on_host": inputs[key] for key in _PAIRS if key in inputs}
        host |= {key: inputs[key] for key in inputs if key in _ON_HOST or key.endswith("_on_host")}
        return super()._prepare_inputs({key: value for key, value in inputs.items() if key not in host}) | host

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """All micro-batches of an optimizer step with the teacher's hidden states, and the counts of the whole step."""
        given = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        if self.rollouts is not None:
            step = self.state.global_step + 1
            self._validate(step)
            rows = self.rollouts.take(given, epoch=self.batches.epoch, step=step)
            given = [self.data_collator(batch) for batch in rows]
        batches = [self._prepare_inputs(batch) for batch in given]
        distiller: Distiller = self.accelerator.unwrap_model(self.model)
        distiller.method.begin_step(distiller.whole_student_head())
        batches = [distiller.look_up(batch) for batch in batches]
        with self.accelerator.autocast():
            distiller.score(batches, lambda sums: self.accelerator.reduce(sums, "sum"))
        self.tokens_seen += sum(int(batch["student_size"]) for batch in batches)
        self.places_seen += sum(batch["student_input_ids"].numel() for batch in batches)
        if len(batches) == 1 and self.accelerator.num_processes == 1:
            return batches, None  # the forward itself counts
        with self.accelerator.autocast():  # as in the forward, so that both see the same predictions
            counts = [distiller.counts(batch) for batch in batches]
        totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]} if counts else {}
        if self.accelerator.num_processes > 1:
            reduced = self.accelerator.reduce(torch.stack(list(totals.values())), "sum")
            totals = dict(zip(totals, reduced.unbind(), strict=True))
        return batches, totals

    def _validate(self, step: int) -> None:
        """Measure the student on the held-out examples before step `step`, where the schedule of its text asks for it."""
        replay = self.rollouts.replay if self.rollouts is not None else None
        if replay is None:
            return
        replay.steps = self.state.max_steps
        epoch = self.batches.epoch
        if replay.validation_is_due(step, epoch):
            replay.validated(self.validation_loss(), step, epoch)

    def validation_loss(self) -> float:
        """Cross entropy per token on all examples of `validation`, which the processes share; each gets the same number."""
        distiller: Distiller = self.accelerator.unwrap_model(self.model)
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # of the cross entropy, and of labels
        own = range(self.args.process_index, len(self.validation), self.args.world_size)
        size = self.args.per_device_train_batch_size
        parts = ([self.validation[k] for k in own[first : first + size]] for first in range(0, len(own), size))
        with self.accelerator.autocast(), evaluating(distiller.student), torch.no_grad():
            for rows in parts:
                batch = self._prepare_inputs(self.data_collator(rows))
                sums[0] += distiller.cross_entropy(batch)
                sums[1] += len(batch["student_labels"])
        total, count = self.accelerator.reduce(sums, "sum").tolist()
        return total / count

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, terms = model(inputs, num_items_in_batch)
        for name, figure in self.accelerator.unwrap_model(model).figures.items():
            known = self._figures.setdefault(name, [torch.zeros_like(figure.sum), torch.zeros_like(figure.count)])
            known[0] += figure.sum
            known[1] += figure.count
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
            raise TrainingFailed(
                f"the loss is {logs['loss']} at step {self.state.global_step}; hint: lower learning_rate or "
                "projector_learning_rate, raise warmup_steps, or clip with a smaller max_gradient_norm"
            )
        if "loss" in logs:
            logs = {**logs, **self.pop_means()}
            if self.rollouts is not None:
                logs |= self.rollouts.progress()
        super().log(logs, start_time)

    def pop_means(self) -> dict[str, float]:
        """The mean of each term, and of each figure beside them, since it was last asked for."""
        means = {}
        for name, (total, count) in self._sums.items():
            # Counts are of all processes already, sums of this one.
            means[name] = float(self.accelerator.reduce(total, "sum") / count.clamp_min(1.0))
        for name, (total, count) in self._figures.items():
            both = self.accelerator.reduce(torch.stack([total, count]), "sum")
            means[name] = float(both[0] / both[1].clamp_min(1.0))
        self._sums, self._figures = {}, {}
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

    def whole_state(self) -> dict[str, Tensor] | None:
        """The state of the whole model where its weights are spread over processes, which all must ask; None where they are not."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return self.accelerator.get_state_dict(self.model_wrapped)
        return None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        save_student(self.accelerator.unwrap_model(self.model), self.processing_class, folder, state=state_dict)
        if self.rollouts is not None and self.rollouts.replay is not None:
            self.rollouts.replay.save(folder / REPLAY)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        student = self.model.student
        if is_adapted(student):
            load_adapter(student, folder)
        else:
            dtype = next(student.parameters()).dtype
            saved = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
            _load_whole(student, saved.state_dict())
        if self.model.projectors is not None:
            _load_whole(self.model.projectors, load_file(folder / PROJECTORS))
        if self.rollouts is not None and self.rollouts.replay is not None:
            self.rollouts.replay.load(folder / REPLAY)


def _load_whole(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights into a module whose own may be spread over processes by FSDP2, which all must call then."""
    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))


def save_student(
    distiller: Distiller,
    tokenizer: Any,
    folder: Path,
    *,
    state: dict[str, Tensor] | None = None,
    merge: bool = False,
) -> None:
    """Write the student as a model folder with its tokenizer, and its projectors in a folder of their own inside.

    `state` is the distiller's gathered state where weights are spread over processes. Of a student with an adapter (LoRA), the
    adapter alone is written, or with `merge` the ordinary model that it amounts to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if merge and is_adapted(distiller.student):
        save_merged(distiller.student, tokenizer, folder)
    else:
        distiller.student.save_pretrained(folder, state_dict=_below(state, "student."))
        tokenizer.save_pretrained(folder)
    if distiller.projectors is not None:
        own = _below(state, "projectors.") or distiller.projectors.state_dict()
        (folder / PROJECTORS).parent.mkdir(exist_ok=True)
        save_file({name: value.detach().contiguous().cpu() for name, value in own.items()}, folder / PROJECTORS)


def _below(state: dict[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    if state is None:
        return None
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
