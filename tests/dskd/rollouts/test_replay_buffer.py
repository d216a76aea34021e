"""The schedule of the student's text: the threshold and the buffer by themselves, and runs that learn by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dskd.errors import InputError
from dskd.modeling.loading import load_model
from dskd.rollouts.replay_buffer import Replay, ReplayOptions, held_out
from dskd.rollouts.rollouts import RolloutOptions
from dskd.rollouts.sampler import Sample
from helpers.rollouts import Written, make_rollouts, numbered_rows, rollout_records, with_prompt
from helpers.training_runs import OPTIONS, ROUNDING, assert_same_weights, saved_weights, train_tiny

# A buffer that is full after some steps, and half of the examples the student's.
ADAPTIVE = {"capacity": 5, "initial_threshold": 0.7, "validation_share": 0.2, "validation_steps": 3}
ROLLOUTS = {"max_new_tokens": 10, "replay": ADAPTIVE}


def _replay(steps: int = 10, kept: Any = (), share: float = 0.5, **options: Any) -> Replay:
    replay = Replay(ReplayOptions(**options), share, steps)
    replay.keep({"example": example} for example in kept)
    return replay


# The threshold and the buffer


@pytest.mark.parametrize(
    ("part", "step", "written"),
    [
        ("decreasing", 1, 0.54),  # 0.6 · (1 − 1 / 10)
        ("decreasing", 10, 0.0),
        ("constant", 7, 0.3),
        ("increasing", 1, 0.06),
        ("increasing", 10, 0.6),
    ],
)
def test_of_the_threshold_a_part_is_written_anew_and_the_rest_is_drawn_from_a_full_buffer(
    part: str, step: int, written: float
) -> None:
    replay = _replay(kept=[1, 2], capacity=2, initial_threshold=0.6, newly_written=part)
    eps = 1e-9
    expected = [(0.6, "data"), (0.99, "data"), (0.6 - eps, "replay" if written < 0.6 else "write")]
    expected += [(written - eps, "write"), (0.0, "write")] if written else [(0.0, "replay")]
    if written < 0.6:
        expected.append((written + eps, "replay"))
    assert [(number, replay.choose(number, step)) for number, _ in expected] == expected


def test_until_the_buffer_is_full_all_of_the_students_text_is_written_anew() -> None:
    replay = _replay(kept=[1, 2], capacity=3, initial_threshold=0.6)
    assert [replay.choose(number, 10) for number in (0.0, 0.59, 0.6)] == ["write", "write", "data"]
    replay.keep([{"example": 3}])
    assert [replay.choose(number, 10) for number in (0.0, 0.59, 0.6)] == ["replay", "replay", "data"]


@pytest.mark.parametrize(
    ("reference", "thresholds"),
    [
        # 2.0 is the first; 1.5 is no rise; 1.7 rises by 0.2 over the lowest, but not over the first.
        ("last_increase", [0.0, 0.0, 0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ("lowest", [0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0, 1.0]),
    ],
)
def test_the_threshold_rises_where_the_validation_loss_has_risen_by_the_tolerance_and_stops_at_one(
    reference: str, thresholds: list[float]
) -> None:
    replay = _replay(loss_reference=reference, threshold_increase=0.25, loss_tolerance=0.125)
    found = []
    for step, loss in enumerate((2.0, 1.5, 1.75, 2.125, 2.2, 2.5, 3.0, 4.0, 5.0)):
        replay.validated(loss, step, 0)
        found.append(replay.threshold)
    assert found == thresholds
    assert len(replay.validation_losses) == 9


def test_validations_come_at_each_epoch_or_every_so_many_steps() -> None:
    def asked(**options: Any) -> list[Any]:
        replay, steps = _replay(**options), []
        for step in range(1, 13):
            epoch = (step - 1) // 5
            if replay.validation_is_due(step, epoch):
                replay.validated(1.0, step, epoch)
                steps.append(step)
        return steps

    assert asked() == [1, 6, 11]
    assert asked(validation_steps=4) == [1, 5, 9]
    assert asked(schedule="mixed") == []


def test_the_buffer_takes_rows_in_the_order_of_their_examples_and_drops_the_oldest() -> None:
    replay = _replay(capacity=3)
    replay.keep([{"example": 9}, {"example": 4}])
    replay.keep([{"example": 7}, {"example": 1}])
    assert [replay.draw(number)["example"] for number in (0.0, 0.34, 0.67, 0.999)] == [9, 1, 7, 7]


def test_numbers_spread_evenly_draw_every_row_equally_often() -> None:
    replay = _replay(kept=range(8), capacity=8)
    drawn = [replay.draw(k / 1000)["example"] for k in range(1000)]
    assert np.bincount(drawn).tolist() == [125] * 8
    assert _replay().draw(0.5) is None


@pytest.mark.parametrize("kind", ["adaptive", "mixed"])
def test_what_is_saved_goes_on_as_what_was_not(tmp_path: Path, kind: str) -> None:
    options = {"capacity": 3, "loss_tolerance": 0.125, "initial_threshold": 0.5, "schedule": kind}
    ours = _replay(kept=[5, 2, 8, 3], **options)
    ours.validated(1.0, 1, 0)
    ours.validated(1.25, 4, 1)
    ours.save(tmp_path / "replay.json")
    other = _replay(**options)
    other.load(tmp_path / "replay.json")
    for replay in (ours, other):
        replay.validated(1.3, 6, 1)
        replay.keep([{"example": 1}])
    assert other.validation_is_due(7, 1) == ours.validation_is_due(7, 1)
    assert (other.threshold, other.validation_losses) == (ours.threshold, ours.validation_losses)
    assert [other.draw(k / 3) for k in range(3)] == [ours.draw(k / 3) for k in range(3)]


@pytest.mark.parametrize(("examples", "share", "count"), [(100, 0.05, 5), (10, 0.01, 1), (3, 0.99, 2), (2, 0.5, 1)])
def test_some_examples_are_held_out_and_never_all(examples: int, share: float, count: int) -> None:
    kept = held_out(examples, share)
    assert len(set(kept)) == len(kept) == count
    assert kept == sorted(kept)
    assert all(0 <= k < examples for k in kept)
    assert kept == held_out(examples, share)


# Rows of a batch


def _rollouts(world: Path, *samples: Sample, steps: int = 10, **replay: Any) -> Any:
    rollouts = make_rollouts(world, "same", Written(*samples), share=0.5, replay=ReplayOptions(**replay))
    rollouts.replay.steps = steps
    return rollouts


def test_a_text_that_is_drawn_brings_its_own_prompt_and_counts_as_the_students(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))[:8]
    rollouts = _rollouts(world, Sample([5, 0], True), Sample([6], False), capacity=8, initial_threshold=1.0)
    (written,) = rollouts.take([rows], epoch=0, step=1)
    assert all(row["sampled"] for row in written)
    assert rollouts.counts["written"] == 8
    (drawn,) = rollouts.take([rows], epoch=1, step=10)
    assert rollouts.counts["samples"] == 8
    assert rollouts.counts["replayed"] == 8
    assert all(row in written for row in drawn)
    assert drawn != written


def test_what_the_weights_thought_of_a_text_stays_with_it_in_the_buffer(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))[:8]
    rollouts = _rollouts(world, Sample([5, 6], ended=False), schedule="mixed")
    steps = []

    def note(noted: list[dict[str, Any]]) -> None:
        steps.append(noted)
        for row in noted:
            if row["sampled"]:
                row["written_log_probabilities"] = [-float(len(steps))] * 2

    rollouts.note_weights = note
    for step in (1, 2, 3):
        (taken,) = rollouts.take([rows], epoch=0, step=step)
        own = [row for row in taken if row["sampled"]]
        assert own
        assert all(row["written_log_probabilities"] == [-float(row["version"])] * 2 for row in own)
    assert {row["version"] for row in own} > {3}
    assert len(steps) == 3


def test_mixed_writes_and_trains_on_what_the_buffer_holds(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))
    rollouts = _rollouts(world, Sample([5, 0], True), Sample([6], False), schedule="mixed", capacity=1000)
    (first,) = rollouts.take([rows], epoch=0, step=1)
    count = rollouts.counts["samples"]
    assert 0 < count < len(rows)
    assert (rollouts.counts["replayed"], rollouts.counts["written"]) == (count, 0)
    assert rollouts.counts["data"] == len(rows) - count == sum(not row["sampled"] for row in first)
    kept = [rollouts.replay.draw((k + 0.5) / count) for k in range(count)]
    assert all(row in kept for row in first if row["sampled"])


def test_which_rows_are_drawn_does_not_depend_on_the_batch(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))
    options = {"capacity": 4, "initial_threshold": 0.6}
    whole, split = (_rollouts(world, Sample([5, 0], True), Sample([6], False), **options) for _ in range(2))
    for step in (1, 6, 7):
        (expected,) = whole.take([rows], epoch=step, step=step)
        parts = split.take([rows[:3], rows[3:]], epoch=step, step=step)
        assert parts == [expected[:3], expected[3:]]
    assert whole.counts["replayed"] > 0
    assert whole.counts["data"] > 0


# Whole runs


def _run(world: Path, output: Path, **changes: Any) -> Any:
    return train_tiny(world, output, "distillm", **{"steps": 12, "rollouts": ROLLOUTS, **changes})


def _weights_are_equal(left: Path, right: Path) -> None:
    assert_same_weights(saved_weights(left), saved_weights(right), rtol=0, atol=0)


def test_a_training_ends_and_says_what_was_written_and_drawn_again(world: Path, tmp_path: Path) -> None:
    logged = []
    report = _run(world, tmp_path, progress=logged.append)
    replay = report.rollouts.replay
    assert replay.written + replay.replayed + replay.data == 12 * 4
    assert replay.written == report.rollouts.samples > 5
    assert not set(report.rollouts.left_out) - {"no prompt"}
    assert replay.replayed > 5
    assert replay.data > 5
    assert replay.replayed_share == replay.replayed / (replay.replayed + replay.written)
    assert len(replay.validation_losses) == 4  # before steps 1, 4, 7, 10
    assert replay.threshold >= 0.7
    assert not {"validation_loss", "rollout_threshold", "rollouts_replayed"} & set(report.losses)
    last = [event for event in logged if "loss" in event][-1]
    assert last["rollouts_replayed"] == replay.replayed
    assert last["validation_loss"] == replay.validation_losses[-1]
    # Nobody has seen what was held out: 20 examples, a share of 0.2.
    seen = {record["example"] for record in rollout_records(tmp_path)}
    assert not seen & set(held_out(20, 0.2))


def test_the_validation_loss_is_the_cross_entropy_of_the_held_out_examples(dropping: Path, tmp_path: Path) -> None:
    report = _run(dropping, tmp_path, steps=1)
    model = load_model(dropping / "same").eval()
    rows = numbered_rows(dropping, "same")
    total = count = 0
    for k in held_out(20, 0.2):
        start, ids = rows[k]["student_prompt_length"], rows[k]["student_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum").item()
        count += len(ids) - start
    assert report.rollouts.replay.validation_losses == [pytest.approx(total / count, rel=1e-5)]


def test_a_loss_that_rises_raises_the_share_of_the_students_text(world: Path, tmp_path: Path) -> None:
    options = {**ADAPTIVE, "initial_threshold": 0.0, "loss_tolerance": 0.0, "threshold_increase": 0.5}
    report = _run(
        world, tmp_path, learning_rate=0.3, schedule="constant", rollouts={**ROLLOUTS, "replay": options}
    )  # so large a rate that the student forgets
    replay = report.rollouts.replay
    assert replay.validation_losses[1] > replay.validation_losses[0]
    assert replay.threshold > 0
    records = rollout_records(tmp_path)
    assert records
    assert min(record["step"] for record in records) >= 4  # the second validation is before step 4


def test_accumulation_changes_neither_texts_nor_validation_nor_what_is_learned(world: Path, tmp_path: Path) -> None:
    whole = _run(world, tmp_path / "whole")
    split = _run(world, tmp_path / "split", batch_size=1, gradient_accumulation_steps=4)
    assert rollout_records(tmp_path / "whole") == rollout_records(tmp_path / "split")
    ours, theirs = (report.rollouts.replay.model_dump() for report in (whole, split))
    assert ours.pop("validation_losses") == pytest.approx(theirs.pop("validation_losses"), rel=1e-4)
    assert ours == theirs
    assert_same_weights(
        saved_weights(tmp_path / "whole"),
        saved_weights(tmp_path / "split"),
        **ROUNDING,
    )


def test_mixed_trains_without_holding_anything_out(world: Path, tmp_path: Path) -> None:
    report = _run(world, tmp_path, rollouts={"max_new_tokens": 10, "replay": {"schedule": "mixed"}})
    replay = report.rollouts.replay
    assert replay.replayed == report.rollouts.samples > 5
    assert (replay.threshold, replay.validation_losses) == (None, [])


TRAIN = """
    import json, os, signal, sys
    from pathlib import Path
    from dskd.training.run import TrainingOptions, train

    world, output, options, last = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])

    def progress(event):
        if event["step"] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    report = train(data=world / "same-data", student=world / "same", teacher=world / "teacher", method="distillm",
                   options=TrainingOptions(**options), seed=3, output=output, progress=progress)
    rank = os.environ.get("RANK", "0")
    (output / f"report-{rank}.json").write_text(report.model_dump_json())
    if "RANK" in os.environ:
        import torch
        torch.distributed.destroy_process_group()
