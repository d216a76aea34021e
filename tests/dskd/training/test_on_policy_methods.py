"""Whole trainings by the methods of on-policy distillation: with a reference model, without a teacher, with a served one's numbers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from dskd.data.collator import Collator
from dskd.errors import InputError
from dskd.losses.tokens import TokenBatch
from dskd.modeling.loading import load_model
from dskd.training.own_teacher import as_its_own_teacher
from dskd.training.reference import ReferenceModel
from dskd.training.run import TrainingOptions, train
from helpers.training_runs import assert_same_weights, logged, saved_weights

ROLLOUTS = {"share": 1.0, "max_new_tokens": 10}


def _run(world: Path, output: Path, method: str, student: str = "same", **changes: Any) -> Any:
    own = {key: changes.pop(key) for key in ("method_options", "reference", "teacher", "progress") if key in changes}
    options = {"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, "rollouts": ROLLOUTS, **changes}
    return train(
        data=world / f"{student}-data",
        student=world / student,
        method=method,
        options=TrainingOptions(**options),
        seed=3,
        output=output,
        **{"teacher": world / "teacher", **own},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "student", "options"),
    [
        ("opd", "same", {}),
        ("opd", "same", {"form": "differentiated", "estimator": "k2"}),
        ("opd-full", "same", {}),
        ("opd-top-k", "same", {"top_k": 128}),
        ("opd-top-k", "same", {"top_k": 8, "remainder": "unbiased_tail"}),
        ("opd-student-top-k", "same", {}),
        ("iw-opd", "same", {}),
        ("g-opd", "same", {}),
        ("opd-chunks", "cross", {}),
    ],
    ids=str,
)
def test_on_its_own_text_the_student_comes_closer_to_the_teacher(
    world: Path, tmp_path: Path, method: str, student: str, options: dict[str, Any]
) -> None:
    """The mean log q − log p of the text that it writes, by a run whose weights do not move at the end."""
    changes = {"steps": 100, "batch_size": 10, "learning_rate": 3e-3}
    _run(world, tmp_path / "run", method, student, method_options=options, **changes)
    judge, distances = ("opd-chunks" if student == "cross" else "opd"), []
    moved = tmp_path / "moved"
    shutil.copytree(world, moved)
    shutil.rmtree(moved / student)
    shutil.copytree(tmp_path / "run" / "model", moved / student)
    for number, folder in enumerate((world, moved)):
        still = {"steps": 8, "batch_size": 10, "learning_rate": 1e-12}
        _run(folder, tmp_path / f"still-{number}", judge, student, **still)
        log = logged(tmp_path / f"still-{number}")
        distances.append(-sum(entry["advantage"] for entry in log) / len(log))
    assert distances[1] < 0.8 * distances[0], distances


# The reference model


def _log_probabilities(folder: Path, data: Any) -> list[float]:
    """log r of every label, one example at a time."""
    model, found = load_model(folder).eval(), []
    for row in data:
        ids = torch.tensor([row["student_ids"]])
        with torch.no_grad():
            scores = model(input_ids=ids, use_cache=False).logits[0, :, : _size(folder)].log_softmax(-1)
        first = row["student_prompt_length"]
        found += [scores[t - 1, ids[0, t]].item() for t in range(first, ids.shape[1])]
    return found


def _size(folder: Path) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("packing", [False, True])
def test_the_reference_says_how_probable_each_label_is_however_rows_are_laid_out(world: Path, packing: bool) -> None:
    data = datasets.load_from_disk(str(world / "same-data")).select(range(6))
    batch = Collator(packing=packing)(list(data))
    reference = ReferenceModel(load_model(world / "same"), _size(world / "same"), chunk_tokens=7)
    found = reference.fetch(batch).reference
    assert found is not None
    expected = torch.tensor(_log_probabilities(world / "same", data))
    torch.testing.assert_close(found.label_log_probabilities, expected, rtol=1e-4, atol=1e-5)


def test_by_default_the_reference_is_the_student_as_it_was(world: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(world / "same", copied)
    _run(world, tmp_path / "default", "g-opd")
    _run(world, tmp_path / "named", "g-opd", method_options={"reference": str(copied)})
    _run(world, tmp_path / "given", "g-opd", method_options={"reference": "a name in a matrix"}, reference=copied)
    for name in ("named", "given"):
        assert_same_weights(saved_weights(tmp_path / "default"), saved_weights(tmp_path / name), rtol=0, atol=0)
    # And it is read: at λ = 1 it drops out, and a reference that is the teacher leaves opd.
    _run(world, tmp_path / "plain", "opd")
    _run(world, tmp_path / "one", "g-opd", method_options={"reward_scale": 1.0})
    assert_same_weights(saved_weights(tmp_path / "plain"), saved_weights(tmp_path / "one"), rtol=1e-5, atol=1e-6)
    assert not all(
        torch.equal(a, b)
        for a, b in zip(
            saved_weights(tmp_path / "plain").values(), saved_weights(tmp_path / "default").values(), strict=True
        )
    )


def test_a_killed_run_reads_the_same_reference_again(dropping: Path, tmp_path: Path) -> None:
    changes = {"steps": 5, "checkpoint_steps": 2}
    _run(dropping, tmp_path / "whole", "g-opd", **changes)

    def kill(event: dict[str, Any]) -> None:
        if event["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(dropping, tmp_path / "killed", "g-opd", progress=kill, **changes)
    assert _run(dropping, tmp_path / "killed", "g-opd", **changes).resumed_from_step in (2, 4)
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "killed"), rtol=0, atol=0)


@pytest.mark.parametrize("method", ["g-opd", "iw-opd"])
def test_bfloat16_products_adapters_and_packed_rows_train_as_well(world: Path, tmp_path: Path, method: str) -> None:
    changes = {
        "dtype": "bfloat16",
        "packing": True,
        "lora": {"rank": 4},
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
    }
    report = _run(world, tmp_path, method, **changes)
    assert all(math.isfinite(value) for value in report.losses.values())


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("cross", r"the data was prepared for another student tokenizer"),
        ("nowhere", r"methods\.g-opd\.reference: no folder '.*nowhere'; fix: correct the path"),
    ],
)
def test_a_reference_that_cannot_be_one_is_refused(world: Path, tmp_path: Path, reference: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        _run(world, tmp_path / "out", "g-opd", method_options={"reference": str(world / reference)})
    assert not (tmp_path / "out").exists()


# Without a teacher


@pytest.mark.parametrize("student", ["same", "cross"])
def test_the_control_writes_the_same_text_and_asks_no_teacher(world: Path, tmp_path: Path, student: str) -> None:
    """Whatever the data was prepared for: the first step's text and tokens are those of a method with a teacher."""
    control = _run(world, tmp_path / "control", "opd-control", student, teacher=None, steps=1)
    judged = _run(world, tmp_path / "judged", "opd-chunks", student, steps=1)
    assert control.teacher_seconds == 0 < judged.teacher_seconds
    assert control.rollouts.samples == judged.rollouts.samples > 0
    assert control.rollouts.mean_length == judged.rollouts.mean_length
    (entry,) = logged(tmp_path / "control")
    assert entry["positive_advantages"] == 0
    # −½ on a fifth of the tokens of each text, rounded up.
    assert 0.5 * 0.2 <= -entry["advantage"] <= 0.5 * 0.5


