"""Which isolation programs run in: the first that passes its self-test, or the one that the user named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from dskd.errors import InputError
from harness.runs.records import SandboxUsed
from harness.sandbox.isolation import AUTOMATIC, BY_NAME, LIMITS_ONLY, Isolation
from harness.sandbox.probes import failures, self_test

# In the environment, so that it reaches the processes of a run's jobs.
NAME_VARIABLE = "HARNESS_SANDBOX"
AUTO = "auto"
NONE = "none"  # as auto, and limits alone where nothing isolates
NAMES = (AUTO, *BY_NAME, NONE)


@dataclass(frozen=True)
class Sandbox:
    """An isolation that may be used here, and what its self-test found."""

    isolation: Isolation
    probes: dict[str, str]


def sandbox() -> Sandbox:
    """Return the sandbox of this process, as the environment asks for it; its self-test runs the first time.

    InputError with the reason and what to do where nothing isolates programs and the user did not say that limits will do.
    """
    return _sandbox(os.environ.get(NAME_VARIABLE) or AUTO)


def sandbox_used() -> SandboxUsed | None:
    """Return what a record says of the sandbox that this process has chosen, if it has; asking starts no self-test."""
    if not _sandbox.cache_info().currsize:
        return None
    chosen = sandbox()
    return SandboxUsed(isolation=chosen.isolation.name, probes=chosen.probes)


@cache
def _sandbox(name: str) -> Sandbox:
    if name not in NAMES:
        raise InputError(f"{NAME_VARIABLE}={name}: no such sandbox; fix: one of {', '.join(NAMES)}")
    candidates = {one.name: one for one in (AUTOMATIC if name in (AUTO, NONE) else (BY_NAME[name],))}
    reasons = []
    for title, isolation in (candidates | ({"limits alone": LIMITS_ONLY} if name == NONE else {})).items():
        found = attempt(isolation)
        if isinstance(found, Sandbox):
            return found
        reasons.append(f"{title}: {found}")
    raise InputError(
        f"generated code cannot be isolated here ({'; '.join(reasons)}); fix: let users have namespaces (docs/sandbox.md says "
        "how), or --sandbox docker or podman, or accept limits without isolation by --sandbox none"
    )


def attempt(isolation: Isolation) -> Sandbox | str:
    """Return the sandbox, or why it cannot be used here."""
    if reason := isolation.missing():
        return reason
    probes = self_test(isolation)
    failed = failures(isolation, probes)
    if "verdicts" in failed:  # nothing runs: the others say nothing more
        return failed["verdicts"]
    if failed:
        return "its self-test: " + ", ".join(f"{probe} {what}" for probe, what in failed.items())
    return Sandbox(isolation, probes)
