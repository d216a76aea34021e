"""A training whose teacher stands behind an address: the weights of a live one, asked ahead, and through every fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from dskd.errors import InputError, TrainingFailed
from dskd.io import read_object
from dskd.teachers.options import ServedOptions
from dskd.training.checkpoints import RunFolder
from dskd.training.distiller import Distiller
from dskd.training.launch import launch_training
from helpers.pooling_server import PoolingServer, changed, cut, gone, in_training, short, slow, status, with_nan
from helpers.training_runs import OPTIONS, assert_same_weights, logged, saved_weights, train_tiny

# 20 examples are five micro-batches an epoch; a checkpoint after every second step.
COMMON: dict[str, Any] = {"steps": 8, "checkpoint_steps": 2, "max_gradient_norm": 0}


@pytest.fixture
def server(world: Path) -> Iterator[PoolingServer]:
    with PoolingServer(world / "teacher", counted=in_training) as server:
        yield server


def _served(*servers: PoolingServer, **options: Any) -> ServedOptions:
    given = {"dtype": "float32", "timeout": 30.0, "patience": 60.0, **options}
    return ServedOptions(addresses=tuple(server.url for server in servers), **given)


def _train(world: Path, output: Path, served: ServedOptions | None, **changes: Any) -> Any:
    return train_tiny(world, output, "dskd-v2-eta", served=served, **{**COMMON, **changes})


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a training that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with PoolingServer(world / "teacher", counted=in_training) as server:
        _train(world, folder, _served(server))
    return saved_weights(folder)


def _assert_equal(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    found = saved_weights(folder)
    assert found.keys() == weights.keys()
    assert [name for name, value in weights.items() if not torch.equal(found[name], value)] == []


def _last_good_step(output: Path) -> int:
    checkpoint = RunFolder(output).last_good_checkpoint()
    return 0 if checkpoint is None else read_object(checkpoint / "trainer_state.json")["global_step"]


def test_losses_are_those_of_a_live_teacher(world: Path, server: PoolingServer, tmp_path: Path) -> None:
    _train(world, tmp_path / "live", None)
    _train(world, tmp_path / "served", _served(server))
    live, served = logged(tmp_path / "live"), logged(tmp_path / "served")
    assert len(live) == COMMON["steps"]
    for step, other in zip(live, served, strict=True):
        assert step.keys() == other.keys()
        for name, value in step.items():
            assert other[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (step["step"], name)


def test_on_policy_text_is_sent_as_it_is_written(world: Path, server: PoolingServer, tmp_path: Path) -> None:
    changes: Any = {"gradient_accumulation_steps": 2, "steps": 4, "rollouts": {"share": 0.7, "max_new_tokens": 8}}
    _train(world, tmp_path / "live", None, **changes)
    report = _train(world, tmp_path / "served", _served(server), **changes)
    assert report.rollouts.samples > 0
    for step, other in zip(logged(tmp_path / "live"), logged(tmp_path / "served"), strict=True):
        assert other["loss"] == pytest.approx(step["loss"], rel=1e-5)
    assert report.served["requests"] == 7  # every micro-batch (three steps to an epoch of five), none ahead


def test_a_micro_batch_is_counted_before_the_next_is_waited_for(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    for name in ("request", "fetch", "counts"):
        plain = getattr(Distiller, name)

        def told(distiller: Distiller, batch: Any, name: str = name, plain: Any = plain) -> Any:
            order.append(name)
            return plain(distiller, batch)

        monkeypatch.setattr(Distiller, name, told)
    _train(world, tmp_path, None, steps=1, gradient_accumulation_steps=3)
    assert order == ["request"] * 3 + ["fetch", "counts"] * 3


def test_the_report_says_what_the_served_teacher_cost(world: Path, server: PoolingServer, tmp_path: Path) -> None:
    report = _train(world, tmp_path, _served(server, dtype="bfloat16"))
    served = report.served
    asked = server.requests[-COMMON["steps"] :]  # before them comes what the probe asks, which is not in the report
    sent = sum(len(text) for request in asked for text in request["input"][1:])
    assert served["tokens"] == sent
    assert (served["requests"], served["retries"]) == (COMMON["steps"], 0)  # those of the probe do not count
    assert served["bytes_received"] > 2 * 32 * served["tokens"]
    assert served["bytes_per_token"] == pytest.approx((served["bytes_sent"] + served["bytes_received"]) / sent)
    assert 0 < served["wait_seconds"] == pytest.approx(report.teacher_seconds)
    assert report.teacher_examples == COMMON["steps"] * OPTIONS["batch_size"]
    assert _train(world, tmp_path, _served(server)).served == served  # read from the record


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_so_many_steps_are_asked_about_before_theirs(
    world: Path, server: PoolingServer, tmp_path: Path, undisturbed: dict[str, torch.Tensor], ahead: int
) -> None:
    asked = []

    def after_step(event: dict[str, Any]) -> None:
        if "loss" not in event:
            time.sleep(0.3)  # what is under way arrives
            asked.append(len(server.requests))

    _train(world, tmp_path, _served(server, ahead=ahead), progress=after_step)
    probed = len(server.requests) - COMMON["steps"]
    # No further than the epoch's end after five steps, and the training's after eight.
    expected = [min(step + ahead, 5 if step <= 5 else 8) for step in range(1, 9)]
    assert [count - probed for count in asked] == expected
    _assert_equal(tmp_path, undisturbed)


@pytest.mark.parametrize(("stopped", "checkpoint_steps"), [(3, 2), (5, 4), (6, 5)])
def test_a_training_that_read_ahead_resumes_in_mid_epoch_and_at_its_end(
    world: Path,
    server: PoolingServer,
    tmp_path: Path,
    undisturbed: dict[str, torch.Tensor],
    stopped: int,
    checkpoint_steps: int,
) -> None:
    class Stopped(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["step"] == stopped and "loss" not in event:
            raise Stopped

    with pytest.raises(Stopped):
        _train(world, tmp_path, _served(server, ahead=2), progress=stop, checkpoint_steps=checkpoint_steps)
    report = _train(world, tmp_path, _served(server, ahead=2), checkpoint_steps=checkpoint_steps)
    assert report.resumed_from_step == (stopped - 1) // checkpoint_steps * checkpoint_steps
    _assert_equal(tmp_path, undisturbed)


PASSING = {
    "an error of the server": status(500),
    "a server that is busy": status(429),
    "a closed connection": gone,
    "half an answer": cut,
    "fewer bytes than it says": short,
    "no answer in time": slow(10.0),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_changes_no_weight(
    world: Path, server: PoolingServer, tmp_path: Path, undisturbed: dict[str, torch.Tensor], name: str
) -> None:
    def after_step(event: dict[str, Any]) -> None:
        if event["step"] == 3 and "loss" not in event:
            _at_next(server, PASSING[name], times=2)

    report = _train(world, tmp_path, _served(server, timeout=5.0), progress=after_step)
    assert report.served["retries"] >= 1
    _assert_equal(tmp_path, undisturbed)


def test_a_server_that_is_away_for_a_while_is_waited_for(
    world: Path, server: PoolingServer, tmp_path: Path, undisturbed: dict[str, torch.Tensor], caplog: Any
) -> None:
    def leave(event: dict[str, Any]) -> None:
        if event["step"] == 3 and "loss" not in event:
            server.down = True
            threading.Timer(1.5, lambda: setattr(server, "down", False)).start()

    report = _train(world, tmp_path, _served(server), progress=leave)
    assert 1 < report.served["away_seconds"] < 10
    said = [message for message in caplog.messages if server.url in message]
    assert len(said) == 2, said
    _assert_equal(tmp_path, undisturbed)


def test_processes_wait_for_each_other_for_longer_than_one_waits_for_a_teacher(
    world: Path, server: PoolingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, plain = [], transformers.TrainingArguments
    monkeypatch.setattr(transformers, "TrainingArguments", lambda **given: (seen.append(given), plain(**given))[1])
    _train(world, tmp_path / "live", None, steps=1)
    _train(world, tmp_path / "served", _served(server, patience=4000.0, timeout=30.0), steps=1)
    assert [given["ddp_timeout"] for given in seen] == [1800, 1800 + 4000 + 2 * 30]


def test_a_replica_takes_over_from_one_that_is_gone_for_good(
    world: Path, server: PoolingServer, tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    with PoolingServer(world / "teacher", counted=in_training) as second:

        def leave(event: dict[str, Any]) -> None:
            second.down = event["step"] >= 3

        _train(world, tmp_path, _served(server, second, patience=0.0), progress=leave)
        assert second.requests
    _assert_equal(tmp_path, undisturbed)


FATAL: dict[str, tuple[Callable[[PoolingServer, Path], None], type[Exception], str]] = {
    "not finite": (
        lambda server, _: _at_next(server, changed(with_nan)),
        TrainingFailed,
        "hidden states are not finite",
    ),
    "wrong shapes": (
        lambda server, _: _at_next(server, changed(lambda states: [each[:, :5] for each in states])),
        TrainingFailed,
        "has a hidden size of 5",
    ),
    "another model": (lambda server, world: server.serve(world / "cross"), TrainingFailed, "hidden size of 24"),
    "away for too long": (lambda server, _: setattr(server, "down", True), TrainingFailed, "no answer for 1 s"),
    "another name": (lambda server, _: setattr(server, "name", "other"), InputError, "its models: other"),
    "another key": (lambda server, _: _at_next(server, status(401)), InputError, "wants an API key"),
    "a text too long": (
        lambda server, _: _at_next(server, status(400, "maximum context length is 5")),
        InputError,
        "larger --max-model-len",
    ),
}


def _at_next(server: PoolingServer, fault: Any, times: int = 1) -> None:
    """The next requests meet a fault."""
    server.faults |= dict.fromkeys(range(len(server.requests), len(server.requests) + times), fault)


@pytest.mark.parametrize("name", FATAL)
def test_a_fault_that_stays_ends_the_training_with_a_line_and_its_last_checkpoint(
    world: Path, server: PoolingServer, tmp_path: Path, undisturbed: dict[str, torch.Tensor], name: str
) -> None:
    happen, kind, said = FATAL[name]

    def after_step(event: dict[str, Any]) -> None:
        if event["step"] == 3 and "loss" not in event:
            happen(server, world)

    threads = threading.active_count()
    with pytest.raises(kind, match=said) as error:
        _train(world, tmp_path, _served(server, patience=1.0), progress=after_step)
    assert str(error.value).startswith(f"{server.url}: ")
    assert "; fix: " in str(error.value)
    assert "\n" not in str(error.value)
    assert not [each for each in threading.enumerate() if each.name.startswith("dskd-")], threads
    assert _last_good_step(tmp_path) in (2, 4)
    assert not (tmp_path / "model").exists()
    server.down, server.name, server.faults = False, "teacher", {}
    server.serve(world / "teacher")
    assert _train(world, tmp_path, _served(server)).resumed_from_step in (2, 4)
    _assert_equal(tmp_path, undisturbed)


def _request(world: Path, output: Path, served: ServedOptions, **options: Any) -> dict[str, Any]:
    """Arguments of `train` as `_train` gives them, as JSON values."""
    source = {"folder": str(world / "teacher"), "served": served.model_dump(mode="json")}
    folders = {"data": "cross-data", "student": "cross", "teacher": "teacher"}
    return {key: str(world / name) for key, name in folders.items()} | {
        "teacher_source": source,
        "method": "dskd-v2-eta",
        "options": {**OPTIONS, **COMMON, **options},
        "seed": 3,
        "output": str(output),
    }


@pytest.mark.slow
def test_several_processes_and_trainings_share_a_server(
    world: Path, server: PoolingServer, tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    """A training of two processes, and one of one process beside it."""
    pair = threading.Thread(
        target=lambda: launch_training(
            _request(world, tmp_path / "pair", _served(server, timeout=60.0), batch_size=2), processes=2
        )
    )
    pair.start()
    launch_training(_request(world, tmp_path / "alone", _served(server, timeout=60.0)), processes=1)
    pair.join()
    _assert_equal(tmp_path / "alone", undisturbed)
    # Other micro-batches, so other rounding.
    assert_same_weights(saved_weights(tmp_path / "pair"), undisturbed, rtol=1e-3, atol=1e-3)
    report = read_object(tmp_path / "pair" / "model" / "training_report.json")
    assert report["teacher_examples"] == COMMON["steps"] * OPTIONS["batch_size"]
    assert report["served"]["requests"] == 2 * COMMON["steps"]
