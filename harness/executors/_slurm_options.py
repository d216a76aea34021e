"""What a user may say about a cluster, and what of it a job asks of Slurm."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from harness.costs.resources import Resources
from harness.scheduling.executor import ExecutorOptions

_MEBIBYTE = 2**20


class Options(ExecutorOptions):
    """Options of the `slurm` executor, each given by `--executor-option KEY=VALUE`.

    Attributes:
        partition, account, qos, constraint, nodelist: As sbatch has them.
        time: Minutes of a job, for all alike. Otherwise its estimate times `time_margin`, 15 at least, and no more than the partition
            allows; the partition's default where there is no estimate.
        signal_seconds: So long before the end of its time a job is told to write a checkpoint; it goes on after it is put back.
        gpus_as: `gres` asks by `--gres=gpu:N`, `gpus` by `--gpus=N`.
        gpu_type: The type of GPU to ask for, as sinfo names it.
        shards: Shards of each GPU where the cluster shares GPUs (gres `shard`); without, a share of a GPU takes a whole one.
        memory: `job` asks for the memory of a job, `cpu` for that of each of its cores, `none` asks for none.
        memory_margin: How much more than estimated.
        sbatch: Further options of sbatch, `["--exclusive"]`.
        setup: Lines of shell before the job, as `module load cuda` or `source venv/bin/activate`; a job fails where one fails.
        python: The Python of the nodes; the one that runs this otherwise.
        array: Whether equal jobs are submitted as one array.
        max_submitted: The most jobs in the queue; what is above waits here, so that this process has to live.
        restarts: How often a job that ends at a checkpoint before its time is over is put back.
        poll: Seconds between two looks at the queue.
        late: Seconds for which a file that another machine has written may be missing here.
        detach: Submit all and leave.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    time: int | None = Field(default=None, ge=1)
    time_margin: float = Field(default=2.0, ge=1, allow_inf_nan=False)
    signal_seconds: int = Field(default=120, ge=1, le=65535)
    gpus_as: Literal["gres", "gpus"] = "gres"
    gpu_type: str | None = None
    shards: int | None = Field(default=None, ge=1)
    memory: Literal["job", "cpu", "none"] = "job"
    memory_margin: float = Field(default=1.25, ge=1, allow_inf_nan=False)
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str | None = None
    array: bool = True
    max_submitted: int | None = Field(default=None, ge=1)
    restarts: int = Field(default=100, ge=0)
    poll: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    late: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    detach: bool = False

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
