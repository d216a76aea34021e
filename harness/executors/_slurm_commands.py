"""The commands of Slurm, each with a time-out: sbatch, squeue, scancel, sinfo, scontrol.

They are called as they are. `submitit`, the library for that, asks sacct how jobs end, and many clusters have no accounting; it pickles a
function for each job where ours is a command and a file; and it knows neither dependencies between jobs, nor a run that another process
goes on with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from dskd.errors import InputError
from harness.executors._slurm_options import Most

_SECONDS = 60.0
_AT_ONCE = 200  # jobs on one command line
# What another call may get: the controller is busy, restarted or not reached.
_PASSING = re.compile(
    r"timed out|unable to contact|temporar|connection|communication|try again|not respon|database|in transition",
    re.IGNORECASE,
)
_QUEUE_FULL = re.compile(r"job limit|MaxSubmit|MaxJobCount|accounting/QOS policy|SubmitJobsLimit", re.IGNORECASE)
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
        "LAUNCH_FAILED",
    ]
)
HELD = re.compile(r"launch.failed.requeued.held", re.IGNORECASE)  # Slurm could not start it, and tries no more
NEVER_STARTS = re.compile(
    r"^(launch.failed.requeued.held|DependencyNeverSatisfied|BadConstraints|InvalidAccount|InvalidQOS|PartitionTimeLimit)$"
)


class Unanswered(Exception):
    """Slurm did not answer, or said that it cannot now; what was asked may have been done all the same."""


class QueueFull(Exception):
    """Slurm takes no more jobs of this user now."""


class Refused(Exception):
    """Slurm does not do that, now or later; the message is its own."""


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue, or one that it still remembers. id: `123`, or `123_4` in an array; token: of its submission."""

    id: str
    state: str
    reason: str
    node: str
    token: str

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


def command(*arguments: str, seconds: float = _SECONDS) -> str:
    """The output of a command of Slurm. Unanswered, QueueFull or Refused where it fails."""
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=_environment(),
            check=False,
            start_new_session=True,  # Ctrl-C is ours to handle, and no reason to end it halfway
        )
    except FileNotFoundError as error:
        raise Refused(f"{arguments[0]}: not found") from error
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"{arguments[0]}: no answer in {seconds:.0f} s") from error
    if done.returncode == 0:
        return done.stdout
    said = _last_error(arguments[0], done.stderr)
    if _QUEUE_FULL.search(said):
        raise QueueFull(said)
    if _PASSING.search(said):
        raise Unanswered(said)
    raise Refused(said)


def _environment() -> dict[str, str]:
    """Ours without what Slurm told about a job that this process runs in: sbatch would take that for what the new job is to have."""
    kept = {"SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS"}
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in kept}


def _last_error(program: str, stderr: str) -> str:
    lines = [re.sub(rf"^{program}: (error: )?", "", line.strip()) for line in stderr.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-2:])) or f"{program}: failed without a message"


def squeue() -> dict[str, Queued]:
    """The jobs of this user that wait, run or have just ended, by id. Unanswered or Refused."""
    output = command(
        *("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r|%N|%k")
    )
    found: dict[str, Queued] = {}
    for line in output.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 5:
            found[fields[0]] = Queued(*fields)
    return found


def sbatch(arguments: Sequence[str]) -> str:
    """Submit a script; the id of the job. Unanswered, QueueFull or Refused."""
    return command("sbatch", "--parsable", *arguments).strip().splitlines()[-1].split(";")[0]


def scancel(ids: Sequence[str], *options: str) -> None:
    """End jobs, or send them a signal. Unanswered where that has to be tried again; jobs that have ended are no error."""
    for start in range(0, len(ids), _AT_ONCE):
        try:
            command("scancel", *options, *ids[start : start + _AT_ONCE])
        except Refused as error:
            if "not found" in str(error):
                raise


def max_array_size() -> int:
    """The size that an array has at most."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", command("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else 1001


def partitions() -> list[tuple[bool, Most]]:
    """Groups of equal nodes with their partition, and whether that is the default one."""
    found: list[tuple[bool, Most]] = []
    for line in command("sinfo", "--noheader", "--exact", "--format=%P|%l|%c|%m|%G").splitlines():
        name, time, cpus, memory, gres = line.strip().split("|")
        gpus = sum(int(each) for each in re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", gres))
        most = Most(
            partition=name.rstrip("*"),
            minutes=_minutes(time),
            cpus=int(re.sub(r"\D", "", cpus)),
            memory=int(re.sub(r"\D", "", memory)),
            gpus=gpus,
        )
        found.append((name.endswith("*"), most))
    return found


def _minutes(text: str) -> int | None:
    """`1-02:03:04`, `02:03:04`, `03:04` (minutes first) or `infinite` in minutes."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return None
    days, _, clock = text.rpartition("-")
    numbers = [int(each) for each in clock.split(":")]
    hours, minutes = (numbers[0], numbers[1]) if len(numbers) == 3 else (0, numbers[0])
    return (int(days or 0) * 24 + hours) * 60 + minutes


def require_commands() -> None:
    """InputError where the commands of Slurm are not here."""
    for name in ("sbatch", "squeue", "scancel", "sinfo", "scontrol"):
        if shutil.which(name) is None:
            raise InputError(
                f"--executor slurm: {name} is not found; fix: run this on a machine that submits to Slurm, or add its folder to PATH"
            )
