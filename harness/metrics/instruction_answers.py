"""Answers that follow the instructions of an IFEval prompt: the data set has none, and gold answers must score 100.

An answer is made of clauses (`instruction_clauses`): as many as words, sentences and parts are asked for, without the letters and words
that are to be rare. Each kind of instruction says in one small function what it asks for; `_Answer.text` puts everything together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise
from typing import Any

from harness.metrics.instruction_clauses import CLAUSES

_ENOUGH_TO_TELL_A_LANGUAGE = 80  # words
_BESIDE_ANOTHER_LANGUAGE = 400


def following_answer(kinds: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> str:
    """Return an answer that follows all instructions, where that can be done at all; as many as can be followed elsewhere."""
    answer = _Answer()
    for kind, given in zip(kinds, arguments, strict=True):
        _KINDS[kind](answer, {name: value for name, value in given.items() if value is not None})
    return answer.text()


@dataclass
class _Answer:
    """What is asked for: `extra` are words to have, each as often as it is there; `rare` texts appear in no clause."""

    language: str = "en"
    least_words: int = 8
    most_words: int | None = None
    least_sentences: int = 1
    extra: list[str] = field(default_factory=list)
    least_letters: dict[str, int] = field(default_factory=dict)
    rare: list[str] = field(default_factory=list)
    parts: int = 1
    between_parts: str = "\n"
    part_name: str = ""
    first_word: tuple[int, str] | None = None
    bullets: int = 0
    title: bool = False
    head: str = ""
    tail: list[str] = field(default_factory=list)
    twice: bool = False
    quoted: bool = False
    frame: Callable[[str], str] = str
    case: Callable[[str], str] = str

    def text(self) -> str:
        if self.head and self.language != "en":
            self.least_words = _BESIDE_ANOTHER_LANGUAGE
        if self.most_words is not None and self.least_words >= self.most_words:  # enough for a language were too many
            self.least_words = self.most_words // 2
        body = self._body(0)
        if self.twice:
            body += f"\n******\n{self._body(1)}"
        title = [f"<<{' '.join(self._clauses(1, 0)[0].split()[:3])}>>"] if self.title else []
        text = self.frame(self.case("\n".join([*filter(None, [self.head]), *title, body, *self.tail])))
        if self.quoted:
            text = f'"\n{text}"' if self.bullets else f'"{text}"'  # a bullet point begins a line
        return text

    def _body(self, turn: int) -> str:
        lines = self.parts - 1 + max(self.bullets, 1)
        fragments = _grouped(self._units(max(lines, self.least_sentences), turn), max(lines, self.least_sentences))
        ending = "!" if self.case is str.lower else "."  # lower case after a full stop begins no sentence
        joined = [units[0][:1].upper() + "; ".join(units)[1:] for units in fragments]
        for place in range(len(joined) - self.least_sentences, len(joined)):
            joined[place] += ending
        pieces = [" ".join(part) for part in _grouped(joined, lines)]
        bulleted = "\n".join(f"* {piece}" if self.bullets else piece for piece in pieces[self.parts - 1 :])
        parts = [*pieces[: self.parts - 1], bulleted]
        if self.first_word is not None:
            number, word = self.first_word
            parts[number - 1] = f"{word} {parts[number - 1]}"
        if self.part_name:
            parts = [f"{self.part_name} {number}\n{part}" for number, part in enumerate(parts, 1)]
        return self.between_parts.join(parts)

    def _units(self, least: int, turn: int) -> list[str]:
        """Clauses and asked-for words: at least so many, with words and letters enough."""
        units = self._clauses(1, turn) + self.extra
        more = iter(self._clauses(least + self.least_words, turn + 1))
        while len(units) < least or len(re.findall(r"\w+", " ".join(units))) < self.least_words:
            units.append(next(more))
        for letter, count in self.least_letters.items():
            units.append(letter * max(0, count - "".join(units).lower().count(letter)))
        return [unit for unit in units if unit]

    def _clauses(self, count: int, turn: int) -> list[str]:
        """So many clauses without the rare texts."""
        fit = [clause for clause in CLAUSES[self.language] if not any(text in clause for text in self.rare)]
        return list(islice(cycle(fit), turn, turn + count))


def _grouped(items: Sequence[str], count: int) -> list[list[str]]:
    """The items in so many groups of nearly one size, in order."""
    ends = [len(items) * number // count for number in range(count + 1)]
    return [list(items[start:end]) for start, end in pairwise(ends)]


def _existence(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.extra += given["keywords"]


def _frequency(answer: _Answer, given: Mapping[str, Any]) -> None:
    if given["relation"] == "at least":
        answer.extra += [given["keyword"]] * given["frequency"]
    else:
        answer.rare.append(given["keyword"].lower())


def _forbidden_words(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.rare += [word.lower() for word in given["forbidden_words"]]


def _letter_frequency(answer: _Answer, given: Mapping[str, Any]) -> None:
    letter = given["letter"].lower()
    if given["let_relation"] == "at least":
        answer.least_letters[letter] = given["let_frequency"]
    else:
        answer.rare.append(letter)


def _response_language(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.language = given["language"]
    answer.least_words = max(answer.least_words, _ENOUGH_TO_TELL_A_LANGUAGE)


def _number_sentences(answer: _Answer, given: Mapping[str, Any]) -> None:
    if given["relation"] == "at least":
        answer.least_sentences = max(answer.least_sentences, given["num_sentences"])


def _number_words(answer: _Answer, given: Mapping[str, Any]) -> None:
    if given["relation"] == "at least":
        answer.least_words = max(answer.least_words, given["num_words"])
    else:
        answer.most_words = given["num_words"]


def _number_paragraphs(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.parts, answer.between_parts = given["num_paragraphs"], "\n***\n"


def _nth_paragraph_first_word(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.parts, answer.between_parts = given["num_paragraphs"], "\n\n"
    answer.first_word = given["nth_paragraph"], given["first_word"]


def _number_placeholders(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.extra += ["[...]"] * given["num_placeholders"]


def _postscript(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.tail.insert(0, f"{given['postscript_marker']} {CLAUSES['en'][0]}")


def _number_bullet_lists(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.bullets = given["num_bullets"]


def _constrained_response(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.frame = lambda _text: "My answer is yes."


def _number_highlighted_sections(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.extra += ["*well*"] * given["num_highlights"]


def _multiple_sections(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.parts, answer.part_name = given["num_sections"], given["section_spliter"]


def _json_format(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.frame = lambda text: json.dumps({"answer": text}, ensure_ascii=False)


def _title(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.title = True


def _two_responses(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.twice = True


def _repeat_prompt(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.head = given["prompt_to_repeat"]


def _end_checker(answer: _Answer, given: Mapping[str, Any]) -> None:
    answer.tail.append(given["end_phrase"])


def _capital_word_frequency(answer: _Answer, given: Mapping[str, Any]) -> None:
    if given["capital_relation"] == "at least":
        answer.extra += ["GOOD"] * given["capital_frequency"]


def _english_capital(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.case = str.upper
    answer.least_words = max(answer.least_words, _ENOUGH_TO_TELL_A_LANGUAGE)


def _english_lowercase(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.case = str.lower
    answer.least_words = max(answer.least_words, _ENOUGH_TO_TELL_A_LANGUAGE)


def _no_comma(_answer: _Answer, _: Mapping[str, Any]) -> None:
    """Nothing to do: clauses have none."""


def _quotation(answer: _Answer, _: Mapping[str, Any]) -> None:
    answer.quoted = True


_KINDS: dict[str, Callable[[_Answer, Mapping[str, Any]], None]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_words": _number_words,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
    "startend:quotation": _quotation,
}
