"""When a run will end, from how long its jobs have taken."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WINDOW = 900.0  # seconds for which it is remembered how many jobs ran at once


@dataclass(frozen=True)
class Alike:
    """What a job's duration depends on. minutes: estimated from shapes, where that is known."""

    kind: str
    pair: str = ""
    method: str = ""
    minutes: float | None = None

    @property
    def classes(self) -> list[tuple[str, ...]]:
        """Classes of jobs that take about as long, the narrowest first."""
        return [
            (self.kind, self.pair, self.method),
            (self.kind, self.pair),
            (self.kind, "", self.method),
            (self.kind,),
        ]


@dataclass(frozen=True)
class Guess:
    """Seconds; `is_least` where jobs of a kind wait of which nothing is known."""

    seconds: float
    is_least: bool = False


@dataclass
class _Running:
    job: Alike
    start: float
    stage: str = ""
    first: tuple[float, float] = (0.0, 0.0)  # when its stage was first heard of, and the share that was done
    last: tuple[float, float] = (0.0, 0.0)

    def advanced(self, stage: str, share: float, moment: float) -> None:
        if self.stage != stage or share < self.last[1]:
            self.stage, self.first = stage, (moment, share)
        self.last = moment, share

    def own_left(self, moment: float) -> float | None:
        """The seconds left of its stage, from its own progress; None before a twentieth is done."""
        (begun, before), (heard, share) = self.first, self.last
        if share - before <= 0.05 or heard <= begun:
            return None
        return max(0.0, (1 - share) * (heard - begun) / (share - before) - (moment - heard))


class TimeLeft:
    """Estimates when a run will end.

    A job takes as long as those of its kind, pair and method that have ended. Without any, it takes what was estimated from its shapes,
    by the ratio of the durations of its kind to their estimates; or else as long as those of its kind and pair, or of its kind. A
    running one shows its length by its own progress. Where a kind has neither, its estimates count by the ratio of all kinds; without
    estimates it is left out, and the guess is a least time.

    The rest is spread over as many jobs at once as have run at once lately, and takes at least as long as its longest chain of jobs
    that need each other.

    Args:
        jobs: By id, what each job's duration depends on.
        needs: By id, the ids of the jobs that come first.
        parallel: Jobs at once, as far as is known before any have run.
    """

    def __init__(
        self, jobs: Mapping[str, Alike], needs: Mapping[str, Sequence[str]] | None = None, parallel: int | None = None
    ) -> None:
        self._waiting = dict(jobs)
        self._needs = needs or {}
        self._parallel = parallel
        self._running: dict[str, _Running] = {}
        self._sums: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])  # seconds, count
        self._ratios: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # seconds, estimated seconds
        self._at_once: deque[tuple[float, int]] = (
            deque()
        )  # falling numbers, so that the first is the most of the window
        self._ended = 0

    def learn(self, job: Alike, seconds: float) -> None:
        """A job like this took so long."""
        for each in job.classes:
            sums = self._sums[each]
            sums[0] += seconds
            sums[1] += 1
        if job.minutes:
            self._ratios[job.kind][0] += seconds
            self._ratios[job.kind][1] += 60 * job.minutes

    def started(self, key: str, moment: float) -> None:
        """A job began."""
        job = self._waiting.pop(key) if key in self._waiting else self._running[key].job
        self._running[key] = _Running(job, moment)
        count = len(self._running)
        while self._at_once and self._at_once[-1][1] <= count:
            self._at_once.pop()
        self._at_once.append((moment, count))

    def advanced(self, key: str, stage: str, share: float, moment: float) -> None:
        """A running job has done this share of a stage."""
        if key in self._running:
            self._running[key].advanced(stage, share, moment)

    def again(self, key: str) -> None:
        """A job will be started once more."""
        if key in self._running:
            self._waiting[key] = self._running.pop(key).job

    def ended(self, key: str, moment: float, *, counts: bool) -> None:
        """A job ended; `counts` if its time tells something about others."""
        self._waiting.pop(key, None)
        running = self._running.pop(key, None)
        if running is not None:
            self._ended += 1
            if counts:
                self.learn(running.job, moment - running.start)

    def guess(self, moment: float) -> Guess | None:
        """The time left; None where the length of no job is known."""
        shown = self._shown(moment)
        left: dict[str, float] = {}
        unknown = set()
        for key, running in self._running.items():
            length, own = self._length(running.job, shown), running.own_left(moment)
            if length is None:
                unknown.add(running.job.kind)
                continue
            rest = length - (moment - running.start)
            left[key] = rest if rest > 0 else own or 0.0
        for key, job in self._waiting.items():
            length = self._length(job, shown)
            if length is None:
                unknown.add(job.kind)
                continue
            left[key] = length
        if not left:
            return None if unknown else Guess(0.0)
        return Guess(max(sum(left.values()) / self._at_once_now(moment), self._longest(left)), bool(unknown))

    def _shown(self, moment: float) -> dict[str, float]:
        """The length of jobs by kind, as the running ones show it."""
        found: dict[str, list[float]] = defaultdict(list)
        for running in self._running.values():
            own = running.own_left(moment)
            if own is not None:
                found[running.job.kind].append(moment - running.start + own)
        return {kind: sum(each) / len(each) for kind, each in found.items()}

    def _length(self, job: Alike, shown: Mapping[str, float]) -> float | None:
        exact, *wider = job.classes
        if job.pair and exact in self._sums:
            return self._mean(exact)
        ratio = self._ratios.get(job.kind)
        if job.minutes and ratio is not None:
            return 60 * job.minutes * ratio[0] / ratio[1]
        known = next((each for each in (exact, *wider) if each in self._sums), None)
        if known is not None:
            return self._mean(known)
        if job.kind in shown or not job.minutes or not self._ratios:
            return shown.get(job.kind)
        taken, estimated = (sum(each) for each in zip(*self._ratios.values(), strict=True))
        return 60 * job.minutes * taken / estimated

    def _mean(self, key: tuple[str, ...]) -> float:
        seconds, count = self._sums[key]
        return seconds / count

    def _at_once_now(self, moment: float) -> int:
        while len(self._at_once) > 1 and self._at_once[0][0] < moment - _WINDOW:
            self._at_once.popleft()
        seen = self._at_once[0][1] if self._at_once else 1
        # The first jobs of a run often have to be alone, and say little.
        return max(1, seen, self._parallel if self._parallel and self._ended < self._parallel else 1)

    def _longest(self, left: Mapping[str, float]) -> float:
        """The seconds of the longest chain of jobs that need each other."""
        ends: dict[str, float] = {}
        for key in left:  # with a stack of its own: chains may be long
            stack = [key]
            while stack:
                top = stack[-1]
                missing = [need for need in self._needs.get(top, ()) if need in left and need not in ends]
                if missing:
                    stack += missing
                    continue
                stack.pop()
                ends[top] = left[top] + max(
                    (ends[need] for need in self._needs.get(top, ()) if need in left), default=0.0
                )
        return max(ends.values(), default=0.0)
