"""Texts of several steps written at once: whose weights write them, what is kept of those, and runs that are killed in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dskd import methods
from dskd.data.collator import Collator
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.options import Options
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.sampler import Sample
from dskd.tokenization.vocabulary import Vocabulary
from dskd.training.distiller import Distiller
from dskd.training.run import TrainingOptions, train
from dskd.training.several_examples import SeveralCollator
from dskd.training.split_batches import SplitCollator
from dskd.training.written_statistics import note_written
from helpers.rollouts import Written, make_rollouts, numbered_rows, rollout_records, with_prompt
from helpers.training_runs import ROUNDING, assert_same_weights, logged, saved_weights, train_tiny

# 20 examples are five steps an epoch, so that blocks of steps end with epochs and in the middle of them.
ROLLOUTS = {"share": 1.0, "max_new_tokens": 10}


def _stale(staleness: int) -> dict[str, Any]:
    return {"rollouts": {**ROLLOUTS, "staleness": staleness}}


def _by_step(folder: Path, key: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for record in rollout_records(folder):
        found.setdefault(record["step"], []).append(record[key])
    return found


# Whose weights


def test_a_block_of_steps_is_written_by_the_weights_before_its_first_and_ends_with_its_epoch(
    world: Path, tmp_path: Path
) -> None:
    expected = {
        0: [1, 2, 3, 4, 5, 6, 7, 8],
        1: [1, 1, 3, 3, 5, 6, 6, 8],
        2: [1, 1, 1, 4, 4, 6, 6, 6],
        4: [1, 1, 1, 1, 1, 6, 6, 6],
    }
    still = train_tiny(world, tmp_path / "still", learning_rate=1e-12, steps=8, rollouts=ROLLOUTS)
    of_first_weights = _by_step(tmp_path / "still", "tokens")
    for staleness, versions in expected.items():
        folder = tmp_path / str(staleness)
        report = train_tiny(world, folder, steps=8, **_stale(staleness))
        found = _by_step(folder, "version")
        assert [set(found[step]) for step in range(1, 9)] == [{version} for version in versions]
        tokens = _by_step(folder, "tokens")
        for step, version in enumerate(versions, 1):
            assert (tokens[step] == of_first_weights[step]) == (version == 1), (staleness, step)
        # The same examples, whatever wrote them.
        assert report.rollouts.samples == still.rollouts.samples
        samples = [len(tokens[step]) for step in range(1, 9)]
        age = sum(n * (step - v) for step, (n, v) in enumerate(zip(samples, versions, strict=True), 1)) / sum(samples)
        assert report.rollouts.mean_age == (pytest.approx(age) if staleness else None)


def test_a_staleness_of_zero_is_the_training_without(dropping: Path, tmp_path: Path) -> None:
    assert RolloutOptions(staleness=0) == RolloutOptions()
    assert RolloutOptions(staleness=0).identity() == RolloutOptions().identity()
    assert "staleness" not in RolloutOptions().identity()
    assert RolloutOptions(staleness=2).identity() == {**RolloutOptions().identity(), "staleness": 2}
    train_tiny(dropping, tmp_path / "none", "minillm", rollouts=ROLLOUTS)
    train_tiny(dropping, tmp_path / "zero", "minillm", **_stale(0))
    assert_same_weights(saved_weights(tmp_path / "none"), saved_weights(tmp_path / "zero"), rtol=0, atol=0)


def test_old_texts_of_two_kinds_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"staleness writes texts before.*; fix: remove one of the two"):
        RolloutOptions(staleness=1, replay={})


def test_several_steps_take_one_call_of_the_engine(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))
    written = Written(Sample([5, 6], ended=False))
    rollouts = make_rollouts(world, "same", written, staleness=2)
    texts = rollouts.write({4: [rows[:2]], 5: [rows[2:4]], 6: [rows[4:6]]}, epoch=0)
    assert (written.updates, len(written.asked)) == (1, 6)
    assert not rollouts.counts, "counted when the step comes"
    for step, text in texts.items():
        assert [row["example"] for row in rollouts.use(text)[0]] == [row["example"] for row in rows[2 * step - 8 :][:2]]
        assert {row["version"] for row in text.batches[0]} == {4}
    assert rollouts.counts["samples"] == 6
    assert rollouts.counts["age"] == 2 * (0 + 1 + 2)


# What the weights thought


class TopK(Options):
    top_k: int = 4


def _distiller(world: Path, kind: str, chunk_tokens: int | None = None) -> Distiller:
    method = methods.get("sft")()
    method.requires = replace(method.requires, written_statistics=kind)
    method.options = TopK()
    size = Vocabulary.from_tokenizer(load_tokenizer(world / "same")).size
    return Distiller(load_model(world / "same"), method, student_size=size, chunk_tokens=chunk_tokens)


def _slow(model: Any, size: int, row: dict[str, Any]) -> list[torch.Tensor]:
    """log q at each label of a row, in float64, its prefix read anew for each: [vocabulary] each."""
    found = []
    for place in range(row["student_prompt_length"], len(row["student_ids"])):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["student_ids"][:place]])).logits[0, -1, :size].double()
        found.append(logits - logits.exp().sum().log())
    return found


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("chunk_tokens", [None, 5])
def test_statistics_are_those_of_a_slow_loop_and_reach_the_labels_in_every_layout(
    dropping: Path, packing: bool, chunk_tokens: int | None
) -> None:
    rows = [{**row, "sampled": k % 3 != 1} for k, row in enumerate(numbered_rows(dropping, "same")[:7])]
    distiller = _distiller(dropping, "top_k", chunk_tokens)
    distiller.train()
    collator = Collator(packing=packing)
    note_written(distiller, rows, lambda part: collator(part).student, rows_at_once=3)
    assert distiller.student.training
    model = load_model(dropping / "same").eval()
    slow = [_slow(model, distiller.student_size, row) for row in rows]
    for batch_rows in (rows, rows[::-1]):
        parts = SplitCollator(collator, 3)(batch_rows).parts
        found = torch.cat([part.student.written_log_probabilities for part in parts])
        whole = collator(batch_rows).student
        torch.testing.assert_close(found, whole.written_log_probabilities, rtol=0, atol=0)
        expected = slow if batch_rows is rows else slow[::-1]
        values = [
            float(log_q[label]) if row["sampled"] else 0.0
            for row, own in zip(batch_rows, expected, strict=True)
            for log_q, label in zip(own, row["student_ids"][row["student_prompt_length"] :], strict=True)
        ]
        torch.testing.assert_close(found.double(), torch.tensor(values).double(), rtol=1e-5, atol=1e-5)
        top = torch.stack([log_q for own in expected for log_q in own]).topk(4)
        assert torch.equal(whole.written_top_k_ids, top.indices)
        torch.testing.assert_close(whole.written_top_k_log_probabilities.double(), top.values, rtol=1e-5, atol=1e-5)


def test_nothing_is_computed_that_the_method_does_not_ask_for(world: Path) -> None:
    rows = [{**row, "sampled": k > 0} for k, row in enumerate(numbered_rows(world, "same")[:3])]

    def keys(kind: str) -> list[set[str]]:
        own = [dict(row) for row in rows]
        note_written(_distiller(world, kind), own, lambda part: Collator()(part).student, rows_at_once=8)
        return [{key for key in row if key.startswith("written")} for row in own]

    both = {"written_top_k_ids", "written_top_k"}
    assert keys("none") == [set()] * 3
    assert keys("log_probabilities") == [set(), *[{"written_log_probabilities"}] * 2]
    assert keys("top_k") == [both, *[both | {"written_log_probabilities"}] * 2]
    assert Collator()(rows).student.written_log_probabilities is None


def test_each_of_several_teachers_sees_what_the_weights_thought(world: Path) -> None:
    rows = numbered_rows(world, "same")[:3]
    items = [
        {"rows": {"a": row} if k else {"a": row, "b": row}, "example": k, "sampled": True} for k, row in enumerate(rows)
    ]
    collator = SeveralCollator(Collator())
    note_written(_distiller(world, "log_probabilities"), items, lambda part: collator(part).student, rows_at_once=2)
    batch = collator(items)
    first = torch.tensor(items[0]["written_log_probabilities"])
    assert torch.equal(batch.parts["b"].tokens.student.written_log_probabilities, first)
    whole = torch.cat([torch.tensor(item["written_log_probabilities"]) for item in items])
    assert torch.equal(batch.parts["a"].tokens.student.written_log_probabilities, whole)


def _spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor | None, torch.Tensor]]:
    """What minillm sees before each step: log q by the weights that wrote, and which labels the student wrote."""
    seen = []
    kind = methods.get("minillm")
    honest = kind.precompute_step

    def spy(self: Any, batches: Any, total: Any) -> Any:
        seen.extend((batch.student.written_log_probabilities, batch.student.sampled) for batch in batches)
        return honest(self, batches, total)

    monkeypatch.setattr(kind, "precompute_step", spy)
    return seen


def test_a_method_sees_them_where_texts_may_be_old_and_nowhere_else(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _spied(monkeypatch)
    train_tiny(world, tmp_path / "now", "minillm", rollouts=ROLLOUTS, steps=3)
    assert [written for written, _ in seen] == [None] * 3
    seen.clear()
    train_tiny(world, tmp_path / "old", "minillm", **_stale(4), steps=5)
    assert len(seen) == 5
    for written, sampled in seen:
        assert ((written < 0) == sampled).all()
        assert sampled.any()


def test_ratios_are_to_the_weights_that_wrote(world: Path, tmp_path: Path) -> None:
    clipped = {}
    for name, rollouts in (("now", ROLLOUTS), ("old", _stale(4)["rollouts"])):
        train(
            data=world / "same-data",
            student=world / "same",
            teacher=world / "teacher",
            method="minillm",
            method_options={"teacher_mix": 0.0},
            options=TrainingOptions(
                steps=5, batch_size=4, learning_rate=0.02, schedule="constant", logging_steps=1, rollouts=rollouts
            ),
            seed=3,
            output=tmp_path / name,
        )
        clipped[name] = [step["clipped_share"] for step in logged(tmp_path / name)]
    assert clipped["now"] == [0.0] * 5  # the weights are those that wrote, and there is no dropout
    assert clipped["old"][0] == 0.0
    assert min(clipped["old"][1:]) > 0.1


# Whole runs


@pytest.mark.parametrize("changes", [{"batch_size": 2, "gradient_accumulation_steps": 2}, {"split_batches": 2}])
def test_a_step_in_parts_has_the_same_texts_and_learns_the_same(
    world: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    options = {**_stale(1), "learning_rate": 1e-3}  # small: rounding in the layouts grows with each step
    whole = train_tiny(world, tmp_path / "whole", "minillm", **options)
    split = train_tiny(world, tmp_path / "split", "minillm", **options, **changes)
    assert rollout_records(tmp_path / "whole") == rollout_records(tmp_path / "split")
    for term, value in whole.losses.items():
        assert split.losses[term] == pytest.approx(value, rel=1e-3, abs=1e-5), term
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "split"), **ROUNDING)


def test_packed_rows_learn_what_padded_ones_do(world: Path, tmp_path: Path) -> None:
    padded, packed = (
        train_tiny(world, tmp_path / str(packing), "minillm", **_stale(4), packing=packing, steps=3, learning_rate=1e-3)
        for packing in (False, True)
    )
    assert rollout_records(tmp_path / "False") == rollout_records(tmp_path / "True")
    for term, value in padded.losses.items():
        assert packed.losses[term] == pytest.approx(value, rel=1e-3, abs=1e-5), term


TRAIN = """
    import json, os, signal, sys
    from pathlib import Path
    from dskd.training.run import TrainingOptions, train

    world, output, options, last = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])

    def progress(event):
        if event["step"] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    report = train(data=world / "same-data", student=world / "same", teacher=world / "teacher", method="minillm",
                   options=TrainingOptions(**options), seed=3, output=output, progress=progress)
    rank = os.environ.get("RANK", "0")
    (output / f"report-{rank}.json").write_text(report.model_dump_json())
    if "RANK" in os.environ:
        import torch
        torch.distributed.destroy_process_group()
