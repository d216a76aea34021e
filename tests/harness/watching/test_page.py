"""The status page: when it is written, what it holds, and what a browser makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from harness.planning.plan import PlannedJob
from harness.scheduling.executor import Allocation, Attempt
from harness.scheduling.observer import Observers
from harness.scheduling.outcome import Outcome
from harness.watching.page import EVERY, PageWriter, render_page, write_page
from harness.watching.snapshot import Failure, RunningJob, Snapshot
from harness.watching.time_left import Guess
from harness.watching.watch import Watch
from helpers.executor_runs import fake, planned

HOSTILE = '\x1b[31m</title></style><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">${x} \u202eb \ud800'


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def jobs(number: int) -> list[PlannedJob]:
    return [planned(Path(), fake(Path(), f"t__s/kd/seed{k}"))[0] for k in range(number)]


def hostile(name: str = "hostile") -> Snapshot:
    watch = Watch(Path("runs/x"), [], name=name)
    for cell in ("t__s/kd/seed1", "t__s/sft/seed1", f"{HOSTILE}__s/{HOSTILE}/seed1".replace("/", "|", 4)):
        watch.cells.set(f"cells/{cell}/train", "waiting")
    told = watch.snapshot()
    told.running = [
        RunningJob(
            "a", HOSTILE, "train", place=HOSTILE, stage=HOSTILE, done=1, total=4, metrics={"loss": 1.5}, seconds=9.0
        )
    ]
    told.failures = [Failure(HOSTILE, HOSTILE, HOSTILE)]
    told.left = Guess(7800.0)
    told.executor = HOSTILE
    return told


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def tags(text: str) -> list[str]:
    parser = _Tags()
    parser.feed(text)
    return parser.tags


def test_it_is_written_every_fifteen_seconds_and_at_the_end(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "status.html"
    planned_jobs = jobs(2)
    watch = Watch(tmp_path, planned_jobs, name="x", clock=clock)
    everybody = Observers([watch, PageWriter(path, watch, clock)])
    written = []
    for _ in range(600):  # a minute
        clock.now += 0.1
        everybody.tick()
        if path.exists():
            written.append(path.stat().st_ino)
    assert len(set(written)) >= 1
    assert "2 waiting" in strip(path.read_text())
    assert f'<meta http-equiv="refresh" content="{EVERY:.0f}">' in path.read_text()
    before = path.read_text()
    everybody.started(Attempt(planned_jobs[0], allocation=Allocation("here", 1)))
    everybody.tick()
    assert path.read_text() == before  # not due yet
    everybody.ended(planned_jobs[0], Outcome("done", seconds=1.0))
    everybody.ended(planned_jobs[1], Outcome("failed", "the reason", 1.0))
    everybody.closed({})
    after = path.read_text()
    assert 'http-equiv="refresh"' not in after
    assert "The run has ended" in after
    assert "the reason" in after


def strip(text: str) -> str:
    return text.replace("<b>", "").replace("</b>", "")


def test_it_has_no_markup_but_its_own() -> None:
    known = set(tags(render_page(Snapshot("x", "x")))) | {
        "section",
        "h2",
        "h1",
        "p",
        "progress",
        "ul",
        "li",
        "b",
        "div",
        "code",
    }
    found = set(tags(render_page(hostile(HOSTILE))))
    assert found - known == {"table", "thead", "tbody", "tr", "th", "td", "bdi", "span"}
    assert not {"script", "img"} & found


def test_a_page_that_cannot_be_written_stops_no_run_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "status.html"
    folder.mkdir()
    watch = Watch(tmp_path, [])
    writer = PageWriter(folder, watch)
    writer.tick()
    writer.closed({})
    assert [path.name for path in tmp_path.iterdir()] == ["status.html"]
    with pytest.raises(OSError, match=r"status\.html"):
        write_page(folder, watch.snapshot())


# --- in a browser ---


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page()
    yield opened
    opened.close()


def watched(page: Page) -> list[str]:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: complaints.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
    )
    return complaints


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_browser_shows_it_asks_for_nothing_and_hostile_text_stays_text(tmp_path: Path, page: Page) -> None:
    path, complaints = tmp_path / "status.html", watched(page)
    write_page(path, hostile())
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == "hostile"
    assert page.locator("h2").all_inner_texts() == ["Cells", "By pair and method", "Running: 1", "Failed"]
    assert "about 2 h 10 min left" in page.locator(".facts").inner_text()
    row = page.locator("#running tbody tr").inner_text()
    assert "<script>window.hacked = 1</script>" in row
    assert "25%" in row
    assert "loss 1.5" in row
    assert page.evaluate("window.hacked") is None
    assert page.locator("script, img").count() == 0
    assert complaints == []
    # The style is let in by its hash: cells of the table are padded.
    assert page.locator("#running td").first.evaluate("e => getComputedStyle(e).borderBottomStyle") == "solid"


def test_a_browser_loads_it_again_by_itself_until_the_run_has_ended(
    tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.watching.page.EVERY", 1.0)
    path, told = tmp_path / "status.html", Snapshot("first", "x")
    write_page(path, told)
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == "first"
    told.name = "second"
    write_page(path, told)
    until(lambda: page.locator("h1").inner_text() == "second")
    told.name, told.closed = "last", True
    write_page(path, told)
    until(lambda: page.locator("h1").inner_text() == "last")
    told.name = "nothing loads this"
    write_page(path, told)
    time.sleep(3)
    assert page.locator("h1").inner_text() == "last"
