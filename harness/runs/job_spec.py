"""What a job is told: a file that its process reads."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from harness.runs.identity import Identity
from harness.runs.records import RecordCell


class OutputSpec(BaseModel):
    """One folder that a job makes."""

    model_config = ConfigDict(extra="forbid")
    folder: str  # under the root of the run
    identity: Identity
    cell: RecordCell | None = None  # where there is one, the folder gets a record
    product: str | None = None  # the file or folder in it without which it is of no use to other jobs


class JobSpec(BaseModel):
    """A job: which module runs it, what it makes, and the arguments that the module understands.

    `folder` holds its log and names its lock; `fresh` asks for the outputs to be made again although they are there.
    """

    model_config = ConfigDict(extra="forbid")
    id: str
    kind: str
    title: str
    runner: str
    root: str
    folder: str
    outputs: list[OutputSpec]
    arguments: dict[str, Any]
    fresh: bool = False
