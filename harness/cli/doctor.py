"""`harness doctor`: checks what is installed and what is missing on this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from dskd.errors import InputError
from harness import tasks
from harness.executors._gpus import gpus_of
from harness.executors.local import default_jobs
from harness.runs.environment import package_version
from harness.runs.machine import available_memory, cores
from harness.sandbox.probes import HELD
from harness.sandbox.select import sandbox

EPILOG = """\b
Examples:
  harness doctor

\b
Each line is ok, warn (something optional is missing) or FAIL. The exit code is 1 if a line is FAIL."""


Level = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """The result of one check, with a fix if it is not ok."""

    level: Level
    what: str
    result: str
    fix: str = ""


@click.command("doctor", epilog=EPILOG)
@click.pass_context
def command(context: click.Context) -> None:
    """Check Python, packages, device, memory, disk, threads, the sandbox for generated code, and data."""
    failed = False
    for check in CHECKS:
        for finding in check():
            failed |= finding.level == "FAIL"
            fix = f"; fix: {finding.fix}" if finding.fix else ""
            click.echo(f"{finding.level:<4}  {finding.what:<14} {finding.result}{fix}")
    if failed:
        context.exit(1)


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    fix = "" if good else "install Python 3.11 or later"
    yield Finding("ok" if good else "FAIL", "python", platform.python_version(), fix)


def _packages() -> Iterator[Finding]:
    for name in ("torch", "transformers", "accelerate", "datasets", "lm_eval"):
        version = package_version(name)
        missing = version is None or importlib.util.find_spec(name) is None
        fix = "pip install dskd-harness" if missing else ""
        yield Finding("FAIL" if missing else "ok", name, version or "not installed", fix)
    optional = {
        "vllm": ("generation with transformers is slower", "pip install 'dskd-harness[vllm]'"),
        "peft": ("no LoRA students or teachers", "pip install peft"),
    }
    for name, (without, fix) in optional.items():
        version = package_version(name)
        if version is None:
            yield Finding("warn", name, f"not installed: {without}", fix)
        else:
            yield Finding("ok", name, version)


def _torch() -> Iterator[Finding]:
    try:
        import torch
        import transformers  # noqa: F401 - fails if torchvision does not fit torch
    except ImportError as error:
        yield Finding("FAIL", "import", str(error).splitlines()[0], "reinstall torch and transformers together")
        return
    except RuntimeError as error:
        # `torchvision::nms does not exist`: torchvision was built for another torch.
        yield Finding("FAIL", "import", str(error).splitlines()[0], "pip uninstall torchvision torchaudio torchcodec")
        return
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        gpus = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        yield Finding("ok", "device", f"{gpus}, {memory:.0f} GiB")
    else:
        yield Finding("warn", "device", "no GPU: small models only (enough for --matrix quick)")


def _threads() -> Iterator[Finding]:
    number, set_to = cores(), os.environ.get("OMP_NUM_THREADS")
    if set_to is not None and set_to.isdigit() and int(set_to) > number:
        fix = "unset or lower it: too many threads make small models up to thirty times slower"
        yield Finding("warn", "threads", f"{number} cores, OMP_NUM_THREADS={set_to}", fix)
    else:
        shown = f", OMP_NUM_THREADS={set_to}" if set_to else "; a run gives each job its share"
        yield Finding("ok", "threads", f"{number} cores{shown}")


def _slots() -> Iterator[Finding]:
    gpus = gpus_of(os.environ)
    names = f" ({gpus.variable}={','.join(gpus.names)})" if gpus.variable else ""
    yield Finding("ok", "slots", f"{cores()} cores, {len(gpus.names)} GPUs{names}: {default_jobs()} small jobs at once")


def _memory() -> Iterator[Finding]:
    available = available_memory() / 2**30
    fix = "" if available >= 4 else "close other programs, or use --jobs 1 (quick needs up to 4 GiB)"
    yield Finding("ok" if available >= 4 else "warn", "memory", f"{available:.1f} GiB free", fix)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    fix = "" if free >= 2 else "free some space, or give --output-dir on another disk"
    yield Finding("ok" if free >= 2 else "warn", "disk", f"{free:.1f} GiB free here", fix)


def _sandbox() -> Iterator[Finding]:
    try:
        chosen = sandbox()
    except InputError as error:
        reason, _, fix = str(error).partition("; fix: ")
        yield Finding("warn", "sandbox", reason, fix)
        return
    held = [name for name, what in chosen.probes.items() if what == HELD]
    level: Level = "ok" if chosen.isolation.isolates else "warn"
    yield Finding(level, "sandbox", f"{chosen.isolation.name}; held: {', '.join(held)}")
    for name, what in chosen.probes.items():
        if what != HELD:
            yield Finding("warn", f"  {name}", what, "accepted by --sandbox none; docs/sandbox.md")


def _data() -> Iterator[Finding]:
    folder = os.environ.get("HARNESS_DATA")
    fix = "" if folder else "set it to the data folder of the tasks (the small tasks need none)"
    yield Finding("ok" if folder else "warn", "HARNESS_DATA", folder or "not set", fix)
    for name in tasks.names():
        try:
            yield Finding("ok", f"task {name}", f"{len(tasks.load(name).docs())} items")
        except InputError as error:
            yield Finding("warn", f"task {name}"[:14], str(error))


CHECKS = (_python, _packages, _torch, _threads, _slots, _memory, _disk, _sandbox, _data)
