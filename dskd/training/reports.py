"""What a training run cost and how it ended, from its trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object

from dskd.rollouts.options import ReplayReport, RolloutReport
from dskd.rollouts.rollouts import PROGRESS, REPLAY_PROGRESS, Rollouts
from dskd.rollouts.sample_rows import REASONS
from dskd.training.lesson import DISTILLED_SHARE
from dskd.training.loop_state import Earlier
from dskd.training.options import TeacherReport, TrainingReport
from dskd.training.several_examples import SeveralDatasets
from dskd.training.trainer import DistillationTrainer


def report_of(trainer: DistillationTrainer, resumed: int) -> TrainingReport:
    """The report of a run that went on from step `resumed`; all processes call this."""
    teacher, rollouts, cost = trainer.model.teacher, trainer.rollouts, trainer.loop.total()
    tokens, places, examples, device_memory = _over_processes(trainer, cost)
    norms = (entry["grad_norm"] for entry in reversed(trainer.state.log_history) if "grad_norm" in entry)
    return TrainingReport(
        steps=trainer.state.global_step,
        train_seconds=cost.seconds,
        teacher_seconds=cost.teacher_seconds,
        teacher_examples=examples,
        tokens=tokens,
        tokens_per_second=tokens / cost.seconds,
        padding_share=1 - tokens / places if places else None,
        peak_device_memory=device_memory,
        losses=_last_losses(trainer),
        distilled_share=_mean_logged(trainer, DISTILLED_SHARE),
        gradient_norm=next(norms, None),
        resumed_from_step=resumed,
        split_batches=trainer.split_batches,
        rollouts=None if rollouts is None else _rollout_report(trainer, rollouts),
        probe=None if teacher is None else teacher.probe,
        served=None if teacher is None else _served(gather_object([cost.figures])),
        teachers=_teacher_reports(trainer.train_dataset, cost.seconds_by_teacher),
    )


def _teacher_reports(dataset: Any, seconds: Mapping[str, float]) -> dict[str, TeacherReport] | None:
    if not isinstance(dataset, SeveralDatasets):
        return None
    return {
        name: TeacherReport(examples=count, unmatched=dataset.unmatched[name], seconds=seconds.get(name, 0.0))
        for name, count in dataset.taught().items()
    }


def _served(figures: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What a served teacher said of itself in each process, added up; seconds are those of the first. Of several teachers, by name."""
    first = figures[0]
    if "tokens" not in first:
        return {name: _served([own[name] for own in figures]) for name in first} or None
    total = {
        name: value if name.endswith("_seconds") else sum(own[name] for own in figures) for name, value in first.items()
    }
    both_ways = total["bytes_sent"] + total["bytes_received"]
    return {**total, "bytes_per_token": both_ways / total["tokens"] if total["tokens"] else None}


def _over_processes(trainer: DistillationTrainer, cost: Earlier) -> tuple[int, int, int, int | None]:
    """(tokens, places, examples that the teacher ran on) of all processes, and the largest peak of a GPU's memory."""
    own = [trainer.tokens_seen, trainer.places_seen, cost.teacher_examples, cost.device_memory]
    every = trainer.accelerator.gather(torch.tensor([own], device=trainer.args.device)).cpu()
    tokens, places, taught = every[:, :3].sum(0).tolist()
    return tokens, places, taught, int(every[:, 3].max()) or None


def _rollout_report(trainer: DistillationTrainer, rollouts: Rollouts) -> RolloutReport:
    names = ("samples", "tokens", "ended", "age", "written", "replayed", "data", *REASONS)
    own = torch.tensor([[rollouts.counts[name] for name in names]], device=trainer.args.device)
    total = dict(zip(names, trainer.accelerator.gather(own).sum(0).tolist(), strict=True))
    samples, replay, of_student = total["samples"], rollouts.replay, total["written"] + total["replayed"]
    replayed = (
        None
        if replay is None
        else ReplayReport(
            written=total["written"],
            replayed=total["replayed"],
            replayed_share=total["replayed"] / of_student if of_student else None,
            data=total["data"],
            threshold=replay.threshold if replay.adaptive else None,
            validation_losses=replay.validation_losses,
        )
    )
    return RolloutReport(
        samples=samples,
        mean_length=total["tokens"] / samples if samples else None,
        ended_share=total["ended"] / samples if samples else None,
        left_out={name: total[name] for name in REASONS if total[name]},
        seconds=rollouts.seconds,
        warnings=list(rollouts.guards.told.values()),
        mean_age=total["age"] / samples if samples and rollouts.options.writes_ahead else None,
        replay=replayed,
    )


def _mean_logged(trainer: DistillationTrainer, name: str) -> float | None:
    """The mean of a metric over the log; each line of it is of as many steps, but for the last."""
    values = [entry[name] for entry in trainer.state.log_history if name in entry]
    return sum(values) / len(values) if values else None


def _last_losses(trainer: DistillationTrainer) -> dict[str, float | None]:
    skipped = {
        "epoch",
        "step",
        "grad_norm",
        "learning_rate",
        "rollouts",
        "rollout_seconds",
        *PROGRESS,
        *REPLAY_PROGRESS,
    }
    for entry in reversed(trainer.state.log_history):
        if "loss" in entry:
            return {name: value for name, value in entry.items() if name not in skipped}
    return {}
