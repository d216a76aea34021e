"""Servers as engines: hidden states from `vllm serve --runner pooling`, log-probabilities from /v1/completions."""

from __future__ import annotations

from dskd.teachers.engines.served_engine import ServedEngine
from dskd.teachers.engines.served_states import ServedHiddenStates
from dskd.teachers.options import ServedOptions


def open_served_engine(served: ServedOptions) -> ServedEngine:
    """The engine for what these options ask for. Arguments and errors: see ServedEngine."""
    if served.kind == "hidden_states":
        return ServedHiddenStates(served)
    from dskd.teachers.engines.served_log_probabilities import ServedLogProbabilities

    return ServedLogProbabilities(served)
