"""The one-line message of a failure, with a fix if there is one, and whether another try may do better.

`dskd.training.run` has its own messages. These are for everything else in a job, and for the run itself.
"""

from __future__ import annotations

import signal
import textwrap

from dskd.errors import InputError, TrainingFailed, is_disk_full, is_out_of_memory, may_pass
from harness.runs.job_spec import FAILED, MAY_PASS, MISTAKE, STOPPED

DISK_FULL = "the disk is full{where}; fix: free some space, or give --output-dir on another disk, and run the same command again"
OUT_OF_MEMORY = "out of memory; fix: {knobs}"
# What to lower if memory runs out, the most harmless first.
KNOBS = (
    "fewer jobs at once (--jobs 1), in training: a smaller batch_size or batch_tokens (with more gradient_accumulation_steps), "
    "gradient_checkpointing: true, a smaller chunk_tokens of the chunked loss"
)


def reason_of(error: BaseException) -> str:
    """One line for an error that a job raised."""
    if isinstance(error, (InputError, TrainingFailed)):
        return _one_line(error)
    if is_disk_full(error):
        path = getattr(error, "filename", None)
        return DISK_FULL.format(where=f" ({path})" if path else "")
    if is_out_of_memory(error):
        return OUT_OF_MEMORY.format(knobs=KNOBS)
    return f"{type(error).__name__}: {textwrap.shorten(_one_line(error), 300, placeholder=' …')}"


def exit_code_of(error: BaseException) -> int:
    """The exit code of a job that raised this."""
    if isinstance(error, InputError):
        return MISTAKE
    return MAY_PASS if may_pass(error) else FAILED


def kind_of(error: BaseException) -> str:
    """A name for what failed, where a run can do something about it: `out_of_memory`, `disk_full`; else empty."""
    if is_out_of_memory(error):
        return "out_of_memory"
    return "disk_full" if is_disk_full(error) else ""


def reason_of_exit(code: int) -> str:
    """One line for a process that ended without a message."""
    if code == STOPPED:
        return "stopped where it can go on, because it was asked to"
    if code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return f"ended by SIGKILL, probably because memory ran out; fix: {KNOBS}"
    return f"ended by {signal.Signals(-code).name}"


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"
