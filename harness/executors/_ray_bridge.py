"""The process that speaks with a Ray cluster: `python -m harness.executors._ray_bridge`, started by `harness.executors.ray`.

Lines of JSON on standard input: connect, start, stop; on standard output: connected or refused, said, ended. It ends, with its jobs, when
its input closes.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.executors import _ray_task
from harness.executors._ray_needs import room
from harness.runs.job_spec import MAY_PASS, STOPPED

_WAIT = 0.2  # seconds to wait for tasks
_NODES = 5.0  # seconds between two looks at the nodes
_CANCEL = 10.0
_OBJECTS = 80 * 2**20  # bytes for objects of an own cluster: jobs exchange files
_AHEAD = 2  # tasks of one kind that are submitted, for each that there is room for


@dataclass
class _Submitted:
    reference: Any
    kind: str
    node: str = ""
    host: str = ""
    cancelled: int | None = None  # the code of a job that was ended on request


@dataclass
class _Kind:
    """Tasks with the same needs."""

    needs: dict[str, Any]
    queue: deque[dict[str, Any]] = field(default_factory=deque)
    submitted: int = 0
    room: int = 0


class Bridge:
    """Submits jobs as tasks, few ahead of what the cluster has room for, and tells what becomes of them."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._kinds: dict[str, _Kind] = {}
        self._tasks: dict[str, _Submitted] = {}
        self._jobs: dict[Any, str] = {}
        self._stop: set[str] = set()
        self._nodes: list[dict[str, float]] = []
        self._looked = 0.0

    def tell(self, event: str, **message: Any) -> None:
        """Say something to the process that started this one."""
        self._output.write(json.dumps({"event": event, **message}) + "\n")
        self._output.flush()

    def connect(self, address: str, timeout: float, own: Mapping[str, Any]) -> None:
        """Reach a cluster, or start one, and say which nodes it has."""
        if address:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        else:
            given = {} if own["gpus"] is None else {"num_gpus": own["gpus"]}
            ray.init(
                address="local",
                num_cpus=own["cpus"],
                object_store_memory=_OBJECTS,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                **given,
            )
        ray.cloudpickle.register_pickle_by_value(_ray_task)
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1}
        if not address.startswith("ray://"):
            here = ray.get_runtime_context().get_node_id()
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=True)
        self._board = ray.remote(_ray_task.Board).options(**options).remote()
        self._run = ray.remote(_ray_task.run_job)
        self._look()
        self.tell("connected", nodes=self._nodes)

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for kind in self._kinds.values():
            kind.room = room(kind.needs, self._nodes)

    def start(self, message: dict[str, Any]) -> None:
        """Queue a job."""
        needs = message["needs"]
        key = json.dumps(needs, sort_keys=True)
        if key not in self._kinds:
            self._kinds[key] = _Kind(needs, room=room(needs, self._nodes))
        self._kinds[key].queue.append(message)

    def stop(self, job: str, now: bool) -> None:
        """Ask a job to stop at its next checkpoint, or end it now; one that does not run yet never will."""
        for kind in self._kinds.values():
            for message in kind.queue:
                if message["job"] == job:
                    kind.queue.remove(message)
                    self.tell("ended", job=job, code=STOPPED)
                    return
        if (task := self._tasks.get(job)) is None:
            return
        if now or not task.node:
            task.cancelled = -9 if task.node else STOPPED
            ray.cancel(task.reference, force=True)
        else:
            self._stop.add(job)

    def step(self) -> None:
        """Submit what there is room for, and hear what happened."""
        if time.monotonic() - self._looked > _NODES:
            self._look()
        for key, kind in self._kinds.items():
            # One where there is no room yet: it says to a cluster that grows what is missing.
            while kind.queue and kind.submitted < max(1, _AHEAD * kind.room):
                self._submit(kind.queue.popleft(), key, kind)
        self._hear()
        if self._jobs:
            done, _ = ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=_WAIT)
            if done:
                self._hear()
            for reference in done:
                self._end(self._jobs.pop(reference), reference)
        else:
            time.sleep(_WAIT)

    def _submit(self, message: dict[str, Any], key: str, kind: _Kind) -> None:
        job = message["job"]
        reference = self._run.options(max_retries=0, name=job, **kind.needs).remote(message["request"], self._board)
        kind.submitted += 1
        self._tasks[job] = _Submitted(reference, key)
        self._jobs[reference] = job

    def _hear(self) -> None:
        try:
            said = ray.get(self._board.take.remote(sorted(self._stop)), timeout=5)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return  # it moves to another node
        for job, event in said:
            if event["event"] != "placed":
                self.tell("said", job=job, said=event)
            elif job in self._tasks:
                self._tasks[job].node, self._tasks[job].host = event["node"], event["host"]

    def _end(self, job: str, reference: Any) -> None:
        task = self._tasks.pop(job)
        self._kinds[task.kind].submitted -= 1
        self._stop.discard(job)
        try:
            self.tell("ended", job=job, **ray.get(reference))
        except ray.exceptions.RayError as error:
            self.tell("ended", job=job, **self._failure(task, error))

    def _failure(self, task: _Submitted, error: ray.exceptions.RayError) -> dict[str, Any]:
        """How a task ended that did not return."""
        if task.cancelled is not None:
            return {"code": task.cancelled}
        if isinstance(error, ray.exceptions.RayTaskError):
            return {"code": MAY_PASS, "failed": {"reason": str(error.cause).splitlines()[0]}}
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            return {"code": -9, "failed": {"reason": f"Ray ended it because memory ran out on {task.host}"}}
        self._look()
        if isinstance(error, ray.exceptions.NodeDiedError) or (task.node and task.node not in self._alive):
            return {"code": -9, "lost_node": f"the node {task.host or task.node[:12]} that it ran on is gone"}
        where = f" on {task.host}" if task.host else ""
        return {"code": -9, "failed": {"reason": f"its Ray worker{where} was ended ({type(error).__name__})"}}

    def close(self) -> None:
        """Cancel what runs, and end the cluster if it is our own."""
        for task in self._tasks.values():
            ray.cancel(task.reference, force=True)
        if self._jobs:
            ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=_CANCEL)
            time.sleep(1)  # until the jobs, whose workers are gone, have seen that
        ray.shutdown()


def main() -> None:
    """Speak with a cluster until standard input closes."""
    # Ray and what it starts print on standard output.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            messages.put(json.loads(line))
        messages.put(None)

    bridge = Bridge(output)
    threading.Thread(target=read, daemon=True).start()
    first = messages.get()
    if first is None:
        return
    giving_up = threading.Timer(first["timeout"], _refuse, [bridge, "no answer"])
    giving_up.daemon = True
    giving_up.start()
    try:
        bridge.connect(first["address"], first["timeout"], first["own"])
    except Exception as error:  # Ray's are of many kinds
        _refuse(bridge, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    giving_up.cancel()
    while True:
        while not messages.empty():
            message = messages.get()
            if message is None:
                bridge.close()
                return
            if message["what"] == "start":
                bridge.start(message)
            else:
                bridge.stop(message["job"], message["now"])
        bridge.step()


def _refuse(bridge: Bridge, reason: str) -> None:
    bridge.tell("refused", reason=reason)
    os._exit(1)


if __name__ == "__main__":
    main()
