r"""Reads the answer that a completion gives: an option's letter, one of two words, a number, brackets, or words in order.

The rule is in docs/answers.md, section Choices, with its reasons; RULE is its version. It sees the question, whose options an answer may
name by their text, and never the key. Patterns are linear, and of an endless text no more than its two ends are read.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.metrics.choice_readers import OptionReader, Reader, WordReader, first_line
from harness.metrics.choice_text import announced, before_next_question, bold, boxed, plain, without_offers
from harness.metrics.choice_values import OrderReader
from harness.metrics.own_answer import own_turn

RULE = "1"
_MOST = 20_000  # characters read at each end
_MOST_LINES = 400


def find_choice(reader: Reader, text: str) -> str | None:
    """Return the answer that a text gives, in the reader's form; None where it gives none."""
    text = own_turn(text)
    if len(text) > 2 * _MOST:
        text = f"{text[:_MOST]}\n{text[-_MOST:]}"
    own = before_next_question(text)
    found = _find(reader, own)
    return _find(reader, text) if found is None and own != text else found


def _find(reader: Reader, text: str) -> str | None:
    text = without_offers(text)
    dressed = plain(text, mathematics=reader.mathematics)
    for content in boxed(text):
        if (found := reader.start(plain(content, mathematics=reader.mathematics))) is not None:
            return found
    for rest in announced(dressed):
        if (found := reader.start(rest)) is not None:
            return found
    if isinstance(reader, OrderReader):
        return reader.mention(dressed)
    emphasised = {
        answer
        for part in bold(text)
        if (answer := reader.whole(plain(part, mathematics=reader.mathematics))) is not None
    }
    if len(emphasised) == 1:
        return emphasised.pop()
    return next((answer for answer in _by_line(reader, dressed) if answer is not None), None)


def _by_line(reader: Reader, text: str) -> Iterator[str | None]:
    """The answers that single lines give, the best first: a line of its own, the beginning, the last mention."""
    lines = [line for line in text.split("\n") if line.strip()][-_MOST_LINES:]
    judged, after = None, lines
    if isinstance(reader, OptionReader):
        yield from (reader.whole(line) for line in reversed(lines) if reader.is_label(line))
        # A list of the options, with remarks or without, says nothing by its letters.
        listed = [at for at, line in enumerate(lines) if reader.lists(line) is not None]
        if len({reader.lists(lines[at]) for at in listed}) > 1:
            judged, after = reader.judged(lines), lines[listed[-1] + 1 :]
            lines = [line for line in lines if reader.lists(line) is None]
    yield from (reader.whole(line) for line in reversed(lines))
    if lines and (begins := _begins(reader, first_line(lines[0]))) is not None:
        yield begins
    yield from (reader.mention(line) for line in reversed(after))
    yield judged
    yield from (reader.mention(line) for line in reversed(lines))


def _begins(reader: Reader, line: str) -> str | None:
    """The answer that a first line begins with, before its reason; numbers and brackets are no such beginnings."""
    line = line.strip(" \"'*")
    return reader.before_reason(line) if isinstance(reader, WordReader | OptionReader) else None
