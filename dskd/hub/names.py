"""Names on the hub: `org/name`, or `org/name@revision` with a branch, a tag or a commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]

MAIN = "main"
_PART = r"[A-Za-z0-9_](?:[\w.-]*\w)?"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[^\s@]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubName:
    """A repository on the hub and a revision of it."""

    repo: str
    revision: str = MAIN

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    @property
    def short(self) -> str:
        """The name without its owner: what a folder of it would be called."""
        return self.repo.split("/")[1]


def parse(text: str) -> HubName | None:
    """The name on the hub that a text is.

    Args:
        text: what stands where a folder or a name may stand.

    Returns:
        The name; None for a path that exists, and for what cannot be a name on the hub (an absolute path, one with more than
        two parts or with none). A path of two parts that does not exist reads as a name.
    """
    found = name_in(text)
    return None if found is None or Path(text).exists() else found


def name_in(text: str) -> HubName | None:
    """The name on the hub that a text is, whatever folders there are; None where it cannot be one."""
    found = _NAME.fullmatch(text)
    return None if found is None else HubName(found["repo"], found["revision"] or MAIN)


def is_commit(revision: str) -> bool:
    """Whether a revision is the full name of a commit, which never moves."""
    return _COMMIT.fullmatch(revision) is not None
