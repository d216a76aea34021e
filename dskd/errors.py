"""The errors of this package, and how to tell what a machine has run out of."""

from __future__ import annotations

import errno
import os


class InputError(ValueError):
    """What the user gave cannot be used. One line: the file (and line or key), what is wrong, and the fix. Exit code 2."""


class TrainingFailed(RuntimeError):
    """A training that could not go on, with its reason and a hint in one line; its last good checkpoint stays."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A training that was asked to stop, and did so after it had written a checkpoint, from which the same call goes on.

    step: The optimizer step after which it stopped; 0 where none was made.
    """

    def __init__(self, step: int) -> None:
        where = f"at step {step} after its checkpoint" if step else "before its first step"
        super().__init__(f"stopped {where}, because it was asked to")
        self.step = step


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORN_WRITE = ("file write failed", "unexpected pos")  # torch.save hides the system's reason


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk, a quota or a file's limit is reached, also where a library hides the system's error in its text."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(words in str(error) for words in (*map(os.strerror, _FULL), *_TORN_WRITE))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU; torch has no type of its own for this on a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("allocate memory", "not enough memory", os.strerror(errno.ENOMEM))
    return any(word in str(error) for word in words)
