"""What a step reads by its folder alone: how that is made is known to the plan, and not told to the job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr

from harness.runs.job_spec import Made
from harness.steps.base import NOT_IDENTITY, Input, Step


class Reference(Input):
    """The folder of another step's output, and the hash of its identity.

    A step that reads many others would hold all of them, and each of these its own, in the JSON of its job and in its identity.

    Attributes:
        folder: Under the root of the run.
        sha256: Of the step's identity.
        made: All folders that the step makes, which have to be finished before they can be read.
    """

    folder: Annotated[str, NOT_IDENTITY]
    sha256: str
    made: Annotated[list[Made], NOT_IDENTITY] = Field(default_factory=list)
    _step: Step | None = PrivateAttr(default=None)

    @classmethod
    def to(cls, step: Step) -> Self:
        """A reference to a step."""
        reference = cls(folder=step.folder, sha256=step.fingerprint.hash, made=[each.made for each in step.outputs])
        reference._step = step
        return reference

    def path(self, root: Path) -> Path:
        return root / self.folder

    @property
    def made_by(self) -> tuple[Step, ...]:
        return () if self._step is None else (self._step,)
