"""What a user may say about a cluster, and what of it a job asks of Slurm."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from harness.costs.resources import Resources
from harness.scheduling.executor import ExecutorOptions

_MEBIBYTE = 2**20


class Options(ExecutorOptions):
    """Options of the `slurm` executor, each given by `--executor-option KEY=VALUE`."""

    partition: str | None = Field(default=None, description="as sbatch has it; several with commas")
    account: str | None = Field(default=None, description="as sbatch has it")
    qos: str | None = Field(default=None, description="as sbatch has it")
    constraint: str | None = Field(default=None, description="as sbatch has it")
    nodelist: str | None = Field(default=None, description="as sbatch has it")
    time: int | None = Field(
        default=None,
        ge=1,
        description="minutes of each job; otherwise its estimate times time_margin, 15 at least, and no more than the partition allows",
    )
    time_margin: float = Field(default=2.0, ge=1, allow_inf_nan=False, description="how much more time than estimated")
    signal_seconds: int = Field(
        default=120,
        ge=1,
        le=65535,
        description="so long before the end of its time a job is told to write a checkpoint",
    )
    gpus_as: Literal["gres", "gpus"] = Field(default="gres", description="ask by --gres=gpu:N or by --gpus=N")
    gpu_type: str | None = Field(default=None, description="the type of GPU, as sinfo has it")
    shards: int | None = Field(
        default=None,
        ge=1,
        description="shards of a GPU where the cluster has the gres shard; otherwise a share of a GPU takes a whole one",
    )
    memory: Literal["job", "cpu", "none"] = Field(
        default="job", description="ask for memory by job (--mem), by core (--mem-per-cpu), or not at all"
    )
    memory_margin: float = Field(
        default=1.25, ge=1, allow_inf_nan=False, description="how much more memory than estimated"
    )
    sbatch: tuple[str, ...] = Field(default=(), description='further options of sbatch, ["--exclusive"]')
    setup: tuple[str, ...] = Field(
        default=(), description='lines of shell before each job, ["module load cuda"]; it fails where one fails'
    )
    python: str | None = Field(default=None, description="the Python of the nodes; otherwise the one of the command")
    array: bool = Field(default=True, description="submit equal jobs as one array")
    max_submitted: int | None = Field(
        default=None, ge=1, description="the most jobs in the queue; the rest waits in the command, which has to stay"
    )
    restarts: int = Field(
        default=100, ge=0, description="how often a job is put back that ended at a checkpoint before its time was over"
    )
    poll: float = Field(default=5.0, gt=0, allow_inf_nan=False, description="seconds between two looks at the queue")
    late: float = Field(
        default=60.0, ge=0, allow_inf_nan=False, description="seconds by which files of other machines may be late"
    )
    detach: bool = Field(default=False, description="hand all over and leave; the same command without it watches")

    def general(self) -> list[str]:
        """Arguments of sbatch that are the same for all jobs."""
        names = ("partition", "account", "qos", "constraint", "nodelist")
        given = [f"--{name}={value}" for name in names if (value := getattr(self, name)) is not None]
        return [*given, "--nodes=1", "--ntasks=1", *self.sbatch]

    def of_job(self, resources: Resources, usual_cpus: int, most: Most) -> tuple[str, ...]:
        """Arguments of sbatch for what a job needs; jobs for which they are equal may be one array.

        Args:
            resources: What it needs.
            usual_cpus: Its cores where it does not say.
            most: What the partition has at most.
        """
        cpus = resources.cpus or usual_cpus
        arguments = [f"--cpus-per-task={cpus}"]
        if gpus := gpus_of(resources, most):
            kind = f"{self.gpu_type}:" if self.gpu_type else ""
            if gpus < 1 and self.shards is not None:
                arguments.append(f"--gres=shard:{math.ceil(gpus * self.shards)}")
            elif self.gpus_as == "gres":
                arguments.append(f"--gres=gpu:{kind}{math.ceil(gpus)}")
            else:
                arguments.append(f"--gpus={kind}{math.ceil(gpus)}")
        memory = math.ceil(resources.memory * self.memory_margin / _MEBIBYTE)
        if most.memory is not None and resources.memory <= most.memory * _MEBIBYTE:
            memory = min(memory, most.memory)  # the margin alone is no reason to be refused
        if self.memory != "none":
            arguments.append(f"--mem={memory}" if self.memory == "job" else f"--mem-per-cpu={math.ceil(memory / cpus)}")
        if (minutes := self._minutes(resources, most)) is not None:
            arguments.append(f"--time={minutes}")
        return tuple(arguments)

    def _minutes(self, resources: Resources, most: Most) -> int | None:
        if self.time is not None or resources.minutes is None:
            return self.time
        minutes = max(15, math.ceil(resources.minutes * self.time_margin))
        return minutes if most.minutes is None else min(minutes, most.minutes)


class Most(ExecutorOptions):
    """What a partition gives one job at most; None where it does not say.

    Attributes:
        partition: Its name.
        minutes: Time.
        cpus: Cores of one node.
        memory: MiB of one node.
        gpus: GPUs of one node.
    """

    partition: str
    minutes: int | None = None
    cpus: int | None = None
    memory: int | None = None
    gpus: int | None = None


def gpus_of(resources: Resources, most: Most) -> float:
    """The GPUs that a job asks for: estimated ones only where there are any."""
    return resources.gpus if resources.gpus_required or most.gpus != 0 else 0.0
