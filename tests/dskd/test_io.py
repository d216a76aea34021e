"""Files that are damaged or cannot be read: one line that names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.io import read_object, read_objects

DAMAGED = [
    (b'{"a": ', "not JSON (Expecting value"),
    (b"[1]", "not a JSON object"),
    (b'{"a": "\xff"}', "not UTF-8 text"),
    (b'{"a": ' + b"9" * 5000 + b"}", "holds a number of thousands of digits"),
    (b'{"a": ' + b"[" * 100_000, "lists or objects are nested too deeply"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED, ids=[message for _, message in DAMAGED])
def test_a_damaged_line_and_a_damaged_file_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_object(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    path.write_bytes(b'{"a": 1}\n\n' + content + b"\n")
    lines = read_objects(path)
    assert next(lines) == (1, {"a": 1})
    with pytest.raises(InputError) as caught:
        next(lines)
    assert str(caught.value).startswith(f"{path}:3: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text('{"a": 1}\n')

    def refuse(*arguments: Path | str, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    for read in (read_object, lambda path: list(read_objects(path))):
        with pytest.raises(InputError, match=r"file: cannot be read \(Permission denied\)"):
            read(path)
