"""Every method against one of them, the anchor, paired by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.results import Result


def differences(results: Sequence[Result], anchor: str) -> list[dict[str, Any]]:
    """A row for each method of a pair on a task."""
    return []
