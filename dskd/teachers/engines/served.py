"""Servers as engines: hidden states from `vllm serve --runner pooling`, log-probabilities from /v1/completions."""

from __future__ import annotations

from dskd.teachers.engines.served_engine import ServedEngine
from dskd.teachers.engines.served_log_probabilities import ServedLogProbabilities
from dskd.teachers.engines.served_states import ServedHiddenStates
from dskd.teachers.options import ServedOptions


def open_served_engine(served: ServedOptions, size: int | None = None) -> ServedEngine:
    """The engine for what these options ask for.

    Args:
        served: Where its servers are, and what they are asked for.
        size: The tokens of the teacher; for log-probabilities of them, where it is known.

    Raises:
        InputError, TrainingFailed: See ServedEngine, and ServedLogProbabilities.
    """
    if served.kind == "hidden_states":
        return ServedHiddenStates(served)
    return ServedLogProbabilities(served, size)