"""


def _start(
    tmp_path: Path,
    world: Path,
    output: Path,
    options: dict[str, dict[str, Any] | float],
    *,
    last: int = 0,
    processes: int = 1,
) -> Any:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*launcher, str(script), str(world), str(output), json.dumps(options), str(last)]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_its_buffer_and_threshold(dropping: Path, tmp_path: Path) -> None:
    # Killed after step 8: the last checkpoint is that of step 6, when the buffer is full and the loss was measured twice.
    options = {**OPTIONS, "steps": 12, "checkpoint_steps": 3, "rollouts": ROLLOUTS}
    whole = _run(dropping, tmp_path / "whole", checkpoint_steps=3)
    killed = _start(tmp_path, dropping, tmp_path / "killed", options, last=8)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert not (tmp_path / "killed" / "model").exists()
    state = json.loads((tmp_path / "killed" / "checkpoints" / "checkpoint-6" / "replay.json").read_text())
    assert len(state["buffer"]) == ADAPTIVE["capacity"]
    report = _run(dropping, tmp_path / "killed", checkpoint_steps=3)
    assert report.resumed_from_step == 6
    assert report.rollouts.replay.validation_losses == whole.rollouts.replay.validation_losses
    assert report.rollouts.replay.threshold == whole.rollouts.replay.threshold
    assert report.rollouts.replay.replayed > 0
    assert rollout_records(tmp_path / "killed") == rollout_records(tmp_path / "whole")
    _weights_are_equal(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow  # two processes
def test_two_processes_write_draw_and_learn_what_one_does(world: Path, tmp_path: Path) -> None:
    options = {"steps": 10, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "rollouts": ROLLOUTS}
    done = _start(tmp_path, world, tmp_path / "two", options, processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    one = _run(world, tmp_path / "one", **options, gradient_accumulation_steps=2)
    assert rollout_records(tmp_path / "two") == rollout_records(tmp_path / "one")
    expected = one.rollouts.replay.model_dump()
    losses = expected.pop("validation_losses")
    assert expected["replayed"] > 5
    for rank in (0, 1):
        two = json.loads((tmp_path / "two" / f"report-{rank}.json").read_text())
        assert two["rollouts"]["replay"].pop("validation_losses") == pytest.approx(losses, rel=1e-5)
        assert two["rollouts"]["replay"] == expected
        assert two["losses"] == pytest.approx(one.losses, rel=1e-4)
    for name, value in saved_weights(tmp_path / "one").items():
        torch.testing.assert_close(saved_weights(tmp_path / "two")[name], value, rtol=1e-4, atol=2e-5)


def test_batches_by_tokens_leave_room_for_the_longest_prompt_with_a_text(world: Path, tmp_path: Path) -> None:
    options = {**ROLLOUTS, "replay": {**ADAPTIVE, "initial_threshold": 1.0}}
    _run(world, tmp_path, rollouts=options, batch_tokens=120, batch_size=16, packing=True)


def test_a_share_beside_the_adaptive_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="either share or the adaptive schedule"):
        RolloutOptions(share=0.3, replay={})
    assert RolloutOptions(share=0.3, replay={"schedule": "mixed"}).share == 0.3
    # Options that were filled in are the same options again.
    assert RolloutOptions(**RolloutOptions(replay={}).model_dump()) == RolloutOptions(replay={})


def test_a_method_that_learns_from_its_own_present_text_takes_no_old_one(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dskd import methods

    method = methods.get("distillm")
    monkeypatch.setattr(method, "requires", replace(method.requires, on_policy="always"))
    with pytest.raises(InputError, match=r"rollouts\.replay: distillm.*fix: remove replay"):
        _run(world, tmp_path / "out", rollouts={"share": 1.0, "replay": {"schedule": "mixed"}})
