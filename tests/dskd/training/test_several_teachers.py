"""The loss of several teachers: against a slow reference, and against one teacher of which there are copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dskd import methods
from dskd.data.collator import Collator
from dskd.methods.base import reads_step_statistics
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.live import LiveTeacher
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training.distiller import Distiller
from dskd.training.several_examples import SeveralCollator, matched, routed
from helpers import tiny_world
from helpers.several_teachers import STUDENT, distiller_of, gradients_of, load, slow_loss, step, teacher_folder
from helpers.training_runs import a_few_at_once

DISTILLING = [
    name for name, method in methods.METHODS.items() if method.requires.teacher and not reads_step_statistics(method())
]
ACROSS = ["dskd-v1-cma", "dskd-v2-eta", "uld", "alm", "gold", "mined", "x-token", "simct"]
SPLITS = {"one micro-batch": [[0, 1, 2, 3, 4, 5]], "three micro-batches": [[0, 5], [1, 2], [3, 4]]}


@pytest.mark.parametrize("weights", [None, {"other": 0.25, "teacher": 0.75}], ids=["routed", "weighted"])
@pytest.mark.parametrize("name", a_few_at_once(ACROSS))
def test_the_loss_is_that_of_the_slow_reference(world: Path, pair: Path, name: str, weights: Any) -> None:
    folders = {other: teacher_folder(world, pair, other) for other in ("other", "teacher")}
    part = "half" if weights is None else "whole"
    data = {other: load(pair / f"{part}-{other}") for other in folders}
    examples = routed(data) if weights is None else matched(data)
    # Routed, the other teacher's examples come first.
    half = len(data["other"])
    rows = (
        {"other": [0, 1, 2], "teacher": [0, 1, 4]}
        if weights is None
        else {other: [0, 1, 2, 10, 11, 14] for other in folders}
    )
    numbers = [0, 1, 2, half, half + 1, half + 4] if weights is None else rows["other"]
    distiller = distiller_of(world, name, STUDENT, folders, weights)
    expected = slow_loss(distiller, name, data, rows)
    expected.backward()
    gradients = gradients_of(distiller)
    for batches in SPLITS.values():
        loss, found, _ = step(distiller, name, examples, [[numbers[k] for k in batch] for batch in batches])
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert found.keys() == gradients.keys()
        for key, value in gradients.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=2e-6, msg=lambda m, key=key: f"{key}: {m}")


def _alone(world: Path, name: str, rows: list[int]) -> tuple[float, dict[str, torch.Tensor], dict[str, Any]]:
    student = tiny_world.student_of(name)
    vocabularies = [Vocabulary.from_tokenizer(load_tokenizer(world / each)) for each in ("teacher", student)]
    torch.manual_seed(0)  # for projectors that start at random
    distiller = Distiller(
        load_model(world / student),
        methods.get(name)(),
        student_size=vocabularies[1].size,
        teacher=LiveTeacher(load_model(world / "teacher"), vocabularies[0].size),
        shared=share_vocabulary(*vocabularies),
        chunk_tokens=16,
    )
    data = load(world / f"{student}-data")
    batch = distiller.fetch(tiny_world.pairing_as(name, Collator())([data[k] for k in rows]))
    distiller.on_step_begin()
    loss, terms = distiller(batch)
    loss.backward()
    return loss.item(), gradients_of(distiller), terms


@pytest.mark.parametrize("name", a_few_at_once(DISTILLING))
def test_copies_of_a_teacher_give_its_loss_its_terms_and_its_gradients(world: Path, name: str) -> None:
    student = tiny_world.student_of(name)
    expected, gradients, terms = _alone(world, name, [0, 1, 2, 10, 11, 12])
    folders = dict.fromkeys(("first", "second"), world / "teacher")
    whole = load(world / f"{student}-data")
    halves = {"first": whole.select(range(10)), "second": whole.select(range(10, 20))}
    cases = {
        "routed": (None, routed(halves), [0, 1, 2, 10, 11, 12]),
        "weighted": ({"first": 0.3, "second": 0.7}, matched(dict.fromkeys(folders, whole)), [0, 1, 2, 10, 11, 12]),
    }
    for case, (weights, examples, numbers) in cases.items():
        for batches in SPLITS.values():
            distiller = distiller_of(world, name, student, folders, weights)
            loss, found, last = step(distiller, name, examples, [[numbers[k] for k in batch] for batch in batches])
            assert loss == pytest.approx(expected, rel=1e-5), case
            for key, value in gradients.items():
                if key.startswith("projectors."):  # each copy has its own
                    of = key.removeprefix("projectors.")
                    ours = found[f"projectors.of_first.{of}"] + found[f"projectors.of_second.{of}"]
                else:
                    ours = found[key]
                torch.testing.assert_close(
                    ours, value, rtol=1e-4, atol=2e-6, msg=lambda m, case=case, key=key: f"{case} {key}: {m}"
                )
            if len(batches) == 1:
                for term, value in terms.items():
                    both = [(last[term].total / last[term].normalizer), value.total / value.normalizer]
                    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", ["dskd-v2-eta", "gold"])
def test_a_teacher_without_an_example_in_a_micro_batch_adds_nothing_and_gets_a_gradient_of_zero(
    world: Path, pair: Path, name: str
) -> None:
    folders = {other: teacher_folder(world, pair, other) for other in ("other", "teacher")}
    data = {other: load(pair / f"half-{other}") for other in folders}
    distiller = distiller_of(world, name, STUDENT, folders)
    loss, gradients, terms = step(distiller, name, routed(data), [[0, 1]])
    torch.testing.assert_close(
        torch.tensor(loss), slow_loss(distiller, name, data, {"other": [0, 1], "teacher": []}).detach()
    )
    assert {key.split("/")[0] for key in terms if "/" in key} == {"other", "teacher"}
    assert all(float(term.normalizer) == 0 for key, term in terms.items() if key.startswith("teacher/"))
    assert float(terms["other/cross_entropy"].normalizer) > 0
    own = [value for key, value in gradients.items() if key.startswith("projectors.of_teacher.")]
    assert bool(own) == (name == "dskd-v2-eta")
    assert not any(value.any() for value in own)


def test_the_parts_of_a_batch_are_what_each_teacher_would_get_alone(world: Path, pair: Path) -> None:
    data = {other: load(pair / f"half-{other}") for other in ("other", "teacher")}
    examples = routed(data)
    half = len(data["other"])
    for collator in (Collator(), Collator("left"), Collator(packing=True)):
        batch = SeveralCollator(collator)([examples[k] for k in (half + 1, 0, half, 2)])
        for name, rows in {"teacher": [1, 0], "other": [0, 2]}.items():
            alone, part = collator([data[name][k] for k in rows]), batch.parts[name]
            assert torch.equal(batch.student.labels[part.index], alone.student.labels)
            assert torch.equal(batch.student.inputs[part.index], alone.student.inputs)
            for field in ("pairs", "groups", "labels"):
                for side in ("student", "teacher"):
                    assert torch.equal(getattr(getattr(part.tokens, side), field), getattr(getattr(alone, side), field))
            assert torch.equal(part.tokens.teacher.input_ids, alone.teacher.input_ids)
            assert part.tokens.student.input_ids is None  # the student reads all examples at once


def test_examples_of_weighted_teachers_are_matched_by_the_tokens_of_the_student(world: Path, pair: Path) -> None:
    whole, other = load(pair / "whole-teacher"), load(pair / "whole-other")
    examples = matched({"a": whole.select([3, 0, 1, 0]), "b": other.select([0, 1, 2, 0, 5])})
    assert len(examples) == 3
    assert examples.unmatched == {"a": 1, "b": 2}
    ids = [[row["student_ids"] for row in item["rows"].values()] for item in (examples[k] for k in range(3))]
    assert ids == [[whole[k]["student_ids"]] * 2 for k in (0, 1, 0)]
