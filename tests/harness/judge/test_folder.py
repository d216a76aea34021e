"""The folder of a comparison: killed writes, damage, and one process at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.judge.asking import missing
from harness.judge.folder import JUDGEMENTS, open_folder
from harness.judge.pairs import Pair, questions
from harness.judge.prompt import messages, request_hash

SETTINGS = {"judge_model": "m", "parameters": {"seed": 0}}
PAIRS = [Pair(str(n), 0, "q", "a", "b") for n in range(2)]
ASKED = questions(PAIRS, 1, seed=0)


def judgement(number: int) -> dict[str, Any]:
    question = ASKED[number]
    parameters = {"seed": question.repeat}
    values = {"verdict": "1", "winner": "A", "began": 1.0, "seconds": 1.0, "reply": "\ud800 \u2028 Verdict: 1"}
    key = dict(zip(("id", "index", "order", "repeat"), question.key, strict=True))
    return {**key, **values, "request": request_hash(messages(question), parameters)}


def test_what_was_added_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    with open_folder(tmp_path / "f", SETTINGS, {}) as folder:
        assert missing(folder, ASKED, {"seed": 0}) == ASKED
        for number in (0, 1, 2, 4):
            folder.add(judgement(number))
    with open_folder(tmp_path / "f", SETTINGS, {}) as folder:
        assert missing(folder, ASKED, {"seed": 0}) == [ASKED[3], ASKED[5]]
        assert folder.judgements[ASKED[0].key] == judgement(0)


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_last_line_is_dropped_and_asked_again(tmp_path: Path, cut: int) -> None:
    with open_folder(tmp_path, SETTINGS, {}) as folder:
        for number in range(3):
            folder.add(judgement(number))
    path = tmp_path / JUDGEMENTS
    path.write_bytes(path.read_bytes()[:-cut])
    with open_folder(tmp_path, SETTINGS, {}) as folder:
        assert [question.key for question in missing(folder, ASKED[:3], {"seed": 0})] == [ASKED[2].key]
        folder.add(judgement(2))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["0", "0", "1"]


@pytest.mark.parametrize("damaged", [b"not JSON\n", b'{"id": "0"}\n', b"[]\n"])
def test_a_damaged_line_within_is_named_and_kept(tmp_path: Path, damaged: bytes) -> None:
    with open_folder(tmp_path, SETTINGS, {}) as folder:
        folder.add(judgement(0))
    path = tmp_path / JUDGEMENTS
    content = path.read_bytes() + damaged + path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{JUDGEMENTS}:2: "), open_folder(tmp_path, SETTINGS, {}):
        pass
    assert path.read_bytes() == content


def test_a_judgement_of_another_request_is_refused(tmp_path: Path) -> None:
    with open_folder(tmp_path, SETTINGS, {}) as folder:
        folder.add(judgement(0))
        changed = questions([Pair("0", 0, "another q", "a", "b")], 0, seed=0)
        with pytest.raises(InputError, match="'0' is of another request"):
            missing(folder, changed, {"seed": 0})


def test_one_process_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    with (
        open_folder(tmp_path, SETTINGS, {}),
        pytest.raises(InputError, match="another process"),
        open_folder(tmp_path, SETTINGS, {}),
    ):
        pass
    with open_folder(tmp_path, SETTINGS, {}):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"), open_folder(tmp_path / "file" / "f", SETTINGS, {}):
        pass
