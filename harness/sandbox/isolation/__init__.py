"""The ways of isolation, each a file; `base.py` says what one is."""

from __future__ import annotations

from harness.sandbox.isolation.base import Isolation
from harness.sandbox.isolation.bubblewrap import Bubblewrap
from harness.sandbox.isolation.container import Container
from harness.sandbox.isolation.limits_only import LimitsOnly
from harness.sandbox.isolation.namespaces import Namespaces

# Tried in this order where the user names none; the others are only ever asked for.
AUTOMATIC: tuple[Isolation, ...] = (Namespaces(), Bubblewrap())
BY_NAME: dict[str, Isolation] = {one.name: one for one in (*AUTOMATIC, Container("docker"), Container("podman"))}
LIMITS_ONLY = LimitsOnly()

__all__ = ["AUTOMATIC", "BY_NAME", "LIMITS_ONLY", "Isolation"]
