"""Jobs as tasks of a Ray cluster: a running one, or one of its own on this machine.

Ray runs in a process of its own (`_ray_bridge`), with which this one exchanges lines of JSON: when the head of a cluster is lost, Ray ends
the process that it runs in.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import Field, field_validator

import harness
from dskd.errors import InputError
from dskd.modeling.gpu_share import GPU_SHARE
from dskd.processes import process_environment, python_module
from harness.costs.resources import Resources
from harness.executors._ray_needs import fitted, missing
from harness.planning.plan import PlannedJob
from harness.runs.environment import cores
from harness.runs.failures import ExecutorLost
from harness.runs.job_spec import DONE, MAY_PASS, STOPPED
from harness.runs.late_files import look_again_below
from harness.runs.store import LOG, Store
from harness.scheduling.executor import Attempt, BaseExecutor, Ended, ExecutorOptions, Said, Settings
from harness.scheduling.job_environment import job_environment, threads_of
from harness.scheduling.reasons import failure_reason

_LOST_NODES = 3  # so often a job loses its node and that is no failed try: longer than that, and it is the job that ends its nodes
_CLOSE_SECONDS = 30.0


class Options(ExecutorOptions):
    """Options of the executor `ray`.

    address: of a running cluster: `auto` for the one of this machine, or IP:PORT; without it one is started here. ray://IP:PORT is untested.
    timeout: seconds to reach it.
    resources: what each job takes of the cluster's own resources, `resources.a100=1` for one.
    wait_for_nodes: let jobs wait for nodes that are not there yet, in a cluster that grows.
    """

    address: str = ""
    timeout: float = Field(default=60.0, gt=0)
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    wait_for_nodes: bool = False

    @field_validator("resources")
    @classmethod
    def _are_the_clusters_own(cls, resources: dict[str, float]) -> dict[str, float]:
        for name in ("CPU", "GPU", "memory"):
            if name in resources:
                raise ValueError(f"{name} is what a matrix gives by its key `resources`")
        return resources


class Executor(BaseExecutor):
    """Runs jobs as Ray tasks; Ray places them, and a task takes its GPUs on one node."""

    Options = Options
    shared_disk = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._options = settings.options if isinstance(settings.options, Options) else Options()
        self._bridge: subprocess.Popen[bytes] | None = None
        self._nodes: list[dict[str, float]] = []
        self._lost: dict[str, int] = {}  # job -> how many nodes have died under it
        self._jobs: dict[str, Attempt] = {}
        self._buffer = b""

    @property
    def _where(self) -> str:
        return f"--executor ray: address={self._options.address}" if self._options.address else "--executor ray"

    def check(self, jobs: Sequence[PlannedJob]) -> None:
        self._connect()
        if self._options.wait_for_nodes:
            return
        for job in jobs:
            if problem := missing(job.resources, self._options.resources, self._nodes):
                raise InputError(
                    f"{self._where}: {problem}, which '{job.title}' needs; fix: add such a node, or ask for less"
                )

    def open(self) -> None:
        self._connect()

    def _connect(self) -> None:
        """Start the process with Ray, and wait until it has reached its cluster."""
        if self._bridge is not None:
            return
        if find_spec("ray") is None:
            raise InputError('--executor ray: Ray is not installed; fix: pip install "dskd-harness[ray]"')
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as that process)
        self._bridge = subprocess.Popen(
            python_module("harness.executors._ray_bridge"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=process_environment(),
            start_new_session=True,  # Ctrl-C is for this process, which passes it on
        )
        assert self._bridge.stdout is not None
        os.set_blocking(self._bridge.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bridge.stdout, selectors.EVENT_READ)
        own = {"cpus": cores(), "gpus": self.settings.gpus}
        try:
            self._send("connect", address=self._options.address, timeout=self._options.timeout, own=own)
            self._nodes = self._answer(self._options.timeout + 30.0)
        except ExecutorLost:
            raise InputError(
                f"{self._where}: Ray could not be started ({self._last_words()}); fix: try `ray start`"
            ) from None

    def _answer(self, seconds: float) -> list[dict[str, float]]:
        """The nodes of the cluster, once it is reached."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for message in self._messages(0.2):
                if message["event"] == "connected":
                    return message["nodes"]
                raise InputError(
                    f"{self._where}: not reached in {self._options.timeout:.0f} s ({message['reason']}); "
                    "fix: start a cluster (`ray start --head`), or give the address of one that runs"
                )
        raise InputError(f"{self._where}: no answer in {seconds:.0f} s; fix: look at the cluster with `ray status`")

    def start(self, attempt: Attempt) -> None:
        job = attempt.job
        told = job.spec(attempt=attempt.number, split_batches=attempt.split_batches, shared_disk=True)
        text = told.model_dump_json(indent=2)
        spec = Store(job.root).write_spec(job.id, text)
        self._jobs[job.id] = attempt
        needs = self._needs(job.resources)
        request = {
            "job": job.id,
            "command": python_module("harness.jobs", str(spec.resolve())),
            "environment": self._environment(job.resources.replaced(gpus=needs["num_gpus"])),
            "working_folder": str(Path.cwd()),
            "root": str(job.root.resolve()),
            "log": str(job.folder.resolve() / LOG),
            "spec": str(spec.resolve()),
            "spec_text": text,
        }
        self._send("start", job=job.id, needs=needs, request=request)

    def _needs(self, resources: Resources) -> dict[str, Any]:
        """What a task asks Ray for."""
        nodes = [] if self._options.wait_for_nodes else self._nodes
        return fitted(resources, self._options.resources, nodes, self.usual_cpus)

    def _environment(self, resources: Resources) -> dict[str, str]:
        """What of this process's environment a job gets on another machine, and what every job gets."""
        more = job_environment(threads_of(resources.threads(self.usual_cpus)), offline=self.settings.offline)
        if 0 < resources.gpus < 1:
            more[GPU_SHARE] = f"{resources.gpus:g}"
        if not resources.gpus:
            more["CUDA_VISIBLE_DEVICES"] = ""  # Ray sets it for a job that has some
        code = Path(harness.__file__).resolve().parents[1]
        if "site-packages" not in code.parts:  # a checkout; an installed package is found on every node by itself
            more["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
        return {name: value for name, value in process_environment(more).items() if name in more or not _is_local(name)}

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        for message in self._messages(seconds):
            if message["event"] == "said":
                yield Said(message["job"], message["said"])
            elif message["event"] == "ended":
                yield self._end(message)

    def _end(self, message: Mapping[str, Any]) -> Ended:
        attempt = self._jobs.pop(message["job"])
        job, code, seconds = attempt.job, int(message["code"]), float(message.get("seconds", 0.0))
        for output in job.wanted:
            look_again_below(job.root / output.folder)  # another machine has written it
        if code == DONE:
            return Ended(job.id, code, seconds=seconds)
        if message.get("lost_node"):
            self._lost[job.id] = self._lost.get(job.id, 0) + 1
            # As if somebody had asked it to stop: it goes on elsewhere from its last checkpoint.
            code = STOPPED if self._lost[job.id] <= _LOST_NODES else code
            return Ended(job.id, code, str(message["lost_node"]), retry=True, seconds=seconds)
        said = message.get("failed") or {}
        reason = failure_reason(job, code, str(said.get("reason", "")))
        return Ended(job.id, code, reason, str(said.get("kind", "")), code == MAY_PASS or code < 0, seconds)

    def stop(self, job: str, *, now: bool) -> None:
        if job in self._jobs:
            self._send("stop", job=job, now=now)

    def close(self) -> None:
        """End what still runs, and the cluster if it is our own."""
        if self._bridge is None:
            return
        assert self._bridge.stdin is not None
        with contextlib.suppress(OSError):
            self._bridge.stdin.close()  # it ends everything when nobody speaks to it any more
        try:
            self._bridge.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._bridge.kill()
            self._bridge.wait()
        self._selector.close()
        assert self._bridge.stdout is not None
        self._bridge.stdout.close()
        self._log.close()
        self._bridge = None

    def _send(self, what: str, **message: Any) -> None:
        assert self._bridge is not None
        assert self._bridge.stdin is not None
        try:
            self._bridge.stdin.write(json.dumps({"what": what, **message}).encode() + b"\n")
            self._bridge.stdin.flush()
        except OSError:
            raise self._gone() from None

    def _messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What the process with Ray says; waits for so many seconds at most."""
        assert self._bridge is not None
        assert self._bridge.stdout is not None
        if not self._selector.select(timeout=seconds):
            return
        chunk = os.read(self._bridge.stdout.fileno(), 1 << 20)
        if not chunk:
            raise self._gone()
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def _gone(self) -> ExecutorLost:
        address = self._options.address or "of this run"
        return ExecutorLost(
            f"the Ray cluster {address} is gone ({self._last_words()}); what is finished is kept; "
            "fix: start the cluster, and run the same command again"
        )

    def _last_words(self) -> str:
        """The last line of Ray's log that says something."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        errors = [line for line in lines if "Error" in line or " E " in line or "Failed" in line] or lines
        last = [line.strip() for line in errors if line.strip()][-1:]
        return last[0].partition("] ")[2][:200] or last[0][:200] if last else "its process ended"


# What belongs to a machine and not to a run: another one has its own.
_LOCAL = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PWD",
    "OLDPWD",
    "HOSTNAME",
    "TMPDIR",
    "TEMP",
    "TMP",
    "LD_LIBRARY_PATH",
)
_LOCAL_PREFIXES = ("RAY_", "SLURM_", "SSH_", "XDG_", "CUDA_VISIBLE", "NVIDIA_")


def _is_local(name: str) -> bool:
    return name in _LOCAL or name.startswith(_LOCAL_PREFIXES)
