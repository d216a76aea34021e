"""A headless Chromium for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    found = os.environ.get("HARNESS_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    with sync_playwright() as playwright:
        path = found or (
            playwright.chromium.executable_path if Path(playwright.chromium.executable_path).exists() else None
        )
        if path is None:
            pytest.skip("no Chromium here: install one (apt install chromium), or name one in HARNESS_BROWSER")
        # Chromium's own sandbox cannot start for root, as in most containers; the page is ours.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
