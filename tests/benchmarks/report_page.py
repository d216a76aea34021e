"""How long a report's page takes to open with 5,000 answers, in headless Chromium: until an answer is on the screen.

    python tests/benchmarks/report_page.py [--answers 5000] [--characters 400] [--json FILE]

The aim is two seconds. Each of the opens has a window of its own, so nothing is cached; the page is read from a file. Beside the
clock stands the processor time of the page's main thread, which other work on the machine does not lengthen. Needs Chromium
(`apt install chromium`, or HARNESS_BROWSER).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness.report.document import make_document
from harness.report.page import render
from tests.helpers.written_runs import write_run

METHODS = ("sft", "kd", "uld", "dskd-v2")  # and the teacher: five answers a prompt
OPENS = 5
AIM = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=5_000)
    parser.add_argument("--characters", type=int, default=400, help="of an answer")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        items = options.answers // (len(METHODS) + 1)
        text = "word " * (options.characters // 5)
        run = write_run(
            Path(folder) / "run", methods=METHODS, items=items, answer=lambda method, item: f"{item} {text}"
        )
        start = time.perf_counter()
        page = render(*make_document([run], most_completions=options.answers))
        made = time.perf_counter() - start
        file = Path(folder) / "report.html"
        file.write_text(page, encoding="utf-8")
        seconds, worked = _opens(file)
        found = {
            "answers": options.answers,
            "megabytes": round(file.stat().st_size / 1e6, 2),
            "seconds_to_make": round(made, 2),
            "seconds_to_open": [round(each, 2) for each in seconds],
            "median": round(statistics.median(seconds), 2),
            "main_thread_seconds": [round(each, 2) for each in worked],
        }
    print(json.dumps(found, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if found["median"] > AIM:
        sys.exit(f"slower than {AIM:g} s")


def _opens(file: Path) -> tuple[list[float], list[float]]:
    seconds, worked = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("HARNESS_BROWSER") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        for _ in range(OPENS):
            page = browser.new_context().new_page()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            start = time.perf_counter()
            page.goto(file.as_uri())
            page.locator(".card").first.wait_for()
            seconds.append(time.perf_counter() - start)
            metrics = session.send("Performance.getMetrics")["metrics"]
            worked.append(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))
            page.context.close()
        browser.close()
    return seconds, worked


if __name__ == "__main__":
    main()
