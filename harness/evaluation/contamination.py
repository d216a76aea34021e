"""How much of a test set is in training data: whole questions, with or without their answers, and runs of 13 words.

The run of words is the measure of the decontamination of GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C, which takes
at most 13) and of lm-eval's (`lm_eval.decontamination`, 13): an item is contaminated where any 13 words in a row of its question
are in a row in a training example, whatever their case and punctuation. A question of fewer words has to be there whole.

A word is a run of letters, digits and underscores after NFKC and case folding. Where a script puts no spaces between words, such
a run is a phrase, and less is found.

Memory holds only the test items; the training file is read line by line.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dskd.data.columns import template_columns
from dskd.data.examples import prompt_and_response
from dskd.data.messages import Unusable
from dskd.data.options import DEFAULT, DataOptions
from dskd.data.shapes import Example, Item, read_row, shape_of
from dskd.data.sources import rows_named
from dskd.errors import InputError
from harness.tasks.task import Doc, Task

VERSION = 1
N = 13

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, as they are compared."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True)
class ItemTexts:
    """A test item: its question's own text, all forms in which a model may be asked it, and its reference answer."""

    question: str
    forms: tuple[str, ...]
    answer: str


def items_of(task: Task, docs: Iterable[Doc]) -> list[ItemTexts]:
    """The items of a task's documents."""
    items = []
    for doc in docs:
        forms = [task.question(doc), task.prompt(doc)]
        if task.supports_chat:
            forms.append("\n".join(task.instruction(doc)))
        items.append(ItemTexts(forms[0], tuple(forms), task.reference(doc)))
    return items


@dataclass(frozen=True)
class TrainingExample:
    """What a line of a training file is compared by: its texts, and which of them are questions and which answers."""

    texts: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def training_examples(
    source: str | Path, options: DataOptions = DEFAULT, limit: int | None = None
) -> Iterator[TrainingExample]:
    """The examples of a training set, in order; `options` says how its rows are read, as in a matrix.

    Rows that cannot be trained on are left out. InputError for a file that cannot be read, and with its place for a row without
    question or answer.
    """
    for where, row in islice(rows_named(source), limit):
        if options.are_of_texts and (options.columns is not None or _has_question_and_answer(row)):
            yield _example(row, options.columns, where)
            continue
        if options.are_of_texts and shape_of(row, "any") is None:
            raise InputError(
                f"{where}: needs text in output, and in prompt or instruction; the row has {', '.join(row)}; "
                'fix: say what they are made of (prompt: "{question}")'
            )
        try:
            yield _of_item(read_row(row, where, "any", options))
        except Unusable:
            continue


def _has_question_and_answer(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("output"), str) and any(
        isinstance(row.get(key), str) for key in ("prompt", "instruction")
    )


def _of_item(item: Item) -> TrainingExample:
    asked, answers = prompt_and_response(item)
    if isinstance(item, Example):
        question = "\n".join(asked)
        return TrainingExample((question, *answers), (question,), tuple(answers))
    return TrainingExample((*asked, *answers), tuple(asked), tuple(answers))


def _example(row: Mapping[str, Any], columns: Mapping[str, str] | None, where: str) -> TrainingExample:
    raw = {}
    if columns is not None:
        named = {key: template_columns(text) for key, text in columns.items()}
        for name in chain(*named.values()):
            if not isinstance(row.get(name), str | int | float):
                raise InputError(
                    f"{where}: has no text in column '{name}'; fix: name its columns, which are {', '.join(row)}"
                )
        raw = {key: tuple(str(row[name]) for name in names) for key, names in named.items()}
        row = {key: text.format_map(row) for key, text in columns.items()}
    found = {key: row[key] for key in ("prompt", "instruction", "input", "output") if isinstance(row.get(key), str)}
    questions = [found["prompt"]] if "prompt" in found else []
    if "instruction" in found:
        questions.append("\n".join(filter(None, (found["instruction"], found.get("input")))))
    texts = (*questions, found["output"])
    questions += [text for key in ("prompt", "instruction") if not found.get("input") for text in raw.get(key, ())]
    return TrainingExample(texts, tuple(questions), (found["output"], *raw.get("output", ())))


@dataclass
class Contamination:
    """What was found of a test set of `items` in `examples`: the places of the items, in the test set's order from 0.

    `exact`: the whole question is the question of an example; `exact_with_answer`: and the answer its answer; `ngram`: `n` words in
    a row, or the whole of a question that has fewer, as `short` of them have.
    """

    items: int
    short: int
    n: int
    examples: int = 0
    exact: set[int] = field(default_factory=set)
    exact_with_answer: set[int] = field(default_factory=set)
    ngram: set[int] = field(default_factory=set)


class ItemIndex:
    """The items of one test set, to be looked for in one training example after another; `found` is the result."""

    def __init__(self, items: Sequence[ItemTexts], n: int = N) -> None:
        questions = [words(item.question) for item in items]
        self.found = Contamination(len(items), sum(len(question) < n for question in questions), n)
        self._vocabulary: dict[str, int] = {}  # from 1; 0 is a word of no item
        self._runs: dict[bytes, tuple[int, ...]] = {}
        lengths: dict[int, set[int]] = {}
        for place, question in enumerate(questions):
            ids = array("I", (self._vocabulary.setdefault(word, len(self._vocabulary) + 1) for word in question))
            length = min(n, len(ids))
            for start in range(len(ids) - length + 1) if ids else ():
                run = ids[start : start + length].tobytes()
                known = self._runs.get(run, ())
                if place not in known:
                    self._runs[run] = (*known, place)
                lengths.setdefault(ids[start], set()).add(length)
        # Which lengths of run begin with a word.
        self._lengths = {word: tuple(sorted(found)) for word, found in lengths.items()}
        self._forms: dict[str, set[int]] = {}
        for place, item in enumerate(items):
            for form in item.forms:
                if key := " ".join(words(form)):
                    self._forms.setdefault(key, set()).add(place)
        self._answers = [" ".join(words(item.answer)) for item in items]

    def look_in(self, texts: Iterable[list[str]], questions: Iterable[str], answers: Iterable[str]) -> None:
        """Look in an example: its texts in words, its questions and answers as words with single spaces."""
        found = self.found
        found.examples += 1
        same = {place for question in questions for place in self._forms.get(question, ())}
        if same:
            found.exact |= same
            found.ngram |= same
            given = set(answers)
            found.exact_with_answer |= {place for place in same if self._answers[place] in given}
        get, lengths, runs = self._vocabulary.get, self._lengths, self._runs
        for text in texts:
            ids = array("I", [get(word, 0) for word in text])
            data, size = ids.tobytes(), ids.itemsize
            for start, word in enumerate(ids):
                for length in lengths.get(word, ()):
                    places = runs.get(data[size * start : size * (start + length)])
                    if places:
                        found.ngram.update(places)


def find_contamination(
    items: Mapping[str, Sequence[ItemTexts]], examples: Iterable[TrainingExample], n: int = N
) -> dict[str, Contamination]:
    """What is found of several test sets, by name, in one pass over training examples."""
    indices = {name: ItemIndex(own, n) for name, own in items.items()}
    for example in examples:
        split = {text: words(text) for text in dict.fromkeys((*example.texts, *example.questions, *example.answers))}
        joined = {text: " ".join(found) for text, found in split.items()}
        texts = [split[text] for text in example.texts]
        for index in indices.values():
            index.look_in(texts, [joined[q] for q in example.questions], [joined[a] for a in example.answers])
    return {name: index.found for name, index in indices.items()}
