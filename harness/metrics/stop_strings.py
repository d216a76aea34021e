"""What is done to an output before any score."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(output: str, stop: Sequence[str]) -> str:
    """Return the output up to the earliest of the stop strings."""
    return output[: min((at for string in stop if (at := output.find(string)) >= 0), default=len(output))]
