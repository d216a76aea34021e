"""What a job is told, in a file that its process reads, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.runs.identity import Fingerprint
from harness.runs.records import RecordCell

# Environment variables with the descriptors of two pipes: the job writes its progress into one, and ends when the other closes.
PROGRESS_DESCRIPTOR = "HARNESS_PROGRESS_FD"
PARENT_DESCRIPTOR = "HARNESS_PARENT_FD"
# Exit codes of a job: done; failed, and another try is useless; the user's mistake; failed, and another try may pass; ended at a
# checkpoint because it was asked to (EX_TEMPFAIL of sysexits.h).
DONE, FAILED, MISTAKE, MAY_PASS, STOPPED = 0, 1, 2, 3, 75


class Made(BaseModel):
    """A folder that is finished, as a step knows it that is not told what made it.

    Attributes:
        folder: where, under the root of the run.
        sha256: of the identity.
        product: the file or folder in it without which it is of no use to other steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    folder: str
    sha256: str
    product: str | None = None


@dataclass(frozen=True)
class Output:
    """One folder that a step makes.

    Attributes:
        folder: where, under the root of the run.
        fingerprint: what it is made of.
        cell: what its record is about; None where it has no record.
        product: the file or folder in it without which it is of no use to other steps.
    """

    folder: str
    fingerprint: Fingerprint
    cell: RecordCell | None = None
    product: str | None = None

    @property
    def made(self) -> Made:
        """What others need to know of it once it is finished."""
        return Made(folder=self.folder, sha256=self.fingerprint.hash, product=self.product)


class JobSpec(BaseModel):
    """A job: a step as its own JSON, the folder of the run, and which of the step's outputs are wanted.

    `fresh` asks for the outputs to be made again although they are there. `attempt` counts tries from 1. `split_batches`: the parts in
    which a training computes each micro-batch, after it ran out of memory. `shared_disk`: several machines work in the folder, so that
    locks are leases.
    """

    model_config = ConfigDict(extra="forbid")
    root: str
    step: dict[str, Any]
    outputs: list[str]
    fresh: bool = False
    attempt: int = 1
    split_batches: int = 1
    shared_disk: bool = False
