"""IFEval's instructions: each kind followed and not, strictly and loosely, and the same verdicts in every process and order."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.metrics import punkt
from harness.metrics.instruction_answers import following_answer
from harness.metrics.instruction_clauses import CLAUSES
from harness.metrics.instructions import follows, score_answers


@pytest.fixture(autouse=True)
def _nltk_has_its_data() -> None:
    try:
        punkt.require_punkt()
    except InputError:
        pytest.skip("nltk's punkt_tab is not here")


WORDS = "we would write to you when we have the time and they would write back to us at once"
# Kind, arguments, an answer that follows, one that does not.
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["moss", "fern"]}, "Ferns and Moss.", "Ferns alone."),
    ("keywords:frequency", {"keyword": "owl", "frequency": 2, "relation": "at least"}, "Owl owl.", "One owl."),
    ("keywords:frequency", {"keyword": "owl", "frequency": 2, "relation": "less than"}, "One owl.", "Owl, owl."),
    ("keywords:forbidden_words", {"forbidden_words": ["rain"]}, "A train.", "No Rain."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "Zz", "z"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "# #", "# a"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "less than"}, "No!", "No!!"),
    ("language:response_language", {"language": "de"}, CLAUSES["de"][0], CLAUSES["fi"][0]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two.", "Just one."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "Dr. Low.", "One. Two."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 19, "relation": "less than"}, "one two", WORDS),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n\nTwo"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First.\n\nThen, more.",
        "First.\n\nMore then.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], at [place].", "Dear [name]."),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Write.", "Bye. Write."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. Write.", "Bye.\nP.S. Write."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and *two*", "*one* and two"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\na\nPart 2\nb",
        "Part 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', '{"a": 1'),
    ("detectable_format:title", {}, "<<Home>>\nText", "Home\nText"),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    ("startend:end_checker", {"end_phrase": "That is all."}, "So. That is all.", "That is all. So."),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "GO ON now",
        "GO on now",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "GO on now",
        "GO ON now",
    ),
    ("change_case:english_capital", {}, WORDS.upper(), WORDS.capitalize()),
    ("change_case:english_lowercase", {}, WORDS, WORDS.capitalize()),
    ("punctuation:no_comma", {}, "One and two", "One, two"),
    ("startend:quotation", {}, '"All of it."', '"Some" of it.'),
]


@pytest.mark.parametrize(("kind", "given", "right", "wrong"), CASES)
def test_each_kind_of_instruction_is_followed_by_one_answer_and_not_by_another(
    kind: str, given: dict[str, Any], right: str, wrong: str
) -> None:
    assert follows([kind], [given], "Do it.", right).strict == (True,)
    assert follows([kind], [given], "Do it.", wrong).strict == (False,)
    # A hub's rows have every argument of every kind, most of them null.
    assert follows([kind], [{"num_words": None, "language": None, **given}], "Do it.", right).strict == (True,)


def test_all_kinds_have_a_case_and_a_way_to_be_followed() -> None:
    kinds = {kind for kind, *_ in CASES}
    assert len(kinds) == 25
    for kind, given, *_ in CASES:
        assert follows([kind], [given], "Do it.", following_answer([kind], [given])).strict == (True,), kind


@pytest.mark.parametrize("language", sorted(set(CLAUSES) - {"en"}))
def test_every_language_that_is_asked_for_is_told_from_english(language: str) -> None:
    asked = ["language:response_language"], [{"language": language}]
    assert follows(*asked, "", " ".join(CLAUSES[language])).strict == (True,)
    assert follows(*asked, "", WORDS).strict == (False,)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("startend:quotation", 'Sure, here it is:\n"All of it."'),
        ("startend:quotation", '"All of it."\nI hope this helps.'),
        ("startend:quotation", 'Sure:\n"All of it."\nI hope this helps.'),
        ("startend:quotation", '**"All of it."**'),
        ("startend:quotation", 'Sure:\n**"All of it."**\nBye.'),
        ("punctuation:no_comma", "Sure, here it is:\nOne and two"),
    ],
)
def test_loosely_a_line_before_or_after_and_asterisks_do_no_harm(kind: str, answer: str) -> None:
    found = follows([kind], [{}], "", answer)
    assert (found.strict, found.loose) == ((False,), (True,))


def test_two_lines_too_many_are_not_forgiven() -> None:
    assert follows(["startend:quotation"], [{}], "", 'Sure.\nHere:\n"All of it."').loose == (False,)


def test_instructions_are_counted_one_by_one_and_weighted_by_their_number() -> None:
    doc = {
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation", "detectable_format:title"],
        "kwargs": [{}, {}, {}],
        "prompt": "Write.",
    }
    right, partly, blank = score_answers(
        [doc] * 3, ['"<<Home>> all of it"', "<<Home>>, all of it", " \n"], lambda: None
    )
    assert set(right.scores.values()) == {100.0}
    assert partly.scores == pytest.approx(
        {"prompt_strict": 0.0, "prompt_loose": 0.0, "inst_strict": 100 / 3, "inst_loose": 100 / 3}
    )
    assert partly.extracted == {"strict": "detectable_format:title", "loose": "detectable_format:title"}
    assert partly.weights == {"inst_strict": 3, "inst_loose": 3}
    assert [score.outcome for score in (right, partly, blank)] == ["correct", "wrong", "invalid"]
    assert set(blank.scores.values()) == {0.0}


def test_verdicts_depend_neither_on_chance_nor_on_the_order_and_draw_nothing() -> None:
    letters = ["keywords:letter_frequency"], [{"letter": "#", "let_frequency": 4, "let_relation": "at least"}], ""
    mixed = ["language:response_language"], [{"language": "de"}], ""
    texts = ["#### a", "ja no si ok", "le chat und the dog", "1 2 3", "Haus home casa maison", "?"]
    verdicts = []
    for seed in range(6):
        random.seed(seed)
        state = random.getstate()
        order = texts[seed:] + texts[:seed]
        verdicts.append({text: (follows(*letters, text), follows(*mixed, text)) for text in order})
        assert random.getstate() == state
    assert all(each == verdicts[0] for each in verdicts)


def test_an_answer_that_no_checker_gets_through_is_not_followed_and_nothing_is_raised() -> None:
    assert follows(["detectable_format:json_format"], [{}], "", "[" * 100_000).strict == (False,)
    for text in ("\0" * 99, "\udc80 half", "\u0663" * 99, "__import__('os').system('true')", "9" * 9_999):
        for kind, given, *_ in CASES:
            follows([kind], [given], "", text)


@pytest.mark.slow
def test_a_text_made_for_a_checker_s_pattern_ends_at_the_limit_and_follows_nothing() -> None:
    doc = {
        "instruction_id_list": ["detectable_content:number_placeholders"],
        "kwargs": [{"num_placeholders": 1}],
        "prompt": "",
    }
    hostile, after = score_answers([doc] * 2, ["[" * 10_000_000, "[a]"], lambda: None)
    assert (hostile.outcome, hostile.scores["inst_strict"]) == ("timeout", 0.0)
    assert hostile.weights == {"inst_strict": 1, "inst_loose": 1}
    assert after.scores["prompt_strict"] == 100.0


@pytest.fixture
def nltk_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """nltk without any path of its own."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", paths := [])
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return paths


