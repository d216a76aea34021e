"""The errors of this package, how to tell what a machine has run out of, and whether another try may do better."""

from __future__ import annotations

import errno
import os


class InputError(ValueError):
    """What the user gave cannot be used. One line: the file (and line or key), what is wrong, and the fix. Exit code 2."""


class TrainingFailed(RuntimeError):
    """A training that could not go on, with its reason and a hint in one line; its last good checkpoint stays."""


class NotFinite(TrainingFailed):
    """A loss or a gradient that is no finite number: the settings do not train."""


class OutOfMemory(TrainingFailed):
    """Memory ran out, of the machine or of a GPU."""


class PartnerLost(TrainingFailed):
    """A server or a process that the work needs is gone. Once it is there again, the same call may succeed."""


class Stopped(Exception):
    """Work that was asked to stop, and did so once what it had finished was on the disk; the same call goes on from there.

    Args:
        step: The optimizer step after which a training stopped; 0 where none was made.
        where: How far other work got.
    """

    def __init__(self, step: int = 0, where: str = "") -> None:
        where = where or (f"at step {step} after its checkpoint" if step else "before its first step")
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
    if isinstance(error, (MemoryError, OutOfMemory)) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("allocate memory", "not enough memory", os.strerror(errno.ENOMEM))
    return any(word in str(error) for word in words)


# Errors of the program, or of what it was given: the next try would run into the same.
_FOR_GOOD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def may_pass(error: BaseException) -> bool:
    """Whether another try of the same may succeed: a connection, a device, a process or a disk of others was at fault.

    Not so for what the user gave, a loss that is not finite, an error of the program, a full disk, a folder that may not be written, and
    memory that ran out (which less at once may cure).
    """
    if isinstance(error, PartnerLost):
        return True
    if isinstance(error, (TrainingFailed, *_FOR_GOOD)) or is_disk_full(error) or is_out_of_memory(error):
        return False
    return not (isinstance(error, OSError) and error.errno in _NOT_ALLOWED)
