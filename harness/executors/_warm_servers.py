"""Which warm server a job is forked from: one for each number of threads, and one forked from it that has loaded vLLM too.

vLLM changes torch for a whole process, so what trains is never forked from a process that has it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dskd.plugins import is_from_file
from harness.executors._warm import WarmServer
from harness.planning.plan import PlannedJob

WORTH_IT = 3  # jobs with large libraries from which on a server pays
_STARTS = 3  # of a server that dies
_VLLM = "vllm"


class WarmServers:
    """The servers of a run, started when they are first needed, or by `open`.

    Args:
        jobs: What is to run.
        threads: The threads of a job.
        environment: The environment of a job with so many threads, without what differs from job to job.
        log: Where servers write what libraries print as they are imported.
        always: Have servers however few jobs there are; None: where it pays; False: have none.
    """

    def __init__(
        self,
        jobs: Sequence[PlannedJob],
        *,
        threads: Callable[[PlannedJob], int],
        environment: Callable[[int], Mapping[str, str]],
        log: Path,
        always: bool | None,
    ) -> None:
        self._threads, self._environment, self._log, self._always = threads, environment, log, always
        heavy = [job for job in jobs if job.step.libraries]
        self._jobs = Counter(map(threads, heavy))
        libraries = dict.fromkeys(name for job in heavy for name in job.step.libraries)  # in order
        # Of files outside of any package every job reads its own.
        steps = dict.fromkeys(type(job.step).__module__ for job in jobs if not is_from_file(type(job.step)))
        self._modules = [
            "harness.jobs.__main__",
            *(name for name in libraries if not _is_vllm(name)),
            *steps,
        ]
        self._vllm_modules = [name for name in libraries if _is_vllm(name)]
        self._servers: dict[tuple[int, bool], WarmServer] = {}
        self._starts: Counter[tuple[int, bool]] = Counter()
        self._told: set[str] = set()

    def open(self) -> None:
        """Start the servers that will be wanted, so that they load while the first jobs run."""
        for threads in self._jobs:
            self._server(threads, vllm=False)

    def server_for(self, job: PlannedJob) -> WarmServer | None:
        """The server that a job is to be forked from; None where it starts by itself."""
        if not job.step.libraries and not self._always:
            server = self._servers.get((self._threads(job), False))  # starts as fast by itself as it would wait
            return server if server is not None and server.is_ready else None
        return self._server(self._threads(job), vllm=_has_vllm(job))

    def _server(self, threads: int, *, vllm: bool) -> WarmServer | None:
        if not sys.platform.startswith("linux") or not self._pays(threads):
            return None
        key = threads, vllm
        if (server := self._servers.get(key)) is not None and server.alive:
            return server
        if (server is not None and server.unfit) or self._starts[key] == _STARTS:
            self._tell(server.unfit if server is not None and server.unfit else "its process died several times")
            return None
        self._starts[key] += 1
        if not vllm:
            self._servers[key] = WarmServer.start(self._modules, self._environment(threads), self._log)
        elif (base := self._server(threads, vllm=False)) is None:
            return None
        else:
            self._servers[key] = base.fork(self._vllm_modules)
        return self._servers[key]

    def _pays(self, threads: int) -> bool:
        return self._always if self._always is not None else self._jobs[threads] >= WORTH_IT

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            print(f"warm workers: {reason}; jobs load their libraries themselves ({self._log})", file=sys.stderr)

    def __iter__(self) -> Iterator[WarmServer]:
        return iter([server for server in self._servers.values() if server.alive])

    def close(self) -> None:
        """End all servers: the forked ones first."""
        for _, server in sorted(self._servers.items(), reverse=True):
            server.close()


def _is_vllm(module: str) -> bool:
    return module.split(".")[0] == _VLLM


def _has_vllm(job: PlannedJob) -> bool:
    return any(map(_is_vllm, job.step.libraries))
