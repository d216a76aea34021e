"""The page in a browser: it shows what the run holds, asks for nothing, and a model's text stays text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page

from harness.report.document import make_document
from helpers.planted_claims import planted, write_planted
from helpers.written_runs import write_distances, write_run

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
HOSTILE = {
    "script": "<script>window.hacked = 1</script>",
    "closing": "</script><script>window.hacked = 1</script><!--",
    "image": '<img src="x" onerror="window.hacked = 1"><svg onload="window.hacked = 1">',
    "link": '<a href="javascript:window.hacked = 1">here</a> [x](javascript:alert(1))',
    "separators": "one\u2028two\u2029three\x00four",
    "turned": "\u202eright to left\u202c \u2066isolated",
    "template": "${window.hacked = 1} {{constructor.constructor('window.hacked = 1')()}}",
    "long": "<b>" * 333_334,
}


def words(found: Locator) -> list[str]:
    """What each of the elements says, on one line."""
    return [" ".join(text.split()) for text in found.all_inner_texts()]


def rows(page: Page, section: str) -> list[str]:
    return words(page.locator(f"#{section} tbody th"))


def test_a_page_shows_every_section_without_a_complaint_or_a_request(tmp_path: Path, open_report: Callable) -> None:
    opened = open_report(write_run(tmp_path / "run", seeds=(1, 2)))
    headings = opened.page.locator("h2").all_inner_texts()
    assert headings[0] == "Scores"
    assert "Completions side by side" in headings
    assert opened.page.locator("#curves path.line").count() == 4
    assert opened.page.locator("#costs circle").count() == 2
    assert "Not known: the run's folder does not hold" in opened.page.locator("#alignment").inner_text()
    assert (opened.complaints, opened.asked_elsewhere()) == ([], [])


def test_a_run_that_only_trained_shows_what_it_has(tmp_path: Path, open_report: Callable) -> None:
    run = write_run(tmp_path / "run")
    for evaluations in run.glob("cells/**/eval"):
        shutil.rmtree(evaluations)
    opened = open_report(run)
    assert opened.page.locator("#curves path.line").count() == 2
    assert words(opened.page.locator("#completions .note")) == ["The run has no completions of this pair."]
    assert opened.complaints == []


def test_tables_sort_by_click_and_by_key_and_filter(tmp_path: Path, open_report: Callable) -> None:
    scores = {"teacher": 100.0, "sft": 20.0, "kd": 60.0, "uld": 40.0}
    run = write_run(tmp_path / "run", methods=["sft", "kd", "uld"], score=lambda method, _: scores[method])
    page = open_report(run).page
    assert rows(page, "scores") == ["teacher", "sft anchor", "kd", "uld"]
    head = page.get_by_role("columnheader", name="small_math")
    page.locator("#scores").get_by_role("button", name="small_math").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert rows(page, "scores") == ["teacher", "kd", "uld", "sft anchor"]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert rows(page, "scores") == ["sft anchor", "uld", "kd", "teacher"]
    page.get_by_label("Filter methods").fill("ul")
    assert rows(page, "scores") == ["uld"]
    page.locator("#metrics").get_by_label("Method").select_option("kd")
    assert rows(page, "metrics") == ["kd"]


def test_the_browser_of_completions_filters_by_who_is_right_and_by_text(tmp_path: Path, open_report: Callable) -> None:
    right = {"teacher": {0, 1, 2, 3}, "sft": {0, 1}, "kd": {0, 2}}
    run = write_run(tmp_path / "run", score=lambda method, item: 100.0 * (item in right[method]))
    page = open_report(run).page
    completions = page.locator("#completions")

    def shown() -> list[str]:
        return words(completions.locator(".prompt-head bdi"))

    def identifiers(*numbers: int) -> list[str]:
        return [f"small_math {number}" for number in numbers]

    assert shown() == identifiers(0, 1, 2, 3)
    completions.get_by_label("Only where methods disagree").check()
    assert shown() == identifiers(1, 2)
    completions.get_by_label("Right", exact=True).select_option("kd")
    assert shown() == identifiers(2)
    assert completions.locator("article").get_by_role("heading", level=3).inner_text() == "small_math 2"
    assert words(completions.locator(".card"))[1:] == [
        "sft wrong 0 seed 1 · wrong · 3 tokens sft says 2",
        "kd right 100 seed 1 · correct · 3 tokens kd says 2",
    ]
    completions.get_by_label("Only where methods disagree").uncheck()
    completions.get_by_label("Right", exact=True).select_option("")
    completions.get_by_label("Wrong", exact=True).select_option(label="all methods")
    assert shown() == identifiers(3)
    completions.get_by_label("Wrong", exact=True).select_option("")
    completions.get_by_label("Search in all texts").fill("KD SAYS 1")
    assert shown() == identifiers(1)


def test_seed_and_method_choose_whose_completions_count(tmp_path: Path, open_report: Callable) -> None:
    page = open_report(write_run(tmp_path / "run", seeds=(1, 2), items=2)).page
    completions = page.locator("#completions")
    assert completions.locator(".completion").count() == 5
    completions.get_by_label("Seed").select_option("2")
    assert completions.locator(".completion").count() == 3
    completions.get_by_label("Method", exact=True).select_option("kd")
    assert completions.locator(".card h5").all_inner_texts() == ["teacher", "kd"]
    assert completions.get_by_role("status").inner_text() == "2 prompts of 2"


def test_the_keyboard_walks_through_prompts_and_steps_open_the_next(tmp_path: Path, open_report: Callable) -> None:
    page = open_report(write_run(tmp_path / "run")).page
    page.locator(".prompt").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".detail h3").inner_text() == "small_math 2"
    page.get_by_role("button", name="Next prompt").click()
    assert page.locator(".detail h3").inner_text() == "small_math 3"
    assert page.get_by_role("button", name="Next prompt").is_disabled()


def test_hostile_completions_do_nothing_and_are_shown_as_they_are(tmp_path: Path, open_report: Callable) -> None:
    texts = list(HOSTILE.values())
    run = write_run(tmp_path / "run", items=len(texts), answer=lambda _, item: texts[item])
    opened = open_report(run)
    page = opened.page
    for number, text in enumerate(texts):
        page.locator(".prompt").nth(number).click()
        block = page.locator(".card pre").first
        shown = block.evaluate("node => node.textContent")
        assert block.evaluate(
            "node => [...node.querySelectorAll('*')].every(child => child.className === 'hidden-character')"
        )
        if len(text) > 20_000:
            assert shown == text[:20_000]
            assert "20,000 of 1,000,002 characters are here" in page.locator(".card").first.inner_text()
        elif number in (4, 5):
            assert shown == text.translate(
                {ord(sign): f"U+{ord(sign):04X}" for sign in "\u2028\u2029\x00\u202e\u202c\u2066"}
            )
        else:
            assert shown == text
    assert page.evaluate("window.hacked") is None
    assert page.locator("body script").count() == 3
    assert (opened.complaints, opened.asked_elsewhere()) == ([], [])


def test_a_script_that_got_into_the_page_would_not_run(tmp_path: Path, open_report: Callable) -> None:
    opened = open_report(write_run(tmp_path / "run"))
    opened.page.evaluate(
        """() => {
            document.body.insertAdjacentHTML('beforeend', '<img src="data:," onerror="window.hacked = 1">');
            const script = document.createElement('script');
            script.textContent = 'window.hacked = 1';
            document.body.append(script);
            return fetch('https://example.org').catch(() => null);
        }"""
    )
    assert opened.page.evaluate("window.hacked") is None
    assert opened.asked_elsewhere() == []
    assert sum("Content Security Policy" in complaint for complaint in opened.complaints) >= 3


def test_a_phone_needs_no_sideways_scroll_and_every_control_has_a_name(tmp_path: Path, open_report: Callable) -> None:
    methods = ["sft", "kd", "a-method-of-a-very-long-name-on-policy"]
    run = write_run(
        tmp_path / "run", methods=methods, seeds=(1, 2), student="a-student-of-a-very-long-name-indeed-1.5b"
    )
    page = open_report(run, **PHONE, color_scheme="dark").page
    # The pages of a phone lay out as wide as what sticks out, so the window itself tells.
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    unnamed = page.evaluate(
        """() => {
            const byId = (id) => document.getElementById(id)?.textContent;
            const named = (node) => node.getAttribute('aria-label') || byId(node.getAttribute('aria-labelledby'))
                || [...(node.labels ?? [])].some((label) => label.textContent.trim())
                || (node.matches('button, a') && node.textContent.trim());
            return [...document.querySelectorAll('button, select, input, a, [tabindex="0"]')]
                .filter((node) => !named(node)).map((node) => node.outerHTML);
        }"""
    )
    assert unnamed == []
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th:not([scope=col])").count() == 0
        assert table.locator("tbody th:not([scope=row])").count() == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(19, 22, 26)"


def test_thousands_of_completions_open_and_turn_pages(tmp_path: Path, open_report: Callable) -> None:
    run = write_run(tmp_path / "run", methods=["sft", "kd", "uld", "dskd-v2"], items=1_000)
    opened = open_report(run)
    opened.page.locator(".card").first.wait_for()
    # How long it takes is measured by tests/benchmarks/report_page.py. Here: only what is on the screen is made.
    assert opened.page.locator(".prompt").count() == 50
    opened.page.get_by_role("button", name="Last page").click()
    assert opened.page.locator(".detail h3").inner_text() == "small_math 950"
    assert opened.page.locator(".prompt").count() == 50


def test_distances_have_a_section_where_a_run_has_some(tmp_path: Path, open_report: Callable) -> None:
    run = write_run(tmp_path / "run")
    assert open_report(run).page.locator("#distances").count() == 0
    for method, value in (("sft", 0.5), ("kd", 0.25)):
        write_distances(run, method, value)
    opened = open_report(run)
    assert rows(opened.page, "distances") == ["sft anchor", "kd"]
    cells = words(opened.page.locator("#distances tbody td"))
    assert "0.250 0.200 to 0.300" in cells
    assert opened.page.locator("#distances [title='not given']").count() == 2
    assert (opened.complaints, opened.asked_elsewhere()) == ([], [])


def test_claims_have_a_section_with_their_answers_where_they_are_asked(tmp_path: Path, open_report: Callable) -> None:
    run = write_planted(planted({"new": 75, "old": 45, "mild": 46}, items=40), tmp_path / "run")
    source = {"work": HOSTILE["image"], "says": HOSTILE["script"]}
    asked = {
        "good": {"source": source, "better": "new", "than": ["old", "mild"], "tuned": False},
        "bad": {"source": source, "better": "old", "than": "new", "tuned": False, "margin": 2.0},
        "gone": {"source": source, "better": "kd", "than": "old", "tuned": False, "tasks": [HOSTILE["closing"]]},
    }
    file = tmp_path / "claims.yaml"
    file.write_text(json.dumps({"schema_version": 1, "name": "mine", "claims": asked}))
    opened = open_report(run, claims=file)
    assert words(opened.page.locator("#claims h3")) == ["holds good", "fails bad", "no records gone"]
    assert opened.page.locator("#claims .forest-line").count() == 3
    assert opened.page.locator("#claims .forest-line .thin").count() == 3
    assert HOSTILE["script"] in words(opened.page.locator("#claims .note"))[1]
    assert "harness run --matrix" in words(opened.page.locator("#claims code"))[0]
    assert words(opened.page.locator("#bar a"))[-1] == "Claims"
    assert opened.page.evaluate("window.hacked") is None
    assert (opened.complaints, opened.asked_elsewhere()) == ([], [])
    # Nothing was tuned, so the claims that ship have no records and no section.
    assert make_document([run])[0]["claims"] is None