def english_data() -> Path:
    """The folder with nltk's data that is used here."""
    import nltk

    return Path(str(nltk.data.find("tokenizers/punkt_tab/english/"))).parents[2]


def test_nltk_s_data_is_looked_for_in_harness_data_and_its_absence_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    source = english_data()
    paths = request.getfixturevalue("nltk_paths")
    monkeypatch.setattr(punkt, "find_spec", lambda name: None)
    with pytest.raises(
        InputError,
        match=r"^nltk: its data punkt_tab is not here; fix: run `python -m nltk.downloader punkt_tab`, or .*$",
    ):
        punkt.require_punkt()
    folder = tmp_path / "nltk_data/tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    for file in (source / "tokenizers/punkt_tab/english").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    punkt.require_punkt()
    assert paths == [str(tmp_path / "nltk_data")]
    (folder / "abbrev_types.txt").write_text("dr\n")
    with pytest.raises(
        InputError, match=r"english: its files have the sha256 \w{64}, expected \w{64}; fix: move them away"
    ):
        punkt.require_punkt()


def test_nltk_s_data_comes_with_llama_index_where_nothing_else_has_it(nltk_paths: list[str]) -> None:
    pytest.importorskip("importlib.metadata").version("llama-index-core")
    punkt.require_punkt()
    assert re.search(r"llama_index.core._static.nltk_cache$", nltk_paths[0])


@pytest.mark.slow
def test_loading_the_checks_opens_no_connection() -> None:
    program = (
        "import sys\n"
        "sys.addaudithook(lambda event, _: sys.exit(event) if event.startswith(('socket.connect', 'socket.getaddrinfo', 'urllib')) else None)\n"
        "from harness.metrics.instructions import lm_eval_checkers\n"
        "print(len(lm_eval_checkers()))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "25"
