"""A task of an evaluation, as steps have it."""

from __future__ import annotations

from harness import tasks as known_tasks
from harness.protocols import DecodingProtocol
from harness.steps.evaluation import EvaluatedTask


def evaluated_task(
    entry: str, name: str, protocol: DecodingProtocol, *, limit: int | None, max_new_tokens: int | None
) -> EvaluatedTask:
    """A task of an evaluation. InputError for one that is not known, or has no such protocol."""
    task = known_tasks.load(name)
    protocol = protocol.with_length(max_new_tokens, task.max_new_tokens)
    task.check_protocol(protocol)
    return EvaluatedTask(
        entry=entry,
        task=name,
        version=task.version,
        limit=limit,
        max_new_tokens=protocol.max_new_tokens or task.max_new_tokens,
        protocol=protocol,
        extra=task.identity(),
    )
