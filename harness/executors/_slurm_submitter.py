"""Handing jobs over: groups of equal jobs, what each comes after, limits, and what another harness has handed over already."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from dskd.errors import InputError
from dskd.processes import SAFE_ENVIRONMENT
from harness.executors import _slurm_commands as slurm
from harness.executors._slurm_options import Most, Options
from harness.executors._slurm_partition import row_for, rows_of
from harness.executors._slurm_submission import (
    Book,
    Entry,
    Submission,
    digest,
    read_state,
    slurm_folder,
    write_submission,
)
from harness.executors._slurm_watch import Watched
from harness.planning.plan import PlannedJob
from harness.runs.job_spec import DONE, FAILED
from harness.runs.store import Store
from harness.scheduling.executor import Attempt, Ended, Settings
from harness.scheduling.job_environment import job_environment, threads_of

T = TypeVar("T")
_log = logging.getLogger(__name__)
_CHUNK = 20  # submissions between two looks at what else happens
_PATIENCE = 60.0  # seconds for which Slurm may be silent where its answer is needed


class Submitter:
    """Hands jobs over to Slurm.

    Args:
        settings, options: Of the run.

    Attributes:
        waiting: Jobs that are to be handed over, each after what it needs.
        watched: Jobs that Slurm has.
        cancel: Ids of what Slurm has and nobody wants any more.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings, self._options = settings, options
        self._root = settings.root.resolve()
        self._book = Book(self._root)
        self.waiting: dict[str, Attempt] = {}
        self.watched: dict[str, Watched] = {}
        self.cancel: list[str] = []
        self._unsure: list[Submission] = []  # sbatch did not answer: it may have them or not
        self._done: set[str] = set()
        self._tokens: set[str] = set()  # of submissions that we know of
        self._lanes: Counter[str] = Counter()  # with a limit of jobs at once: seconds in each
        self._next = 0.0
        self._rows: list[Most] = []
        self._usual_cpus = self._array_size = 1

    def open(self, usual_cpus: int) -> None:
        """Ask Slurm what it has; `usual_cpus`: the cores of a job that does not say. InputError where it does not answer."""
        self._usual_cpus = usual_cpus
        self._rows = rows_of(self._options)
        if self._options.array and self._settings.jobs is None:
            self._array_size = answer(slurm.max_array_size)

    @property
    def unsure(self) -> set[str]:
        """Jobs of which it is not known whether Slurm has them."""
        return {attempt.job.id for submission in self._unsure for attempt in submission.attempts}

    def add(self, attempt: Attempt) -> None:
        """Hand this over when it is time."""
        if (old := self.watched.pop(attempt.job.id, None)) is not None:  # taken back: what it needs is tried again
            self.cancel.append(old.slurm)
        self.waiting[attempt.job.id] = attempt

    def ended(self, job: str, *, done: bool) -> None:
        """A job has ended: there is room for another."""
        del self.watched[job]
        self._next = 0.0
        if done:
            self._done.add(job)

    def hand_over(self) -> Iterator[Ended]:
        """Submit what waits, some of it at a time."""
        if not self.waiting or time.monotonic() < self._next:
            return
        with self._lock():
            self._adopt_others()
            submissions = [self._prepared(*group) for group in self._groups()[:_CHUNK]]
            self._book.add(_entries(submissions, {}))
            ids: dict[str, str] = {}
            refused: list[Ended] = []
            for submission in submissions:
                try:
                    ids[submission.token] = slurm.sbatch(submission.command())
                except slurm.QueueFull as error:
                    _log.warning("Slurm takes no more jobs now (%s); the rest waits here", error)
                    self._next = time.monotonic() + _PATIENCE
                    break
                except slurm.Unanswered:
                    self._unsure.append(submission)
                    self._take_from_waiting(submission)
                    self._next = time.monotonic() + self._options.poll
                    break
                except slurm.Refused as error:
                    self._take_from_waiting(submission)
                    refused += [Ended(each.job.id, FAILED, f"sbatch: {error}") for each in submission.attempts]
                else:
                    self._take_from_waiting(submission)
                    self._watch(submission, ids[submission.token])
            self._book.add(_entries(submissions, ids))
        yield from refused

    def _lock(self) -> AbstractContextManager[object]:
        """Two harnesses at once hand over one after the other."""
        return Store(self._root, shared_disk=True, on_loss=_leave).lock("slurm")

    def _take_from_waiting(self, submission: Submission) -> None:
        for attempt in submission.attempts:
            del self.waiting[attempt.job.id]

    def _groups(self) -> list[tuple[list[Attempt], tuple[str, ...], tuple[str, ...]]]:
        """What can be submitted now: equal jobs, what they need, and the ids in Slurm that they come after."""
        groups: dict[tuple[tuple[str, ...], tuple[str, ...], int], list[Attempt]] = {}
        room = sys.maxsize
        if self._options.max_submitted is not None:
            room = self._options.max_submitted - len(self.watched) - sum(len(each.attempts) for each in self._unsure)
        for attempt in self.waiting.values():
            if room <= 0:
                break
            if (after := self._after(attempt)) is None:
                continue
            job = attempt.job
            row = row_for(self._options, self._rows, job, self._usual_cpus) or Most(partition="")
            key = (self._options.of_job(job.resources, self._usual_cpus, row), after)
            number = 0
            while len(groups.get((*key, number), ())) >= self._array_size:
                number += 1
            groups.setdefault((*key, number), []).append(attempt)
            room -= 1
        return [(attempts, arguments, after) for (arguments, after, _), attempts in groups.items()]

    def _after(self, attempt: Attempt) -> tuple[str, ...] | None:
        """The ids in Slurm of what a job comes after; None while one of them has none."""
        found: list[str] = []
        for need in attempt.after:
            watched = self.watched.get(need)
            if watched is None and need not in self._done:
                return None
            if watched is not None:
                state = watched.state()
                # Slurm may have forgotten by now what has ended.
                if state is None or not state.final or state.code != DONE:
                    found.append(watched.slurm)
        return tuple(found)

    def _prepared(self, attempts: list[Attempt], arguments: tuple[str, ...], after: tuple[str, ...]) -> Submission:
        """The folder of a submission."""
        name, conditions = self._name(attempts), [f"afterok:{':'.join(after)}"] if after else []
        if self._settings.jobs is not None:
            name, conditions = self._lane(attempts[0]), [*conditions, "singleton"]
        dependency = [f"--dependency={','.join(conditions)}"] if conditions else []
        cpus = attempts[0].job.resources.cpus or self._usual_cpus
        submission = write_submission(
            self._root,
            attempts,
            [
                f"--job-name={name}",
                *self._options.general(),
                f"--signal=B:USR1@{self._options.signal_seconds}",
                *arguments,
                *dependency,
            ],
            environment=self._environment(cpus),
            setup=self._options.setup,
            python=self._options.python,
            tries=self._settings.tries,
            restarts=self._options.restarts,
        )
        self._tokens.add(submission.token)
        return submission

    def _name(self, attempts: Sequence[Attempt]) -> str:
        title = attempts[0].job.title if len(attempts) == 1 else attempts[0].job.kind
        return f"{self._root.name}:{title}".replace("\n", " ")[:100]

    def _lane(self, attempt: Attempt) -> str:
        """The name of a job where so many may run at once: of those of one name, one runs at a time, in the order of submission."""
        run = hashlib.sha256(str(self._root).encode()).hexdigest()[:6]
        assert self._settings.jobs is not None
        lanes = [f"{self._root.name}-{run}-{number}" for number in range(self._settings.jobs)]
        lane = min(lanes, key=lambda each: self._lanes[each])
        self._lanes[lane] += int(60 * (attempt.job.resources.minutes or 1))
        return lane

    def _environment(self, cpus: int) -> dict[str, str]:
        return {**SAFE_ENVIRONMENT, **job_environment(threads_of(cpus), offline=self._settings.offline)}

    def _watch(self, submission: Submission, job: str) -> None:
        for index, attempt in enumerate(submission.attempts):
            watched = Watched(attempt.job, submission.folder, index, submission.task_id(job, index))
            self.watched[attempt.job.id] = watched

    def settle_unsure(self, queue: dict[str, slurm.Queued]) -> None:
        """Find out whether Slurm has what sbatch did not answer about; what it has not is handed over again."""
        ids = {queued.token: queued.id.partition("_")[0] for queued in queue.values()}
        for submission in self._unsure:
            if submission.token in ids:
                taken_back = [each.job.id for each in submission.attempts if each.job.id in self.waiting]
                self._watch(submission, ids[submission.token])
                self.cancel += [self.watched.pop(job).slurm for job in taken_back]
                with self._lock():
                    self._book.add(_entries([submission], ids))
            else:
                self.waiting |= {each.job.id: each for each in submission.attempts}
        self._unsure.clear()

    # What an earlier run, or another one at the same time, has handed over

    def adopt(self, jobs: Sequence[PlannedJob]) -> set[str]:
        entries = self._book.read()
        self._tokens |= {entry.token for entry in entries.values()}
        planned = {job.id: job for job in jobs}
        if not entries.keys() & planned.keys():
            return set()
        queue = answer(slurm.squeue)
        for job in jobs:
            if job.id not in entries or (watched := self._found(job, entries[job.id], queue)) is None:
                continue
            if all(need in self.watched or need not in planned for need in job.needs):
                self.watched[job.id] = watched
            else:  # what it waits for will be submitted anew
                self.cancel.append(watched.slurm)
        return set(self.watched)

    def _found(self, job: PlannedJob, entry: Entry, queue: dict[str, slurm.Queued]) -> Watched | None:
        """A job that still waits or runs in Slurm, or has just ended well; one that is to do something else now is cancelled."""
        of_token = {each.id.partition("_")[2] or "0": each for each in queue.values() if each.token == entry.token}
        queued = of_token.get(str(entry.index))
        folder = slurm_folder(self._root) / entry.token
        state = read_state(folder, entry.index)
        if queued is not None and not queued.has_ended:
            if entry.digest == digest(job) and not slurm.NEVER_STARTS.search(queued.reason):
                return Watched(job, folder, entry.index, queued.id, queued)
            self.cancel.append(queued.id)
        elif entry.digest == digest(job) and not job.fresh and state is not None and state.final and state.code == DONE:
            return Watched(job, folder, entry.index, entry.slurm or "", queued)
        return None

    def _adopt_others(self) -> None:
        """Watch what another process has handed over since, in place of submitting it too. Under the lock of submissions."""
        others = {
            job: entry
            for job, entry in self._book.read().items()
            if job in self.waiting and entry.token not in self._tokens
        }
        if not others:
            return
        queue = answer(slurm.squeue)
        for job, entry in others.items():
            self._tokens.add(entry.token)
            if (watched := self._found(self.waiting[job].job, entry, queue)) is not None:
                self.watched[job] = watched
                del self.waiting[job]


def _leave(reason: str) -> None:
    """End this process at once: another one hands over now. What Slurm has goes on."""
    print(f"handing jobs over: {reason}; fix: the same command again", file=sys.stderr, flush=True)
    os._exit(1)


def answer(ask: Callable[[], T]) -> T:
    """What Slurm answers, asked for as long as is bearable. InputError where it does not."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return ask()
        except (slurm.Unanswered, slurm.Refused, slurm.QueueFull) as error:
            if time.monotonic() > deadline or isinstance(error, slurm.Refused):
                raise InputError(
                    f"--executor slurm: Slurm does not answer ({error}); fix: run this again later"
                ) from None
        time.sleep(1)


def _entries(submissions: Sequence[Submission], ids: dict[str, str]) -> dict[str, Entry]:
    """What the book says of these submissions; `ids`: in Slurm, by token."""
    return {
        attempt.job.id: Entry(
            token=each.token,
            index=index,
            slurm=each.task_id(ids[each.token], index) if each.token in ids else None,
            digest=digest(attempt.job),
        )
        for each in submissions
        for index, attempt in enumerate(each.attempts)
    }