def test_data_of_its_own_has_every_label_paired_with_itself(world: Path) -> None:
    data = datasets.load_from_disk(str(world / "cross-data"))
    own = as_its_own_teacher(data)
    batch: TokenBatch = Collator()(list(own))
    assert torch.equal(batch.student.labels, batch.teacher.labels)
    assert torch.equal(batch.student.pairs, batch.teacher.pairs)
    assert torch.equal(batch.student.pairs, torch.arange(len(batch.student.labels)))
    assert torch.equal(batch.student.groups, batch.teacher.groups)
    kept: TokenBatch = Collator()(list(data))
    assert torch.equal(batch.student.labels, kept.student.labels)


@pytest.mark.parametrize(
    ("rollouts", "reason"),
    [
        (None, r"rollouts: opd-control learns from on-policy text alone"),
        ({"share": 0.5}, r"fix: set share to 1"),
        ({"share": 1.0, "top_p": 0.9}, r"fix: set temperature and top_p to 1"),
    ],
)
def test_the_control_refuses_other_text(world: Path, tmp_path: Path, rollouts: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        _run(world, tmp_path / "out", "opd-control", teacher=None, rollouts=rollouts)


def test_text_must_be_sampled_at_the_methods_temperature_where_its_probability_is_read(
    world: Path, tmp_path: Path
) -> None:
    sampling = {"rollouts": {**ROLLOUTS, "temperature": 2.0}}
    with pytest.raises(InputError, match="fix: set temperature and top_p to 1"):
        _run(world, tmp_path / "out", "opd", **sampling)
    with pytest.raises(InputError, match="fix: set temperature to 2, the method's, and top_p to 1"):
        _run(world, tmp_path / "out", "opd", method_options={"temperature": 2.0})
    _run(world, tmp_path / "two", "opd", method_options={"temperature": 2.0}, steps=1, **sampling)
    # Where only the student's prefixes matter, any sampling does; the published runs of these draw with top-p 0.9.
    narrow = {"rollouts": {**ROLLOUTS, "top_p": 0.9}}
    _run(world, tmp_path / "narrow", "opd-top-k", steps=1, **narrow)
    with pytest.raises(InputError, match="fix: set temperature and top_p to 1"):
        _run(world, tmp_path / "out", "opd-top-k", method_options={"remainder": "sampled_tail"}, **narrow)
