"""What a partition gives, and one clear error where it can never run a job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dskd.errors import InputError
from harness.executors import _slurm_commands as slurm
from harness.executors._slurm_options import Most, Options, gpus_of
from harness.planning.plan import PlannedJob
from harness.suggestions import did_you_mean

_MEBIBYTE = 2**20
_NOT_NOW = re.compile(r"down|drained|reserved|busy|in use", re.IGNORECASE)


def rows_of(options: Options) -> list[Most]:
    """The groups of equal nodes of the partition that jobs go to. InputError where there is no such partition."""
    try:
        known = slurm.partitions()
    except (slurm.Unanswered, slurm.Refused, slurm.QueueFull) as error:
        raise InputError(
            f"--executor slurm: Slurm does not answer ({error}); fix: try `sinfo`, and run this again when it answers"
        ) from None
    if options.partition is None:
        rows = [row for is_default, row in known if is_default]
        if not rows and known:
            names = ", ".join(sorted({row.partition for _, row in known}))
            raise InputError(
                f"--executor slurm: this cluster has no default partition; fix: --executor-option partition=NAME, one of {names}"
            )
        return rows
    rows = []
    for name in options.partition.split(","):
        found = [row for _, row in known if row.partition == name]
        if not found:
            near = did_you_mean(name, {row.partition for _, row in known})
            raise InputError(f"--executor-option partition={options.partition}: no such partition{near}")
        rows += found
    return rows


def row_for(options: Options, rows: Sequence[Most], job: PlannedJob, usual_cpus: int) -> Most | None:
    """The nodes with the most memory on which a job fits; None if there are none."""
    fitting = [row for row in rows if _lacks(options, row, job, usual_cpus) is None]
    return max(fitting, key=lambda row: row.memory or 0, default=None)


def _lacks(options: Options, row: Most, job: PlannedJob, usual_cpus: int) -> str | None:
    """What these nodes have too little of for a job."""
    wanted = job.resources
    gpus = gpus_of(wanted, row)
    if row.gpus is not None and gpus > row.gpus:
        return f"{gpus:g} GPUs on one node, which has {row.gpus}"
    if row.cpus is not None and (wanted.cpus or usual_cpus) > row.cpus:
        return f"{wanted.cpus or usual_cpus} cores on one node, which has {row.cpus}"
    if row.memory is not None and options.memory != "none" and wanted.memory > row.memory * _MEBIBYTE:
        return f"{wanted.memory / 10**9:.1f} GB of memory on one node, which has {row.memory * _MEBIBYTE / 10**9:.1f}"
    if row.minutes is not None and options.time is not None and options.time > row.minutes:
        return f"{options.time} minutes, and its limit is {row.minutes}"
    return None


def check_jobs(options: Options, jobs: Sequence[PlannedJob], usual_cpus: int) -> None:
    """InputError for the first job that can never run: what its partition lacks, or what sbatch says against it."""
    slurm.require_commands()
    if options.time is not None and options.time * 60 <= options.signal_seconds:
        raise InputError(
            f"--executor-option time={options.time}: no time is left before the signal {options.signal_seconds} s before its end; "
            "fix: a longer time, or a smaller signal_seconds"
        )
    rows, tried = rows_of(options), set()
    for job in jobs:
        row = row_for(options, rows, job, usual_cpus)
        if row is None and rows:
            least = max(rows, key=lambda each: (each.gpus or 0, each.memory or 0, each.minutes or 0))
            raise InputError(
                f"--executor slurm: {job.title} needs {_lacks(options, least, job, usual_cpus)} (partition {least.partition}); "
                f"fix: --executor-option partition=, time= or memory=none, or `resources: {{{job.kind}: ...}}` in the matrix"
            )
        arguments = options.of_job(job.resources, usual_cpus, row or Most(partition=""))
        if arguments not in tried:
            tried.add(arguments)
            _ask(options, arguments, job)


def _ask(options: Options, arguments: Sequence[str], job: PlannedJob) -> None:
    """Ask sbatch whether it would take a job, without submitting it."""
    try:
        slurm.command("sbatch", "--test-only", *options.general(), *arguments, "--wrap=true")
    except slurm.QueueFull:
        return  # now, and not for ever
    except slurm.Unanswered as error:
        raise InputError(f"--executor slurm: Slurm does not answer ({error}); fix: run this again later") from None
    except slurm.Refused as error:
        if not _NOT_NOW.search(str(error)):
            raise InputError(
                f"--executor slurm: sbatch refuses {job.title} ({' '.join(arguments)}): {error}; fix: other --executor-option "
                "values, `harness list executors` has them"
            ) from None
