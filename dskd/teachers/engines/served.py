"""Servers as engines: hidden states from `vllm serve --runner pooling`, log-probabilities from /v1/completions."""

from __future__ import annotations

from dskd.teachers.engines.base import TeacherEngine
from dskd.teachers.options import ServedOptions


def open_served_engine(served: ServedOptions) -> TeacherEngine:
    """The engine for what these options ask for. Raises InputError where no address is usable."""
    raise NotImplementedError
