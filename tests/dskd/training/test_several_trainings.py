"""Whole trainings with several teachers: folders in, a student out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError
from dskd.teachers.build_cache import build_teacher_cache
from dskd.teachers.options import ServedOptions, TeacherCacheOptions, TeacherSource
from dskd.training import setup_several
from dskd.training.launch import launch_training
from dskd.training.run import TrainingOptions, TrainingReport, train
from dskd.training.trainer import PROJECTORS
from dskd.training.worker import PROGRESS
from helpers import tiny_world
from helpers.pooling_server import PoolingServer
from helpers.several_teachers import STUDENT, copies, logged, sources
from helpers.training_runs import ROUNDING, assert_same_weights, saved_weights

OPTIONS = {"steps": 4, "batch_size": 6, "learning_rate": 1e-3, "logging_steps": 1}
WEIGHTS = (0.75, 0.25)


def _train(
    world: Path, output: Path, teachers: list[TeacherSource], method: str = "dskd-v2-eta", **changes: Any
) -> TrainingReport:
    return train(
        student=world / tiny_world.student_of(method),
        teachers=teachers,
        method=method,
        options=TrainingOptions(**{**OPTIONS, **changes}),
        seed=3,
        output=output,
    )


def _request(world: Path, teachers: list[TeacherSource], options: TrainingOptions, output: Path) -> dict[str, Any]:
    """What a process of its own is told."""
    return {
        "student": str(world / STUDENT),
        "teachers": [teacher.model_dump(mode="json") for teacher in teachers],
        "method": "dskd-v2-eta",
        "options": options.model_dump(mode="json"),
        "seed": 3,
        "output": str(output),
    }


@pytest.mark.parametrize("method", ["dskd-v2-eta", "uld", "alm", "gold", "x-token"])
def test_a_routed_training_logs_the_figures_of_each_teacher_and_of_both(
    world: Path, pair: Path, tmp_path: Path, method: str
) -> None:
    report = _train(world, tmp_path, sources(world, pair), method, steps=6)
    assert {name: own.examples for name, own in report.teachers.items()} == {"teacher": 10, "other": 10}
    # Batches of 6, 6, 6 and 2 are an epoch, and two more follow: each example is asked of its own teacher alone.
    assert report.teacher_examples == 32
    assert report.teacher_seconds == pytest.approx(sum(own.seconds for own in report.teachers.values()))
    steps = logged(tmp_path)
    share = {
        "dskd-v2-eta": ["aligned_share", "agreement"],
        "alm": ["grouped_share"],
        "gold": ["grouped_share"],
        "x-token": ["grouped_share"],
    }.get(method, [])
    for entry in steps:
        own = [name for name in ("teacher", "other") if f"{name}/loss" in entry]
        assert own, entry  # one alone may have taught a step
        for name in own:
            assert {
                f"{name}/{term}" for term in ("cross_entropy", "student_accuracy", "distilled_share", *share)
            } <= entry.keys()
        assert min(entry[f"{name}/cross_entropy"] for name in own) - 1e-6 <= entry["cross_entropy"]
        assert entry["cross_entropy"] <= max(entry[f"{name}/cross_entropy"] for name in own) + 1e-6
    assert {"teacher/loss", "other/loss", "cross_entropy"} <= report.losses.keys()
    assert 0 < report.distilled_share <= 1
    if method == "dskd-v2-eta":
        trained = load_file(tmp_path / "model" / PROJECTORS)
        assert {name.split(".")[0] for name in trained} == {"of_teacher", "of_other"}


def test_weighted_losses_add_up_to_the_loss(world: Path, pair: Path, tmp_path: Path) -> None:
    report = _train(world, tmp_path, sources(world, pair, WEIGHTS), gradient_accumulation_steps=2, batch_size=3)
    assert {name: own.examples for name, own in report.teachers.items()} == {"teacher": 20, "other": 20}
    for entry in logged(tmp_path):
        of_each = WEIGHTS[0] * entry["teacher/loss"] + WEIGHTS[1] * entry["other/loss"]
        assert entry["loss"] == pytest.approx(of_each, rel=1e-4)
        for term in ("cross_entropy", "teacher_space", "aligned_share"):
            mean = WEIGHTS[0] * entry[f"teacher/{term}"] + WEIGHTS[1] * entry[f"other/{term}"]
            assert entry[term] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["routed", "weighted"])
def test_the_order_in_which_teachers_are_given_changes_nothing(
    world: Path, pair: Path, tmp_path: Path, weights: Any
) -> None:
    teachers = sources(world, pair, weights)
    _train(world, tmp_path / "one", teachers, steps=2)
    _train(world, tmp_path / "other", teachers[::-1], steps=2)
    assert_same_weights(saved_weights(tmp_path / "one"), saved_weights(tmp_path / "other"), rtol=0, atol=0)
    assert logged(tmp_path / "one")[-1]["loss"] == logged(tmp_path / "other")[-1]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["routed", "weighted"])
@pytest.mark.parametrize("method", ["kd", "gold"])
def test_a_training_by_two_copies_of_a_teacher_is_the_training_by_that_teacher(
    world: Path, tmp_path: Path, method: str, weights: Any
) -> None:
    student = tiny_world.student_of(method)
    _train(world, tmp_path / "two", copies(world, tmp_path, student, weights), method)
    one = {"data": world / f"{student}-data", "student": world / student, "teacher": world / "teacher"}
    train(**one, method=method, options=TrainingOptions(**OPTIONS), seed=3, output=tmp_path / "one")
    assert_same_weights(saved_weights(tmp_path / "two"), saved_weights(tmp_path / "one"), **ROUNDING)
    for both, alone in zip(logged(tmp_path / "two"), logged(tmp_path / "one"), strict=True):
        terms = alone.keys() - {"grad_norm"}
        assert {name: both[name] for name in terms} == pytest.approx({name: alone[name] for name in terms}, rel=1e-4)


def test_a_cached_and_a_live_teacher_train_as_two_live_ones_do(world: Path, pair: Path, tmp_path: Path) -> None:
    alone, cache = tmp_path / "alone", tmp_path / "cache"
    prepare_dataset(world / "train.jsonl", alone, student=pair / "other")
    build_teacher_cache(pair / "other", alone, cache, options=TeacherCacheOptions())
    for weights in (None, WEIGHTS):
        live, mixed = tmp_path / f"live-{weights}", tmp_path / f"mixed-{weights}"
        _train(world, live, sources(world, pair, weights))
        report = _train(world, mixed, sources(world, pair, weights, other=cache))
        for ours, theirs in zip(logged(mixed), logged(live), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
        assert 0 < report.teacher_examples < 4 * 6 * 2  # of the live one alone


@pytest.mark.slow
def test_two_processes_train_as_one_does(world: Path, pair: Path, tmp_path: Path) -> None:
    # So few examples a process that one often has none of one of the teachers.
    options = {**OPTIONS, "steps": 5, "batch_size": 1, "logging_steps": 2}
    teachers = sources(world, pair)
    _train(world, tmp_path / "one", teachers, **{**options, "gradient_accumulation_steps": 2})
    request = _request(world, teachers, TrainingOptions(**options), tmp_path / "two")
    report = launch_training(request, processes=2)
    assert_same_weights(saved_weights(tmp_path / "two"), saved_weights(tmp_path / "one"), **ROUNDING)
    assert report.teacher_examples == 10
    for two, one in zip(logged(tmp_path / "two"), logged(tmp_path / "one"), strict=True):
        assert two.keys() == one.keys()
        terms = [name for name in one if name != "grad_norm"]
        assert {name: two[name] for name in terms} == pytest.approx({name: one[name] for name in terms}, rel=1e-4)


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_weights_of_one_that_was_not(
    world: Path, pair: Path, tmp_path: Path
) -> None:
    options = TrainingOptions(**{**OPTIONS, "steps": 40, "checkpoint_steps": 2})
    request = _request(world, sources(world, pair), options, tmp_path / "killed")
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "dskd.training.worker", str(tmp_path / "request.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith(PROGRESS) and json.loads(line.removeprefix(PROGRESS))["step"] >= 5:
                break
        process.kill()
    assert process.returncode == -9
    report, whole = (
        train(
            student=world / STUDENT,
            teachers=sources(world, pair),
            method="dskd-v2-eta",
            options=options,
            seed=3,
            output=output,
        )
        for output in (tmp_path / "killed", tmp_path / "whole")
    )
    assert 4 <= report.resumed_from_step < 40
    assert whole.resumed_from_step == 0
    assert_same_weights(saved_weights(tmp_path / "killed"), saved_weights(tmp_path / "whole"), rtol=0, atol=0)


def test_a_checkpoint_that_two_teachers_share_is_loaded_once(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load_model = setup_several.load_model
    monkeypatch.setattr(setup_several, "load_model", lambda *given: loaded.append(given) or load_model(*given))
    first, second = copies(world, tmp_path, STUDENT)
    moved = tmp_path / "moved"  # the same files under another name
    moved.mkdir()
    for file in (world / "teacher").iterdir():
        if file.is_file():
            (moved / file.name).write_bytes(file.read_bytes())
    report = _train(world, tmp_path / "run", [first, second.model_copy(update={"folder": moved})], steps=2)
    assert len(loaded) == 1
    assert report.teacher_examples == 12


def test_examples_that_not_all_weighted_teachers_have_are_left_out_and_counted(
    world: Path, pair: Path, tmp_path: Path
) -> None:
    first, second = sources(world, pair, WEIGHTS)
    report = _train(world, tmp_path, [first, second.model_copy(update={"data": pair / "half-other"})], "uld", steps=1)
    assert {name: (own.examples, own.unmatched) for name, own in report.teachers.items()} == {
        "teacher": (10, 10),
        "other": (10, 0),
    }


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["routed", "weighted"])
def test_a_method_without_a_teacher_trains_on_the_same_examples(
    world: Path, pair: Path, tmp_path: Path, weights: Any
) -> None:
    _train(world, tmp_path / "sft", sources(world, pair, weights), "sft")
    _train(world, tmp_path / "uld", sources(world, pair, weights), "uld")
    # The first step is taken by the same student on the same examples.
    assert logged(tmp_path / "sft")[0]["cross_entropy"] == pytest.approx(logged(tmp_path / "uld")[0]["cross_entropy"])


@pytest.mark.parametrize(
    ("weights", "staleness"), [(None, 0), (WEIGHTS, 0), (None, 1)], ids=["routed", "weighted", "stale"]
)
def test_the_text_of_the_student_goes_to_each_teacher_in_its_own_tokens(
    world: Path, pair: Path, tmp_path: Path, weights: Any, staleness: int
) -> None:
    rollouts = {"share": 1.0, "max_new_tokens": 8, "staleness": staleness}
    report = _train(world, tmp_path, sources(world, pair, weights), "gold", steps=3, rollouts=rollouts)
    assert report.rollouts.samples > 0
    assert all(f"{name}/loss" in report.losses for name in ("teacher", "other")) or weights is None
    texts = [json.loads(line) for line in (tmp_path / "rollouts" / "0.jsonl").read_text().splitlines()]
    assert sum(text["left_out"] is None for text in texts) > len(texts) // 2
    blocks = {1: 1, 2: 1, 3: 3} if staleness else {1: 1, 2: 2, 3: 3}
    assert {text["step"]: text["version"] for text in texts} == blocks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: [a, b.model_copy(update={"name": "teacher"})], "two are called 'teacher'"),
        (lambda a, b: [a, b.model_copy(update={"name": "a/b"})], "'a/b' is no name"),
        (lambda a, b: [a, b.model_copy(update={"data": None})], "other has no data"),
        (lambda a, b: [a, b.model_copy(update={"weight": 0.5})], "teacher has no weight and others have"),
        (
            lambda a, b: [each.model_copy(update={"weight": 0.4}) for each in (a, b)],
            "the weights sum to 0.8; fix: make them sum to 1",
        ),
        (lambda a, b: [a, b.model_copy(update={"data": a.data})], "teachers.other: .*another teacher tokenizer"),
        (
            lambda a, b: [each.model_copy(update={"weight": 0.5}) for each in (a, b)],
            "no example is in the data of all",
        ),
    ],
)
def test_teachers_that_do_not_go_together_are_refused_in_one_line(
    world: Path, pair: Path, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        _train(world, tmp_path / "run", change(*sources(world, pair)), "uld")
    assert "\n" not in str(error.value)
    assert "fix:" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_several_teachers_cannot_do_is_refused_in_one_line(world: Path, pair: Path, tmp_path: Path) -> None:
    teachers = copies(world, tmp_path, "same")
    with pytest.raises(InputError, match=r"minillm compares the texts of a step.*fix: give one teacher"):
        _train(world, tmp_path / "run", teachers, "minillm", rollouts={"share": 1.0, "max_new_tokens": 4})
    with pytest.raises(
        InputError, match=r"x-token compares the texts.*give one teacher, or set dynamic_scaling to false"
    ):
        train(
            student=world / STUDENT,
            teachers=sources(world, pair),
            method="x-token",
            method_options={"dynamic_scaling": True},
            options=TrainingOptions(**OPTIONS),
            output=tmp_path / "run",
        )
    published = "dskd.upstream.methods:DualSpaceV1CrossModelAttention"
    with pytest.raises(InputError, match="prompts and the padding of one teacher's batch"):
        train(
            student=world / STUDENT,
            teachers=sources(world, pair),
            method=published,
            method_options={"upstream_parity": True},
            options=TrainingOptions(**OPTIONS),
            output=tmp_path / "run",
        )
    with pytest.raises(InputError, match="give either teachers, or data and one teacher"):
        train(
            data=pair / "half-other",
            student=world / STUDENT,
            teachers=teachers,
            options=TrainingOptions(**OPTIONS),
            output=tmp_path,
        )


def test_a_served_and_a_live_teacher_train_as_two_live_ones_do(world: Path, pair: Path, tmp_path: Path) -> None:
    for weights in (None, WEIGHTS):
        live, mixed = tmp_path / f"live-{weights}", tmp_path / f"mixed-{weights}"
        _train(world, live, sources(world, pair, weights))
        first, second = sources(world, pair, weights)
        with PoolingServer(world / "teacher") as server:
            served = ServedOptions(addresses=(server.url,), dtype="float32")
            report = _train(world, mixed, [first.model_copy(update={"served": served}), second])
        for ours, theirs in zip(logged(mixed), logged(live), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
        assert report.served.keys() == report.probe.keys() == {"teacher"}
        assert report.served["teacher"]["tokens"] > 0
