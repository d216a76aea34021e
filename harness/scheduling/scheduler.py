"""Which job starts next, and where: list scheduling by the longest path to the end of the run, on places with cores, GPUs and memory.

A ready job with the longest path of estimated seconds to the end goes first. One that is large waits for room in a place that is held
for it: shorter jobs may use that room only as long as they end before it is needed. Costs per job do not grow with the number of jobs,
but for the logarithm of a heap (tests/benchmarks/scheduling.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.costs.resources import Resources
from harness.scheduling.executor import Allocation, Place

_WHOLE = 1000  # a GPU in the units of its shares
_SEARCHED = 64  # places that are looked at for one to hold
_MEMORY_STEP = 10**8  # memory is counted in steps of this, so that few classes of jobs differ


@dataclass(frozen=True)
class Task:
    """A job as the scheduler sees it. seconds: estimated; needs: ids of tasks that come first, all of them known."""

    id: str
    needs: tuple[str, ...]
    resources: Resources
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class _Need:
    cpus: int
    gpus: int  # in shares
    memory: int


@dataclass
class _Free:
    """What of a place is free."""

    place: Place
    cpus: int
    memory: int
    gpus: list[int]
    ends: dict[str, tuple[float, _Need, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def whole(self) -> int:
        return self.gpus.count(_WHOLE)

    def devices(self, need: _Need) -> tuple[int, ...] | None:
        """The GPUs for a job, which are free; None where it does not fit."""
        if need.cpus > self.cpus or need.memory > self.memory:
            return None
        if need.gpus == 0:
            return ()
        if need.gpus >= _WHOLE:
            count = need.gpus // _WHOLE
            found = [index for index, free in enumerate(self.gpus) if free == _WHOLE][:count]
            return tuple(found) if len(found) == count else None
        # The fullest GPU that has room, so that whole ones stay whole.
        shares = [(free, index) for index, free in enumerate(self.gpus) if free >= need.gpus]
        return (min(shares)[1],) if shares else None

    def change(self, need: _Need, devices: Sequence[int], sign: int) -> None:
        self.cpus += sign * need.cpus
        self.memory += sign * need.memory
        for index in devices:
            self.gpus[index] += sign * min(need.gpus, _WHOLE)


class Scheduler:
    """Starts tasks in places.

    Args:
        tasks: In an order in which each comes after what it needs.
        places: Where they run; None if they are placed by somebody else, and start as soon as they are ready.
        jobs: The most tasks at once.
        usual_cpus: The cores of a task that does not say.
    """

    def __init__(
        self, tasks: Iterable[Task], places: Sequence[Place] | None, *, jobs: int | None = None, usual_cpus: int = 1
    ) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._order = {key: index for index, key in enumerate(self._tasks)}
        self._jobs, self._usual_cpus = jobs, usual_cpus
        self._free = None if places is None else [_Free(p, p.cpus, p.memory, [_WHOLE] * p.gpus) for p in places]
        self._largest: dict[
            int, tuple[int, int]
        ] = {}  # of the places with so many GPUs: the most cores, and the most memory
        for place in places or ():
            cpus, memory = self._largest.get(place.gpus, (0, 0))
            self._largest[place.gpus] = max(cpus, place.cpus), max(memory, place.memory)
        self._after: dict[str, list[str]] = {}
        self._missing: dict[str, int] = {}
        for task in self._tasks.values():
            needs = [need for need in task.needs if need in self._tasks]
            self._missing[task.id] = len(needs)
            for need in needs:
                self._after.setdefault(need, []).append(task.id)
        self._path = self._paths()
        self._running: dict[str, int] = {}  # id -> index of its place
        self._ready: dict[_Need, list[tuple[float, int, str]]] = {}
        # For each kind of need, the places that may have room: a place comes back here when something in it ends.
        self._rooms: dict[_Need, list[tuple[int, int]]] = {}
        # What tasks that wait need, the place held for the first of them, and until when: not for one task alone, since another one
        # with the same need may come before it by then.
        self._held: tuple[_Need, int, float] | None = None
        self.waiting = set(self._tasks)
        for key, missing in self._missing.items():
            if not missing:
                self._make_ready(key)

    @property
    def running(self) -> int:
        """How many tasks run."""
        return len(self._running)

    def _paths(self) -> dict[str, float]:
        """The seconds from the start of each task to the end of the longest chain of tasks after it."""
        path: dict[str, float] = {}
        for key in reversed(self._tasks):
            path[key] = self._tasks[key].seconds + max((path[after] for after in self._after.get(key, ())), default=0.0)
        return path

    def _need(self, key: str) -> _Need:
        """What a task needs, at most as much as the largest place has: what asks for more runs alone there."""
        wanted = self._tasks[key].resources
        if self._largest and not any(self._largest):
            wanted = wanted.on_cpus()
        cpus = wanted.threads(self._usual_cpus)
        gpus = round(wanted.gpus * _WHOLE)
        memory = -(-wanted.memory // _MEMORY_STEP) * _MEMORY_STEP
        if not self._largest:
            return _Need(cpus, gpus, memory)
        gpus = min(gpus, max(self._largest) * _WHOLE)
        fitting = [most for count, most in self._largest.items() if count * _WHOLE >= gpus]
        return _Need(
            min(cpus, max(most_cpus for most_cpus, _ in fitting)),
            gpus,
            min(memory, max(most_memory for _, most_memory in fitting)),
        )

    def _make_ready(self, key: str) -> None:
        need = self._need(key)
        if need not in self._ready:
            self._ready[need] = []
            self._rooms[need] = [(each.whole, index) for index, each in enumerate(self._free or ())]
            heapq.heapify(self._rooms[need])
        heapq.heappush(self._ready[need], (-self._path[key], self._order[key], key))

    def take(self, now: float = 0.0) -> list[tuple[str, Allocation | None]]:
        """The tasks that start now, in order, each with its room; `now`: seconds of any clock."""
        started: list[tuple[str, Allocation | None]] = []
        heads = [(queue[0], need) for need, queue in self._ready.items() if queue]
        heapq.heapify(heads)
        while heads and (self._jobs is None or len(self._running) < self._jobs):
            (_, _, key), need = heapq.heappop(heads)
            room = self._room(need, now, self._tasks[key].seconds)
            if room is None:
                continue  # none of its kind fits
            heapq.heappop(self._ready[need])
            if self._ready[need]:
                heapq.heappush(heads, (self._ready[need][0], need))
            if self._held is not None and self._held[0] == need:
                self._held = None
            started.append((key, self._place(key, need, room, now)))
        return started

    def _place(self, key: str, need: _Need, room: tuple[int, tuple[int, ...]], now: float) -> Allocation | None:
        index, devices = room
        self._running[key] = index
        self.waiting.discard(key)
        if self._free is None:
            return None
        free = self._free[index]
        free.change(need, devices, -1)
        free.ends[key] = (now + self._tasks[key].seconds, need, devices)
        heapq.heappush(self._rooms[need], (free.whole, index))
        return Allocation(free.place.name, need.cpus, devices)

    def _room(self, need: _Need, now: float, seconds: float) -> tuple[int, tuple[int, ...]] | None:
        """A place and GPUs in it that are free for a task with this need that takes so many seconds."""
        if self._free is None:
            return -1, ()
        rooms, passed = self._rooms[need], []
        found = None
        while rooms and found is None:
            _, index = rooms[0]
            devices = self._free[index].devices(need)
            if devices is None:
                heapq.heappop(rooms)  # comes back when something ends there
            elif self._is_held(index, need, now + seconds):
                passed.append(heapq.heappop(rooms))
            else:
                heapq.heappop(rooms)
                found = index, devices
        for entry in passed:
            heapq.heappush(rooms, entry)
        if found is None and not passed and self._held is None and self._is_large(need):
            self._hold(need)
        return found

    def _is_held(self, index: int, need: _Need, end: float) -> bool:
        """Whether a place is kept for another task, which one that ends then would delay."""
        if self._held is None or self._held[0] == need or self._held[1] != index:
            return False
        return end > self._held[2]

    def _is_large(self, need: _Need) -> bool:
        """Whether smaller tasks could keep a task with this need waiting for ever."""
        return any(
            other.cpus < need.cpus or other.gpus < need.gpus or other.memory < need.memory
            for other, queue in self._ready.items()
            if queue and other != need
        )

    def _hold(self, need: _Need) -> None:
        """Hold the place in which a task with this need will fit first, as far as estimates say."""
        assert self._free is not None
        best: tuple[float, int] | None = None
        for index, free in enumerate(self._free[:_SEARCHED]):
            copy = _Free(free.place, free.cpus, free.memory, list(free.gpus))
            for end, freed, devices in sorted(free.ends.values(), key=lambda each: each[0]):
                copy.change(freed, devices, 1)
                if copy.devices(need) is not None:
                    best = min(best or (end, index), (end, index))
                    break
        if best is not None:
            self._held = need, best[1], best[0]

    def _release(self, key: str) -> None:
        index = self._running.pop(key)
        if self._free is None:
            return
        free = self._free[index]
        _, need, devices = free.ends.pop(key)
        free.change(need, devices, 1)
        for rooms in self._rooms.values():
            heapq.heappush(rooms, (free.whole, index))
            if len(rooms) > 4 * len(self._free) + 64:  # many entries of the same places
                rooms[:] = sorted({entry[1]: entry for entry in rooms}.values())

    def done(self, key: str) -> None:
        """A task ended well: what needs it may become ready."""
        self.waiting.discard(key)
        if key in self._running:
            self._release(key)
        for after in self._after.get(key, ()):
            self._missing[after] -= 1
            if not self._missing[after] and after in self.waiting:
                self._make_ready(after)

    def begun(self, key: str) -> None:
        """A task that `take` gave has been started."""

    def ended(self, key: str) -> list[str]:
        """A try ended and its room is free; `again` starts another one. None of those that need it has to be taken back."""
        self._release(key)
        return []

    def again(self, key: str) -> None:
        """A task is to be started once more."""
        self.waiting.add(key)
        self._make_ready(key)

    def drop(self, key: str) -> list[str]:
        """A task ended badly: the ids of those that need it, directly or not, which will never run, in order."""
        if key in self._running:
            self._release(key)
        self.waiting.discard(key)
        dropped: list[str] = []
        heads = list(self._after.get(key, ()))
        while heads:
            after = heads.pop()
            if after in self.waiting:
                self.waiting.discard(after)
                dropped.append(after)
                heads += self._after.get(after, ())
        return sorted(dropped, key=self._order.__getitem__)
