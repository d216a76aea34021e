"""Two teachers with two vocabularies for one student, their data, and the loss of several teachers computed slowly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dskd import methods
from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.modeling.lm_head import labelled_hidden_states, output_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import TeacherSource
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training.several import SeveralDistiller, TaughtBy
from dskd.training.several_examples import SeveralCollator, SeveralDatasets
from helpers import tiny_world
from helpers.tiny_tokenizers import byte_level

STUDENT = "cross"


def make(world: Path, folder: Path) -> None:
    """`other`, a teacher with a third vocabulary; `whole-NAME` and `half-NAME`, data of the student and `teacher` or `other`.

    The first half of the examples is the teacher's, the second half the other's.
    """
    tokenizer = byte_level(300)
    torch.manual_seed(5)
    sizes = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer) + 1, eos_token_id=tokenizer.eos_token_id, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    lines = (world / "train.jsonl").read_text().splitlines(keepends=True)
    half = len(lines) // 2
    for name, own in (("teacher", lines[:half]), ("other", lines[half:])):
        (folder / f"{name}.jsonl").write_text("".join(own))
        paths = {"student": world / STUDENT, "teacher": teacher_folder(world, folder, name)}
        prepare_dataset(world / "train.jsonl", folder / f"whole-{name}", **paths)
        prepare_dataset(folder / f"{name}.jsonl", folder / f"half-{name}", **paths)


def teacher_folder(world: Path, folder: Path, name: str) -> Path:
    return world / name if name == "teacher" else folder / name


def sources(world: Path, folder: Path, weights: Sequence[float] | None = None, **caches: Path) -> list[TeacherSource]:
    """`teacher` and `other`, routed by halves or with weights; caches by name."""
    part = "half" if weights is None else "whole"
    return [
        TeacherSource(
            name=name,
            folder=teacher_folder(world, folder, name),
            data=folder / f"{part}-{name}",
            cache=caches.get(name),
            weight=None if weights is None else weights[number],
        )
        for number, name in enumerate(("teacher", "other"))
    ]


def copies(world: Path, folder: Path, student: str, weights: Sequence[float] | None = None) -> list[TeacherSource]:
    """The world's teacher under two names, with the halves of its data for a student, or all of them each."""
    lines = (world / "train.jsonl").read_text().splitlines(keepends=True)
    half = len(lines) // 2
    found = []
    for number, (name, own) in enumerate((("first", lines[:half]), ("second", lines[half:]))):
        data = folder / f"{student}-{name}-{weights is None}"
        file = folder / f"{data.name}.jsonl"
        file.write_text("".join(own if weights is None else lines))
        prepare_dataset(file, data, student=world / student, teacher=world / "teacher")
        weight = None if weights is None else weights[number]
        found.append(TeacherSource(name=name, folder=world / "teacher", data=data, weight=weight))
    return found


def distiller_of(
    world: Path, method: str, student: str, teachers: Mapping[str, Path], weights: Mapping[str, float] | None = None
) -> SeveralDistiller:
    """A student that learns from these teachers' folders."""
    own = Vocabulary.from_tokenizer(load_tokenizer(world / student))
    taught = {}
    for name, folder in teachers.items():
        vocabulary = Vocabulary.from_tokenizer(load_tokenizer(folder))
        taught[name] = TaughtBy(
            methods.get(method)(),
            LiveTeacher(load_model(folder), vocabulary.size),
            share_vocabulary(vocabulary, own),
            None if weights is None else weights[name],
        )
    torch.manual_seed(0)  # for projectors that start at random
    return SeveralDistiller(load_model(world / student), taught, student_size=own.size, chunk_tokens=16)


def step(
    distiller: SeveralDistiller, method: str, examples: SeveralDatasets, batches: Sequence[Sequence[int]]
) -> tuple[float, dict[str, torch.Tensor], dict[str, Any]]:
    """(loss, gradients, terms of the last micro-batch) of an optimizer step, as the trainer normalises it."""
    collator = SeveralCollator(tiny_world.pairing_as(method, Collator()))
    made = [distiller.fetch(collator([examples[k] for k in numbers])) for numbers in batches]
    distiller.on_step_begin()
    counts = [distiller.counts(batch) for batch in made]
    totals = {key: torch.stack([count[key] for count in counts]).sum() for key in counts[0]}
    total, terms = 0.0, {}
    distiller.zero_grad()
    for batch in made:
        loss, terms = distiller(batch, None if len(made) == 1 else totals)
        loss.backward()
        total += loss.item()
    return total, gradients_of(distiller), terms


def gradients_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}


def slow_loss(
    distiller: SeveralDistiller, method: str, data: Mapping[str, Any], rows: Mapping[str, Sequence[int]]
) -> torch.Tensor:
    """The loss of several teachers, an example at a time: each goes through student and teacher alone, in no chunks.

    Args:
        distiller: Its models, methods and weights are used, and nothing else of it.
        method: The name.
        data: The prepared dataset of each teacher.
        rows: Which rows of it.
    """
    collator = tiny_world.pairing_as(method, Collator())
    head = output_head(distiller.student, distiller.student_size)
    sums: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, Any]] = {}
    for name, lesson in distiller.lessons.items():
        lesson.method.on_step_begin(head)
        sums[name], counts[name] = {}, {}
        for number in rows[name]:
            batch = lesson.teacher.fetch(collator([data[name][number]]))
            hidden = labelled_hidden_states(distiller.student, batch.student)
            for term, value in lesson.method.terms(lesson.with_models(batch, head, hidden, distiller.student)).items():
                sums[name][term] = sums[name].get(term, 0.0) + value.total
                counts[name][term] = counts[name].get(term, 0.0) + value.normalizer
    loss = torch.zeros(())
    for name, lesson in distiller.lessons.items():
        if not rows[name]:
            continue
        weight, means = distiller.weights[name], {}
        for term, value in sums[name].items():
            everybody = sum(own.get(term, torch.zeros(())) for own in counts.values())
            means[term] = value / (everybody if weight is None else counts[name][term]).clamp_min(1.0)
        loss = loss + (1.0 if weight is None else weight) * lesson.method.objective(means)
    return loss


def load(path: Path) -> Any:
    return datasets.load_from_disk(str(path))


def logged(output: Path) -> list[dict[str, Any]]:
    """The steps of a training that were logged."""
    return [json.loads(line) for line in (output / "model" / "training_log.jsonl").read_text().splitlines()]
