"""Starts the processes that train one student together, and hands on what they say (docs/processes.md)."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dskd.errors import InputError, NotFinite, OutOfMemory, PartnerLost, Stopped, TrainingFailed
from dskd.processes import process_environment, python_module
from dskd.training.checkpoints import REPORT, RunFolder
from dskd.training.options import TrainingReport
from dskd.training.worker import ERROR, PROGRESS, stop_file

CONFIGURATIONS = Path(__file__).parents[1] / "accelerate_configs"
_SECONDS_TO_END = 15  # torchrun ends its workers when it is asked to end
# Where a cluster signals every process, torchrun hands this on to its workers, which stop after a checkpoint. It waits so long for that.
_TORCHRUN = {"PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1", "PET_SHUTDOWN_TIMEOUT": "600"}
_ASK_SECONDS = 0.2


def launch_training(
    request: Mapping[str, Any],
    *,
    processes: int | None = None,
    accelerate_config: str | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainingReport:
    """Run `dskd.training.train` in several processes of this machine and return its report; raises as it does.

    `request`: train's arguments as JSON values. `accelerate_config`: a name that ships or a file; without it `processes` are started
    by torchrun (DDP). `on_line` gets every line that they print which is no progress. `stop` is asked a few times a second.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "request.json"
        path.write_text(json.dumps(dict(request)), encoding="utf-8")
        command = [*_launcher(processes, accelerate_config), "--module", "dskd.training.worker", str(path)]
        with _handing_on(stop, stop_file(str(path))):
            errors, code = _run(command, on_progress, on_line)
    if code != 0:
        _raise(errors, code)
    report = RunFolder(Path(request["output"])).model / REPORT
    return TrainingReport.model_validate_json(report.read_text(encoding="utf-8"))


def configurations() -> list[str]:
    """The names of the accelerate configurations that ship."""
    return sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))


def configuration_file(name: str) -> Path:
    """The file of a configuration: one that ships, by its name, or a path. Raises InputError where there is none."""
    if name in configurations():
        return CONFIGURATIONS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    raise InputError(
        f"{name}: no such accelerate configuration; fix: give a file, or one of {', '.join(configurations())}"
    )


def _launcher(processes: int | None, accelerate_config: str | None) -> list[str]:
    import yaml
    from accelerate.commands.config.config_args import load_config_from_file

    if accelerate_config is None:
        count = processes or 1
        _require_devices(count, "processes")
        return python_module("torch.distributed.run", "--standalone", "--nproc_per_node", str(count))
    path = configuration_file(accelerate_config)
    try:
        config: Any = load_config_from_file(str(path))
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not an accelerate configuration ({reason}); fix: see docs/processes.md") from error
    if config.num_machines > 1:
        raise InputError(
            f"{accelerate_config}: is for {config.num_machines} machines, of which only this one could be started; "
            "fix: start dskd.worker on each, as docs/processes.md says"
        )
    if not config.use_cpu:
        _require_devices(processes or config.num_processes, accelerate_config, gpu=True)
    number = [] if processes is None else ["--num_processes", str(processes)]
    return python_module("accelerate.commands.launch", "--config_file", str(path), *number)


def _require_devices(count: int, what: str, *, gpu: bool = False) -> None:
    import torch

    found = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if gpu and not found:
        raise InputError(
            f"{what}: needs {count} GPUs, but there is none here; fix: give processes without a configuration"
        )
    if count > found > 0:
        raise InputError(
            f"{what}: {count} processes need {count} GPUs, but {found} are here; fix: give processes {found}"
        )


def _run(
    command: list[str], on_progress: Callable[[dict[str, Any]], None] | None, on_line: Callable[[str], None] | None
) -> tuple[list[dict[str, Any]], int]:
    """(what the workers' error lines hold, exit code); leaves no process behind, whatever happens here."""
    errors: list[dict[str, Any]] = []
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=process_environment(_TORCHRUN),  # the launchers start the workers by themselves
        start_new_session=True,  # a signal to the caller's process group would end the workers before their checkpoint
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            line = line.rstrip("\n")
            if line.startswith(PROGRESS):
                if on_progress is not None:
                    on_progress(json.loads(line.removeprefix(PROGRESS)))
            elif line.startswith(ERROR):
                errors.append(json.loads(line.removeprefix(ERROR)))
            elif on_line is not None:
                on_line(line)
        return errors, process.wait()
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()  # its workers see that it is gone
                process.wait()


@contextmanager
def _handing_on(stop: Callable[[], bool] | None, file: Path) -> Iterator[None]:
    """Make the file that asks the processes to stop as soon as the caller is asked to."""
    done = threading.Event()

    def watch() -> None:
        while stop is not None and not done.wait(_ASK_SECONDS):
            if stop():
                file.touch()
                return

    thread = threading.Thread(target=watch, daemon=True, name="stop-request")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _raise(errors: list[dict[str, Any]], code: int) -> None:
    """When one process fails, the others fail because it is gone: what train itself says comes first."""
    known: tuple[tuple[str, type[Exception]], ...] = (
        ("input", InputError),
        ("memory", OutOfMemory),
        ("lost", PartnerLost),
        ("not_finite", NotFinite),
        ("training", TrainingFailed),
    )
    for kind, error in known:
        for found in errors:
            if found["kind"] == kind:
                raise error(found["message"])
    for found in errors:
        if found["kind"] == "stopped":
            raise Stopped(found["step"])
    reason = errors[0]["message"] if errors else f"the processes ended with exit code {code}"
    # One that said nothing was ended from outside, and the others may have failed because it was gone.
    failed = PartnerLost if all(found.get("may_pass", False) for found in errors) else TrainingFailed
    raise failed(f"{reason}; fix: the lines that they printed say more")
