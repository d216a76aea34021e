"""The isolation that this machine has."""

from __future__ import annotations

import pytest

from dskd.errors import InputError
from harness.sandbox import sandbox
from harness.sandbox.isolation import Isolation


@pytest.fixture(scope="session")
def isolation() -> Isolation:
    """The sandbox that is chosen here; skips where there is none."""
    try:
        return sandbox().isolation
    except InputError as error:
        pytest.skip(str(error))
