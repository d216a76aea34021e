"""What of a test set is found in training data, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.data import DataOptions
from dskd.errors import InputError
from harness import tasks
from harness.evaluation.contamination import ItemTexts, find_contamination, items_of, training_examples, words

LONG = "Ann has three red apples and Bob gives her four more so how many has she now"  # 17 words
SHORT = "Why is the sky blue?"


def item(question: str, answer: str = "7", *forms: str) -> Any:
    return ItemTexts(question, (question, *forms), answer)


@pytest.fixture
def found(tmp_path: Path) -> Callable:
    """What is found of items in the rows of a training file."""

    def find(
        items: list[Any],
        *rows: dict[str, Any],
        columns: dict[str, str] | None = None,
        limit: int | None = None,
        n: int = 13,
    ) -> Any:
        path = tmp_path / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return find_contamination({"set": items}, training_examples(path, DataOptions(**(columns or {})), limit), n)[
            "set"
        ]

    return find


def row(prompt: str, output: str = "x") -> dict[str, str]:
    return {"prompt": prompt, "output": output}


def test_a_question_is_the_same_whatever_its_case_spaces_and_punctuation(found: Callable) -> None:
    result = found(
        [item(LONG), item(SHORT), item("Another?")], row(LONG.upper() + " ??"), row(" why is  the sky: blue")
    )
    assert (result.exact, result.exact_with_answer, result.ngram) == ({0, 1}, set(), {0, 1})
    assert (result.items, result.short, result.examples, result.n) == (3, 2, 2, 13)


def test_with_its_answer_it_has_to_stand_in_one_example(found: Callable) -> None:
    items = [item(LONG, "7 apples."), item(SHORT, "Scattering")]
    result = found(items, row(LONG, "7 Apples"), row(SHORT, "no"), row("other", "scattering"))
    assert (result.exact, result.exact_with_answer) == ({0, 1}, {0})


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (f"Someone says: {' '.join(LONG.split()[4:])}, please.", True),  # 13 words
        (f"Someone says: {' '.join(LONG.split()[5:])}, please.", False),  # 12 words
        (LONG.replace("Bob", "Eve"), False),  # 6 words before and 10 after
        (" ".join(reversed(LONG.split())), False),
    ],
)
def test_thirteen_words_in_a_row_are_found_and_twelve_are_not(found: Callable, text: str, is_found: bool) -> None:
    for example in (row(text), row("other", text)):  # in an answer as well
        result = found([item(LONG)], example)
        assert result.ngram == ({0} if is_found else set())
        assert result.exact == set()


def test_words_of_a_prompt_and_of_its_output_are_in_no_row(found: Callable) -> None:
    half = LONG.split()
    assert found([item(LONG)], row(" ".join(half[:8]), " ".join(half[8:]))).ngram == set()


def test_a_short_question_has_to_stand_there_whole(found: Callable) -> None:
    assert found([item(SHORT)], row("Tell me: why is the sky blue today?")).ngram == {0}
    assert found([item(SHORT)], row("Tell me: why is the sky so blue?")).ngram == set()
    assert found([item("?!"), item("")], row("?!"), row("anything")).ngram == set()  # no words, so nothing to find


def test_one_run_of_words_counts_for_every_item_that_has_it(found: Callable) -> None:
    shared = "one two three four"
    result = found([item(f"{shared} five"), item(f"zero {shared}"), item("one two three")], row(shared), n=4)
    assert result.ngram == {0, 1, 2}


def test_a_form_that_a_model_is_asked_counts_as_the_question_too(found: Callable) -> None:
    assert found([item(LONG, "7", f"Question: {LONG}\nAnswer:")], row(f"Question: {LONG}\nAnswer:")).exact == {0}


def test_columns_are_compared_by_themselves_and_in_their_templates(found: Callable) -> None:
    columns = {"prompt": "Q: {question}\nA:", "output": "So {answer}"}
    result = found([item(LONG, "7")], {"question": LONG, "answer": 7}, columns=columns)
    assert (result.exact, result.exact_with_answer, result.ngram) == ({0}, {0}, {0})


def test_an_instruction_with_an_input_is_another_question_than_without(found: Callable) -> None:
    asked = {"instruction": "Sum up.", "input": LONG, "output": "x"}
    assert found([item("Sum up.")], asked).exact == set()
    assert found([item(f"Sum up.\n{LONG}")], asked).exact == {0}
    assert found([item("Sum up.")], {**asked, "input": ""}).exact == {0}


def test_only_the_first_examples_are_read_where_the_training_takes_no_more(found: Callable) -> None:
    rows = [row("other"), row(LONG)]
    assert found([item(LONG)], *rows, limit=1).exact == set()
    assert found([item(LONG)], *rows, limit=1).examples == 1
    assert found([item(LONG)], *rows, limit=2).exact == {0}


def test_several_test_sets_are_looked_for_in_one_pass(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row(LONG)) + "\n")
    result = find_contamination({"a": [item(LONG)], "b": [item(SHORT)]}, training_examples(path))
    assert (result["a"].exact, result["b"].exact, result["b"].examples) == ({0}, set(), 1)


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ({"question": "x"}, None, r"train\.jsonl:1: needs text in output, and in prompt or instruction"),
        ({"prompt": "x"}, None, r"train\.jsonl:1: needs text in output"),
        (
            {"q": "x", "a": None},
            {"prompt": "{q}", "output": "{a}"},
            r":1: has no text in column 'a'; .* which are q, a",
        ),
    ],
)
def test_a_line_that_is_no_example_is_named(
    found: Callable, content: dict[str, Any], columns: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        found([item(LONG)], content, columns=columns)


def test_words_are_those_of_any_language() -> None:
    assert words("Straße, ﬁve\u00a0HÉLLO naïve_x 3.5") == ["strasse", "five", "héllo", "naïve_x", "3", "5"]


@pytest.mark.parametrize("name", ["small_math", "small_code", "small_instruct"])
def test_every_item_of_a_task_is_found_whole_in_a_training_set_made_of_it(name: str, tmp_path: Path) -> None:
    """As prompts, as instructions, and as what the small world writes for training."""
    task = tasks.load(name)
    docs = task.docs(20)
    everyone = set(range(20))
    for asked in (
        lambda doc: {"prompt": task.prompt(doc)},
        lambda doc: task.instruction(doc)._asdict(),
        lambda doc: {"prompt": task.question(doc)},
    ):
        path = tmp_path / "train.jsonl"
        path.write_text("".join(json.dumps({**asked(doc), "output": task.reference(doc)}) + "\n" for doc in docs))
        result = find_contamination({name: items_of(task, docs)}, training_examples(path))[name]
        assert (result.exact, result.exact_with_answer, result.ngram) == (everyone, everyone, everyone)


def test_what_a_task_says_around_each_item_is_no_overlap(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GSM8K's way to end an answer, MBPP's address of a programmer: in every training example of such a format."""
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    path = tmp_path / "train.jsonl"
    for name in ("gsm8k", "mbpp", "humaneval"):
        task = tasks.load(name)
        docs = task.docs(50)
        around = "\n".join(task.instruction(docs[0])).replace(task.question(docs[0]), "")
        assert around
        path.write_text(json.dumps(row(around)) + "\n")
        assert find_contamination({name: items_of(task, docs)}, training_examples(path))[name].ngram == set()


def test_of_the_published_dolly_sets_one_question_is_in_both_and_no_row(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    task = tasks.load("dolly")
    examples = training_examples(real_data / "dskd_format/dolly/dev.jsonl")
    result = find_contamination({"dolly": items_of(task, task.docs())}, examples)["dolly"]
    assert (result.examples, len(result.exact), result.exact_with_answer) == (1000, 1, set())
    assert result.exact <= result.ngram
