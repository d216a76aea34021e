"""`resources` of a matrix: what the jobs of one kind need, in place of what is estimated."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from harness.config.strict import Strict
from harness.costs.resources import Resources

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B|)", re.IGNORECASE)


def bytes_of(value: Any) -> Any:
    """`40GB`, `512 MiB` or a number of bytes as bytes; ValueError for another text."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None or found[2].upper() not in _UNITS:
        raise ValueError(f"`{value}` is no size; write 40GB, 512MiB or a number of bytes")
    return int(float(found[1]) * _UNITS[found[2].upper()])


class ResourceRequest(Strict):
    """What a job of this kind needs. What is not given is estimated.

    Attributes:
        cpus: Cores, and so threads.
        gpus: GPUs; a number below 1 is a share of one GPU with other jobs.
        memory: Main memory, as `40GB`.
        minutes: Time limit where an executor has one, and the estimate of the schedule.
    """

    cpus: int | None = Field(default=None, ge=1)
    gpus: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    memory: Annotated[int, Field(ge=1)] | None = Field(default=None)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        if isinstance(value, dict) and "memory" in value:
            return {**value, "memory": bytes_of(value["memory"])}
        return value

    @model_validator(mode="after")
    def _whole_or_a_share(self) -> ResourceRequest:
        if self.gpus is not None and self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError(f"`gpus` is {self.gpus:g}; give a whole number, or a share below 1")
        return self

    def applied_to(self, estimated: Resources) -> Resources:
        """The estimated resources with what is given here."""
        given = {key: value for key in ("cpus", "memory", "minutes") if (value := getattr(self, key)) is not None}
        if self.gpus is not None:
            given |= {"gpus": self.gpus, "gpus_required": self.gpus > 0}
        if self.memory is not None:
            given["device_memory"] = None  # it is what the job needs here, on GPUs or without
        return estimated.replaced(**given)