"""


def _start(tmp_path: Path, world: Path, output: Path, options: Any, *, last: int = 0, processes: int = 1) -> Any:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*launcher, str(script), str(world), str(output), json.dumps(options), str(last)]
    return subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


OPTIONS = {"learning_rate": 1e-2, "logging_steps": 2}


@pytest.mark.slow  # trainings that are killed
@pytest.mark.parametrize(("staleness", "accumulated", "last"), [(1, 1, 6), (4, 1, 4), (1, 2, 5), (4, 3, 8)])
def test_a_run_killed_in_the_middle_of_a_block_goes_on_with_the_texts_that_were_written_for_it(
    dropping: Path, tmp_path: Path, staleness: int, accumulated: int, last: int
) -> None:
    """Checkpoints come after every second step; blocks begin with steps 1, 3, 5, 6, 8, or with steps 1 and 6."""
    options = {**OPTIONS, **_stale(staleness), "steps": 9, "checkpoint_steps": 3 if last == 4 else 2}
    options |= {"batch_size": 4 if accumulated == 1 else 2, "gradient_accumulation_steps": accumulated}
    whole = train_tiny(dropping, tmp_path / "whole", "minillm", **options)
    killed = _start(tmp_path, dropping, tmp_path / "killed", options, last=last)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert not (tmp_path / "killed" / "model").exists()
    report = train_tiny(dropping, tmp_path / "killed", "minillm", **options)
    assert 0 < report.resumed_from_step < last
    assert rollout_records(tmp_path / "killed") == rollout_records(tmp_path / "whole")
    assert report.losses == whole.losses
    assert {**report.rollouts.model_dump(), "seconds": 0} == {**whole.rollouts.model_dump(), "seconds": 0}
    left, right = ([drop_seconds(step) for step in logged(tmp_path / name)] for name in ("killed", "whole"))
    assert left == right
    assert_same_weights(saved_weights(tmp_path / "killed"), saved_weights(tmp_path / "whole"), rtol=0, atol=0)


def drop_seconds(step: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in step.items() if not key.endswith("seconds")}


@pytest.mark.slow  # a training of two processes
def test_two_processes_write_and_learn_what_one_does(world: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, **_stale(1), "steps": 5, "batch_size": 2, "learning_rate": 1e-3}
    done = _start(tmp_path, world, tmp_path / "two", options, processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    one = train_tiny(world, tmp_path / "one", "minillm", **options, gradient_accumulation_steps=2)
    assert rollout_records(tmp_path / "two") == rollout_records(tmp_path / "one")
    for rank in (0, 1):
        two = json.loads((tmp_path / "two" / f"report-{rank}.json").read_text())
        assert two["losses"] == pytest.approx(one.losses, rel=1e-3, abs=1e-5)
        assert {**two["rollouts"], "seconds": 0} == {**one.rollouts.model_dump(), "seconds": 0}
    for name, value in saved_weights(tmp_path / "one").items():
        torch.testing.assert_close(saved_weights(tmp_path / "two")[name], value, rtol=1e-3, atol=5e-5)
