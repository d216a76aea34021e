"""What one of several processes does in test_processes.py; run by torchrun: `one_process.py train|fsdp2 WORLD OUTPUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import tiny_world
import torch
import torch.distributed as dist

from dskd import methods
from dskd.data.collator import Collator
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.outputs import LiveTeacher
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training import run, trainer
from dskd.training.distiller import Distiller
from dskd.training.run import TrainingOptions, train

OPTIONS = {"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "chunk_tokens": 16}


class Watched(trainer.DistillationTrainer):
    """Keeps what it trains."""

    seen: Watched

    def training_step(self, model, *arguments):
        Watched.seen = self
        self.wrapper = type(model).__name__
        return super().training_step(model, *arguments)


def curve(world: Path, name: str, output: Path, **options) -> list[dict[str, float]]:
    """Train by a method; the logged losses and terms of every step."""
    events: list[dict[str, float]] = []
    student = tiny_world.student_of(name)
    train(
        data=world / f"{student}-data",
        student=world / student,
        teacher=world / "teacher",
        method=name,
        options=TrainingOptions(**{**OPTIONS, **tiny_world.text_of(name), **options}),
        seed=3,
        output=output,
        progress=events.append,
    )
    return [event for event in events if "loss" in event]


def train_all(world: Path, output: Path) -> None:
    run.DistillationTrainer = Watched
    for name in methods.METHODS:
        losses = curve(world, name, output / name)
        rank, watched = dist.get_rank(), Watched.seen
        found = {"world": dist.get_world_size(), "wrapper": watched.wrapper, "losses": losses}
        (output / f"{name}-{rank}.json").write_text(json.dumps(found))
        torch.save(
            {key: value.detach() for key, value in watched.model.state_dict().items()}, output / f"{name}-{rank}.pt"
        )


def distiller_of(world: Path, name: str) -> tuple[Distiller, datasets.Dataset]:
    student = tiny_world.student_of(name)
    sizes = [Vocabulary.from_tokenizer(load_tokenizer(world / folder)) for folder in (student, "teacher")]
    torch.manual_seed(0)
    distiller = Distiller(
        load_model(world / student),
        methods.get(name)(),
        student_size=sizes[0].size,
        teacher=LiveTeacher(load_model(world / "teacher"), sizes[1].size)
        if methods.get(name).requires.teacher
        else None,
        shared=share_vocabulary(sizes[1], sizes[0]),
        chunk_tokens=16,
    )
    return distiller, datasets.load_from_disk(str(world / f"{student}-data"))


def step(model: Distiller, rows: list[dict], *, share: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of one step over the rows of all processes, by this process's `rows`."""
    model.method.on_step_begin(model.whole_student_head())
    batch = model.fetch(tiny_world.pairing_as(model.method.name, Collator())(rows))
    totals = model.counts(batch)
    if share > 1:
        for total in totals.values():
            dist.all_reduce(total)
    loss, _ = model(batch, totals)
    (loss * share).backward()
    total = loss.detach().clone()
    if share > 1:
        dist.all_reduce(total)
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            whole = parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
            gradients[name] = whole.clone()
    return total, gradients


def fsdp2(world: Path, output: Path) -> None:
    from torch.distributed.fsdp import FSDPModule, fully_shard

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    # A student whose weights are spread cannot write.
    for name in (name for name, method in methods.METHODS.items() if method.requires.on_policy != "always"):
        whole, data = distiller_of(world, name)
        rows = [data[k] for k in range(8)]
        loss, gradients = step(whole, rows, share=1)
        sharded, _ = distiller_of(world, name)
        base = sharded.student.base_model
        for layer in getattr(base, "layers", None) or base.h:
            fully_shard(layer)
        fully_shard(sharded)
        assert isinstance(sharded, FSDPModule)
        head = sharded.student.get_output_embeddings().weight
        assert head.to_local().numel() < head.numel()  # this process holds a part of it
        optimizer = torch.optim.AdamW(sharded.parameters(), lr=1e-3)
        own_loss, own = step(sharded, rows[rank::2], share=2)
        torch.testing.assert_close(own_loss, loss, rtol=1e-5, atol=1e-6)
        assert own.keys() == gradients.keys()
        for key, value in gradients.items():
            torch.testing.assert_close(
                own[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name, k=key: f"{n} {k}: {m}"
            )
        optimizer.step()
        optimizer.zero_grad()
        sharded.method.on_step_begin(sharded.whole_student_head())
        if sharded.projectors is not None:
            found = [
                v.full_tensor() if hasattr(v, "full_tensor") else v for v in sharded.projectors.state_dict().values()
            ]
            flat = torch.cat([value.flatten() for value in found])
            both = [torch.empty_like(flat) for _ in range(2)]
            dist.all_gather(both, flat)
            assert torch.equal(*both)
        if rank == 0:
            (output / f"{name}.ok").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    {"train": train_all, "fsdp2": fsdp2}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
