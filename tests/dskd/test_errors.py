"""Which failures another try may cure."""

from __future__ import annotations

import errno
import os

import pytest

from dskd.errors import InputError, OutOfMemory, PartnerLost, TrainingFailed, is_out_of_memory, may_pass


@pytest.mark.parametrize(
    "error",
    [
        PartnerLost("http://a: no answer for 600 s; fix: start the server again"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("timed out"),
        RuntimeError("NCCL error: remote process exited or there was a network error"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.EIO, os.strerror(errno.EIO)),
        OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
    ],
    ids=repr,
)
def test_what_others_did_may_pass(error: Exception) -> None:
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        InputError("data.jsonl:3: is broken; fix: mend it"),
        TrainingFailed("the loss is nan at step 3; fix: lower learning_rate"),
        OutOfMemory("out of memory; fix: lower batch_size"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate memory"),
        TypeError("f() takes 1 positional argument"),
        AttributeError("no attribute"),
        KeyError("step"),
        IndexError("list index out of range"),
        ValueError("shapes differ"),
        AssertionError(),
        ImportError("no module"),
        NotImplementedError(),
        ZeroDivisionError(),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    ],
    ids=repr,
)
def test_what_the_next_try_would_run_into_again_may_not(error: Exception) -> None:
    assert not may_pass(error)


def test_a_training_that_ran_out_of_memory_is_known_as_that() -> None:
    assert is_out_of_memory(OutOfMemory("out of memory; fix: lower batch_size"))
    assert not is_out_of_memory(TrainingFailed("the loss is nan"))
