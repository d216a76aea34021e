"""JSON that is not one value a line: a list of objects, or objects over several lines, read without holding the whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from dskd.errors import InputError
from dskd.io import HALF_A_PAIR, has_half_a_pair

LONGEST = 1 << 26  # characters of one value
_CHUNK = 1 << 16  # characters that are read at once
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def objects_of(path: Path, text: TextIO, *, is_list: bool) -> Iterator[dict[str, Any]]:
    """The objects of a list, or objects one after another, each as soon as it is read.

    Args:
        path: The file, for errors.
        text: Its text.
        is_list: Whether the text is one list of objects.

    Raises:
        InputError: For what is no JSON, no object, or no text; and where there is none.
    """
    number = 0
    for number, item in enumerate(_values(path, text, is_list=is_list), 1):
        where = f"{path}: row {number}"
        if not isinstance(item, dict):
            raise InputError(f"{where}: not a JSON object; fix: give a list of objects")
        if has_half_a_pair(item):
            raise InputError(f"{where}: {HALF_A_PAIR}")
        yield item
    if not number:
        raise InputError(f"{path}: the list is empty; fix: give a list of objects")


def _values(path: Path, text: TextIO, *, is_list: bool) -> Iterator[Any]:
    buffer = _Buffer(path, text)
    if is_list:
        buffer.take("[")
        if buffer.take("]"):
            return
    while not buffer.at_end():
        yield buffer.value()
        if is_list and not buffer.take(","):
            if not buffer.take("]"):
                buffer.fail("neither , nor ] after an item")
            if not buffer.at_end():
                buffer.fail("more text after the list")
            return
    if is_list:
        buffer.fail("the list has no end")


class _Buffer:
    """Text of which the beginning is in memory."""

    def __init__(self, path: Path, text: TextIO) -> None:
        self.path, self.text = path, text
        self.held, self.place, self.more = "", 0, _CHUNK
        self.count = 0  # values that were read

    def _read(self) -> bool:
        """Read more; whether there was any. Twice as much each time that nothing could be used, so that no text is quadratic."""
        found = self.text.read(self.more)
        self.held, self.place = self.held[self.place :] + found, 0
        self.more *= 2
        return bool(found)

    def at_end(self) -> bool:
        """Whether nothing but space is left."""
        while True:
            matched = _SPACE.match(self.held, self.place)
            assert matched is not None
            self.place = matched.end()
            if self.place < len(self.held):
                return False
            if not self._read():
                return True

    def take(self, sign: str) -> bool:
        """Whether this sign is next; it is read."""
        found = not self.at_end() and self.held[self.place] == sign
        self.place += found
        return found

    def value(self) -> Any:
        """The next value."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.held, self.place)
            except json.JSONDecodeError as error:
                if len(self.held) - self.place > LONGEST or not self._read():
                    self.fail(error.msg)
            except RecursionError:
                self.fail("lists or objects are nested too deeply")
            except ValueError:  # Python refuses to read numbers of thousands of digits
                self.fail("a number of thousands of digits")
            else:
                self.place, self.more, self.count = end, _CHUNK, self.count + 1
                return value

    def fail(self, reason: str) -> NoReturn:
        """InputError."""
        raise InputError(
            f"{self.path}: row {self.count + 1}: not JSON ({reason}); fix: save the file again, or write JSON lines"
        )
