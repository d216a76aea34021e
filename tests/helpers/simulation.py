"""A cluster without machines: tasks only take time, on a clock that jumps from end to end."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.costs.resources import Resources
from harness.scheduling.executor import Allocation, Place
from harness.scheduling.scheduler import Scheduler, Task


@dataclass
class Simulation:
    """How a simulated run went. starts: of each task its start and its room; seconds: until the last one ended."""

    tasks: dict[str, Task]
    starts: dict[str, tuple[float, Allocation | None]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def order(self) -> list[str]:
        return list(self.starts)

    def busy_gpu_seconds(self) -> float:
        """Seconds of all GPUs together in which a task used them."""
        return sum(
            self.tasks[key].seconds * self.tasks[key].resources.gpus for key, (_, room) in self.starts.items() if room
        )


def simulate(
    tasks: Sequence[Task],
    places: Sequence[Place] | None,
    *,
    jobs: int | None = None,
    takes: Callable[[Task], float] = lambda task: task.seconds,
) -> Simulation:
    """Run the tasks; `takes` says how long one really takes."""
    scheduler = Scheduler(tasks, places, jobs=jobs)
    run = Simulation({task.id: task for task in tasks})
    ends: list[tuple[float, str]] = []
    while scheduler.waiting or scheduler.running:
        for key, room in scheduler.take(run.seconds):
            run.starts[key] = run.seconds, room
            heapq.heappush(ends, (run.seconds + takes(run.tasks[key]), key))
        assert ends, f"{len(scheduler.waiting)} tasks wait, and nothing runs"
        run.seconds, key = heapq.heappop(ends)
        scheduler.done(key)
        while ends and ends[0][0] == run.seconds:
            scheduler.done(heapq.heappop(ends)[1])
    return run


def comparison(trainings: int = 155, seed: int = 0) -> list[Task]:
    """A comparison of methods: data, a teacher cache for each of five data sets, trainings of 10 minutes to 2 hours, evaluations."""
    draw = random.Random(seed)
    gpu = Resources(gpus=1)
    tasks = [Task(f"data{k}", (), Resources(), 60) for k in range(5)]
    tasks += [Task(f"cache{k}", (f"data{k}",), gpu, 900) for k in range(5)]
    for k in range(trainings):
        tasks.append(Task(f"train{k}", (f"cache{k % 5}",), gpu, draw.uniform(600, 7200)))
        tasks.append(Task(f"evaluate{k}", (f"train{k}",), gpu, draw.uniform(120, 600)))
    return tasks


def least_seconds(tasks: Sequence[Task], gpus: int) -> float:
    """What no schedule can beat: the longest chain, and the GPU seconds divided by the GPUs."""
    chain: dict[str, float] = {}
    for task in tasks:
        chain[task.id] = task.seconds + max((chain[need] for need in task.needs), default=0.0)
    work = sum(task.seconds * task.resources.gpus for task in tasks)
    return max(max(chain.values()), work / gpus)
