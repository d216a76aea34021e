"""A headless Chromium to look at the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from harness.report.document import make_document
from harness.report.page import render


class Opened:
    """A report in a browser, and everything that it said or asked for."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.complaints, self.requests = page, [], []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri())

    def asked_elsewhere(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:"))]


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Open the report of a run's folder, with the answers to a file of claims, in a window as given to Playwright's new_context."""
    contexts = []

    def opened(run: Path, claims: Path | None = None, **window: Any) -> Opened:
        context = browser.new_context(**window)
        context.set_default_timeout(120_000)  # for a machine with much else to do
        contexts.append(context)
        file = tmp_path / f"report{len(contexts)}.html"
        file.write_text(render(*make_document([run], claims=claims)), encoding="utf-8")
        return Opened(context.new_page(), file)

    yield opened
    for context in contexts:
        context.close()
