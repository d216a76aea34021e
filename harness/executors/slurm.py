"""Jobs in a Slurm cluster whose nodes share the run's folder.

All jobs are handed over at once, each after what it needs (`afterok`), equal ones as arrays: the run goes on when this process is
gone, tries included (_slurm_task). The same command again watches what still waits or runs, and submits only what is not there.
Ctrl-C asks: what runs ends at its next checkpoint, what waits is taken out of the queue. A second one ends all. Where this process ends
in any other way, with its terminal or by `kill -9`, the jobs stay.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, TypeVar

from dskd.errors import InputError
from harness.executors import _slurm_commands as slurm
from harness.executors._slurm_options import Most, Options
from harness.executors._slurm_partition import check_jobs, row_for, rows_of
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
from harness.scheduling.executor import Attempt, BaseExecutor, Ended, ExecutorOptions, Said, Settings

T = TypeVar("T")
_log = logging.getLogger(__name__)
_CHUNK = 20  # submissions between two looks at what else happens
_PATIENCE = 60.0  # seconds for which Slurm may be silent where its answer is needed


class Executor(BaseExecutor):
    """Hands jobs over to Slurm."""

    Options: ClassVar[type[ExecutorOptions]] = Options
    takes_dependencies = True
    shared_disk = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        given = settings.options
        self._options = given if isinstance(given, Options) else Options()
        self._root = settings.root.resolve()
        self._book = Book(self._root)
        self._waiting: dict[str, Attempt] = {}  # to be handed over
        self._unsure: list[Submission] = []  # sbatch did not answer: it may have them or not
        self._watched: dict[str, Watched] = {}
        self._done: set[str] = set()
        self._tokens: set[str] = set()  # of submissions that we know of
        self._stops: dict[str, bool] = {}  # requests that Slurm has to be told: job -> now
        self._cancel: list[str] = []  # ids in Slurm of what is not watched
        self._lanes: Counter[str] = Counter()  # with a limit of jobs at once: minutes in each
        self._next_look = self._next_submission = 0.0
        self._silent = False

    def check(self, jobs: Sequence[PlannedJob]) -> None:
        check_jobs(self._options, jobs, self.usual_cpus)

    def open(self) -> None:
        self._rows = rows_of(self._options)
        with_arrays = self._options.array and self.settings.jobs is None
        self._array_size = _answer(slurm.max_array_size) if with_arrays else 1

    # Handing over

    def start(self, attempt: Attempt) -> None:
        if (
            old := self._watched.pop(attempt.job.id, None)
        ) is not None:  # taken back, since what it needs is tried again
            self._cancel.append(old.slurm)
        self._stops.pop(attempt.job.id, None)
        self._waiting[attempt.job.id] = attempt

    def _hand_over(self) -> Iterator[Ended]:
        """Submit what waits, some of it at a time."""
        if not self._waiting or time.monotonic() < self._next_submission:
            return
        with Store(self._root).lock("slurm"):
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
                    self._next_submission = time.monotonic() + _PATIENCE
                    break
                except slurm.Unanswered:
                    self._unsure.append(submission)
                    self._take_from_waiting(submission)
                    self._next_submission = time.monotonic() + self._options.poll
                    break
                except slurm.Refused as error:
                    self._take_from_waiting(submission)
                    refused += [Ended(each.job.id, FAILED, f"sbatch: {error}") for each in submission.attempts]
                else:
                    self._take_from_waiting(submission)
                    self._watch(submission, ids[submission.token])
            self._book.add(_entries(submissions, ids))
        yield from refused

    def _take_from_waiting(self, submission: Submission) -> None:
        for attempt in submission.attempts:
            del self._waiting[attempt.job.id]

    def _groups(self) -> list[tuple[list[Attempt], tuple[str, ...], tuple[str, ...]]]:
        """What can be submitted now: equal jobs, what they need, and the ids in Slurm that they come after."""
        groups: dict[tuple[tuple[str, ...], tuple[str, ...], int], list[Attempt]] = {}
        room = sys.maxsize
        if self._options.max_submitted is not None:
            room = self._options.max_submitted - len(self._watched) - sum(len(each.attempts) for each in self._unsure)
        for attempt in self._waiting.values():
            if room <= 0:
                break
            if (after := self._after(attempt)) is None:
                continue
            job = attempt.job
            row = row_for(self._options, self._rows, job, self.usual_cpus) or Most(partition="")
            key = (self._options.of_job(job.resources, self.usual_cpus, row), after)
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
            watched = self._watched.get(need)
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
        if self.settings.jobs is not None:
            name, conditions = self._lane(attempts[0]), [*conditions, "singleton"]
        dependency = [f"--dependency={','.join(conditions)}"] if conditions else []
        cpus = attempts[0].job.resources.cpus or self.usual_cpus
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
            tries=self.settings.tries,
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
        assert self.settings.jobs is not None
        lanes = [f"{self._root.name}-{run}-{number}" for number in range(self.settings.jobs)]
        lane = min(lanes, key=lambda each: self._lanes[each])
        self._lanes[lane] += int(60 * (attempt.job.resources.minutes or 1))
        return lane

    def _environment(self, cpus: int) -> dict[str, str]:
        # Too many threads slow a small model thirty-fold; who has set the number has a reason.
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(cpus)}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        environment |= {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
        if self.settings.offline:
            environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        return environment

    def _watch(self, submission: Submission, job: str) -> None:
        for index, attempt in enumerate(submission.attempts):
            watched = Watched(attempt.job, submission.folder, index, submission.task_id(job, index))
            self._watched[attempt.job.id] = watched

    def _settle_unsure(self, queue: dict[str, slurm.Queued]) -> None:
        """Find out whether Slurm has what sbatch did not answer about; what it has not is handed over again."""
        ids = {queued.token: queued.id.partition("_")[0] for queued in queue.values()}
        for submission in self._unsure:
            if submission.token in ids:
                taken_back = [each.job.id for each in submission.attempts if each.job.id in self._waiting]
                self._watch(submission, ids[submission.token])
                self._cancel += [self._watched.pop(job).slurm for job in taken_back]
                with Store(self._root).lock("slurm"):
                    self._book.add(_entries([submission], ids))
            else:
                self._waiting |= {each.job.id: each for each in submission.attempts}
        self._unsure.clear()

    # What an earlier run, or another one at the same time, has handed over

    def adopt(self, jobs: Sequence[PlannedJob]) -> set[str]:
        entries = self._book.read()
        self._tokens |= {entry.token for entry in entries.values()}
        planned = {job.id: job for job in jobs}
        if not entries.keys() & planned.keys():
            return set()
        queue = _answer(slurm.squeue)
        for job in jobs:
            if job.id not in entries or (watched := self._found(job, entries[job.id], queue)) is None:
                continue
            if all(need in self._watched or need not in planned for need in job.needs):
                self._watched[job.id] = watched
            else:  # what it waits for will be submitted anew
                self._cancel.append(watched.slurm)
        return set(self._watched)

    def _found(self, job: PlannedJob, entry: Entry, queue: dict[str, slurm.Queued]) -> Watched | None:
        """A job that still waits or runs in Slurm, or has just ended well; one that is to do something else now is cancelled."""
        of_token = {each.id.partition("_")[2] or "0": each for each in queue.values() if each.token == entry.token}
        queued = of_token.get(str(entry.index))
        folder = slurm_folder(self._root) / entry.token
        state = read_state(folder, entry.index)
        if queued is not None and not queued.has_ended:
            if entry.digest == digest(job) and not slurm.NEVER_STARTS.search(queued.reason):
                return Watched(job, folder, entry.index, queued.id, queued)
            self._cancel.append(queued.id)
        elif entry.digest == digest(job) and not job.fresh and state is not None and state.final and state.code == DONE:
            return Watched(job, folder, entry.index, entry.slurm or "", queued)
        return None

    def _adopt_others(self) -> None:
        """Watch what another process has handed over since, in place of submitting it too. Under the lock of submissions."""
        others = {
            job: entry
            for job, entry in self._book.read().items()
            if job in self._waiting and entry.token not in self._tokens
        }
        if not others:
            return
        queue = _answer(slurm.squeue)
        for job, entry in others.items():
            self._tokens.add(entry.token)
            if (watched := self._found(self._waiting[job].job, entry, queue)) is not None:
                self._watched[job] = watched
                del self._waiting[job]

    # Watching

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        yield from self._pass_on_stops()
        yield from self._hand_over()
        wait = self._next_look - time.monotonic()
        if wait > 0:
            time.sleep(min(seconds, wait))
            return
        self._next_look = time.monotonic() + self._options.poll
        yield from self._look()

    def _look(self) -> Iterator[Said | Ended]:
        """Look at the queue once, and at what every job has left."""
        try:
            queue, answered = slurm.squeue(), True
        except (slurm.Unanswered, slurm.Refused, slurm.QueueFull) as error:
            queue, answered = {}, False
            if not self._silent:
                _log.warning("Slurm does not answer (%s); its jobs go on, and so does this", error)
        self._silent = not answered
        if answered:
            self._settle_unsure(queue)
        for job, watched in list(self._watched.items()):
            if self._watched.get(job) is not watched:
                continue  # given up while we looked at others
            if answered:
                watched.queued = queue.get(watched.slurm)
                if watched.asked and watched.queued is not None and not watched.queued.has_ended:
                    self._stops.setdefault(job, watched.asked == "now")  # it may have begun in between
            yield from watched.news()
            end = watched.end(
                answered=answered,
                now=time.monotonic(),
                settle=min(self._options.poll, self._options.late),
                late=self._options.late,
            )
            if end is not None and not self._needs_end_first(watched, end):
                yield self._ended(watched, end)

    def _needs_end_first(self, watched: Watched, end: Ended) -> bool:
        """Whether a job ended badly whose needs are not known to have ended: their end says more."""
        return end.code != DONE and not watched.asked and any(need in self._watched for need in watched.job.needs)

    def _ended(self, watched: Watched, end: Ended) -> Ended:
        del self._watched[watched.job.id]
        self._next_submission = 0.0  # there is room
        if end.code == DONE:
            self._done.add(watched.job.id)
        return end

    # Stopping

    def stop(self, job: str, *, now: bool) -> None:
        self._stops[job] = now

    def _pass_on_stops(self) -> Iterator[Ended]:
        """Tell Slurm of requests to stop; what it does not hear is told again."""
        for job in [job for job in self._stops if job in self._waiting]:
            del self._stops[job], self._waiting[job]
            yield Ended(job, -signal.SIGTERM, "was not handed over yet")
        asked = {job: now for job, now in self._stops.items() if job in self._watched}
        ends = [*self._cancel]
        asks: list[str] = []
        for job, now in asked.items():
            watched = self._watched[job]
            watched.asked = "now" if now else "checkpoint"
            (ends if now else asks).append(watched.slurm)
            if not now:
                watched.stop_file.touch()
        try:
            if ends:
                slurm.scancel(ends)
            if asks:
                slurm.scancel(asks, "--state=PENDING")
                slurm.scancel(asks, "--state=RUNNING", "--signal=TERM", "--batch")
        except (slurm.Unanswered, slurm.QueueFull) as error:
            _log.warning("Slurm was not told to stop jobs yet (%s)", error)
            time.sleep(1)
            return
        self._cancel.clear()
        for job in asked:
            del self._stops[job]
        unsure = {each.job.id for submission in self._unsure for each in submission.attempts}
        self._stops = {job: now for job, now in self._stops.items() if job in unsure}

    def close(self) -> None:
        """Cancel what was asked to stop; all else stays in the queue."""
        deadline = time.monotonic() + _PATIENCE
        for job, watched in self._watched.items():
            if watched.asked:
                self._stops[job] = True
        while (self._stops or self._cancel) and time.monotonic() < deadline:
            if self._unsure:
                self._settle_unsure(_answer(slurm.squeue))
            list(self._pass_on_stops())
        left = [*self._cancel, *(self._watched[job].slurm for job in self._stops if job in self._watched)]
        if left:
            print(f"Slurm does not answer, and these jobs go on: scancel {' '.join(left)}", file=sys.stderr)


def _answer(ask: Callable[[], T]) -> T:
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
