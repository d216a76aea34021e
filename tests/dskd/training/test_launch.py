"""Processes started and watched by `launch_training`, and the accelerate configurations that ship."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

from dskd.errors import InputError, TrainingFailed
from dskd.training.launch import configuration_file, configurations, launch_training
from helpers.shadows import write_shadows


def _request(world: Path, output: Path, **changes: Any) -> dict[str, Any]:
    options = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 2, **changes.pop("options", {})}
    return {
        "data": str(world / "cross-data"),
        "student": str(world / "cross"),
        "teacher": str(world / "teacher"),
        "method": "dskd-v2-eta",
        "method_options": None,
        "seed": 3,
        "options": options,
        "output": str(output),
        "teacher_cache": None,
        **changes,
    }


on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="where there is no GPU")


@pytest.mark.slow
@on_cpu
def test_two_processes_train_tell_how_far_they_are_and_give_the_report(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_shadows(tmp_path / "cwd"))  # none of the processes imports from there
    events, lines = [], []
    request = _request(world, tmp_path)
    report = launch_training(request, processes=2, on_progress=events.append, on_line=lines.append)
    assert report.steps == 4
    assert [event["step"] for event in events if "loss" not in event] == [1, 2, 3, 4]  # of the first process alone
    assert [event["step"] for event in events if "loss" in event] == [2, 4]
    assert json.loads((tmp_path / "model" / "training_report.json").read_text()) == report.model_dump()
    assert not any(line.startswith("dskd-") for line in lines)
    with pytest.raises(InputError, match="holds a training with another seed; fix:"):
        launch_training({**request, "seed": 4}, processes=2)


@on_cpu
def test_what_stops_a_training_is_what_the_caller_gets(world: Path, tmp_path: Path) -> None:
    diverging = {"learning_rate": 1e30, "max_gradient_norm": 0, "logging_steps": 1}
    with pytest.raises(TrainingFailed, match=r"the loss is nan at step \d; fix: lower learning_rate"):
        launch_training(_request(world, tmp_path, method="sft", options=diverging), processes=2)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow  # two processes
def test_a_worker_prints_its_error_once_and_exits_non_zero(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    for changes, kind, words in (
        ({"student": str(tmp_path / "nowhere")}, "input", "no such"),
        ({"options": {"batch_sizes": 3}}, "other", "ValidationError"),
    ):
        path.write_text(json.dumps(_request(world, tmp_path / "out", **changes)))
        done = subprocess.run([sys.executable, "-m", "dskd.training.worker", str(path)], capture_output=True, text=True)
        errors = [line for line in done.stdout.splitlines() if line.startswith("dskd-error ")]
        assert done.returncode != 0
        assert len(errors) == 1
        told = json.loads(errors[0].removeprefix("dskd-error "))
        assert told["kind"] == kind
        assert words in told["message"]


LAUNCH = """
    import json, sys
    from dskd.training.launch import launch_training
    launch_training(json.loads(sys.argv[1]), processes=2, on_progress=lambda event: print(event["step"], flush=True))
"""


@pytest.mark.slow  # two processes
@on_cpu
def test_no_process_is_left_when_the_launcher_is_killed(world: Path, tmp_path: Path) -> None:
    request = json.dumps(_request(world, tmp_path, options={"steps": 100_000}))
    launcher = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LAUNCH), request], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    launcher.stdout.readline()  # they train
    started = psutil.Process(launcher.pid).children(recursive=True)
    assert len([process for process in started if "dskd.training.worker" in process.cmdline()]) >= 2
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    limit = time.monotonic() + 30
    while (left := [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]) and (
        time.monotonic() < limit
    ):
        time.sleep(0.1)
    for process in left:
        process.kill()
    assert not left


@pytest.mark.parametrize("name", configurations())
def test_a_configuration_that_ships_says_what_accelerate_reads(name: str) -> None:
    path = configuration_file(name)
    config = load_config_from_file(str(path))  # refuses unknown keys at the top
    assert isinstance(config, ClusterConfig)
    kind, _, size = name.partition("-")
    assert config.num_machines == int(size.partition("x")[0])
    assert config.num_processes == 8 * config.num_machines
    assert config.distributed_type.value == {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}.get(kind, "DEEPSPEED")
    # The keys inside are options of `accelerate launch`, which passes over those that it does not know.
    from accelerate.commands.launch import launch_command_parser

    known = {action.dest for action in launch_command_parser()._actions}
    written = yaml.safe_load(path.read_text())
    for part in ("fsdp_config", "deepspeed_config"):
        assert set(written.get(part, {})) <= known


@pytest.mark.parametrize("name", [name for name in configurations() if name.startswith("fsdp2")])
def test_accelerate_makes_fsdp2_of_the_configuration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(["--config_file", str(configuration_file(name)), "a.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    assert isinstance(arguments, argparse.Namespace)
    assert arguments.use_fsdp
    for key, value in prepare_multi_gpu_env(arguments).items():
        if key.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert plugin.auto_wrap_policy is not None
    assert not plugin.cpu_ram_efficient_loading


def test_a_configuration_that_cannot_be_used_is_refused_before_anything_starts(world: Path, tmp_path: Path) -> None:
    request = _request(world, tmp_path / "out")
    with pytest.raises(InputError, match=r"no-such: no such accelerate configuration; fix: .*fsdp2-1x8"):
        launch_training(request, accelerate_config="no-such")
    with pytest.raises(InputError, match=r"ddp-2x8: is for 2 machines.*; fix: start dskd\.worker on each"):
        launch_training(request, accelerate_config="ddp-2x8")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("distributed_type: MULTI_GPU\nnumber_of_processes: 8\n")
    with pytest.raises(InputError, match=r"wrong\.yaml: not an accelerate configuration .*number_of_processes"):
        launch_training(request, accelerate_config=str(wrong))
    assert not (tmp_path / "out").exists()


@on_cpu
def test_a_configuration_for_gpus_is_refused_where_there_are_none(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ddp-1x8: needs 8 GPUs, but there is none here; fix: give processes"):
        launch_training(_request(world, tmp_path / "out"), accelerate_config="ddp-1x8")


@pytest.mark.slow
@on_cpu
def test_a_configuration_of_ones_own_starts_its_processes(world: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    # accelerate's kind for several processes on CPUs; one process, because several need MPI.
    own.write_text("distributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n")
    assert launch_training(_request(world, tmp_path / "out"), accelerate_config=str(own)).steps == 4


@pytest.mark.gpu
@pytest.mark.skipif(torch.accelerator.device_count() < 2, reason="two GPUs")
@pytest.mark.parametrize("name", ["ddp-1x8", "fsdp2-1x8"])
def test_two_gpus_train_to_the_loss_of_one(world: Path, tmp_path: Path, name: str) -> None:
    two = launch_training(_request(world, tmp_path / "two"), processes=2, accelerate_config=name)
    alone = {"gradient_accumulation_steps": 2}
    one = launch_training(_request(world, tmp_path / "one", options=alone), processes=1)
    assert two.losses["loss"] == pytest.approx(one.losses["loss"], rel=1e-3)
