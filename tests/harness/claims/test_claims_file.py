"""Files of claims: those that ship, and what is said of mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dskd.errors import InputError
from dskd.methods import METHODS
from harness.claims.claims_file import ClaimsFile, find_claims, read_claims, shipped_claims
from harness.config.matrix_file import find_matrix, read_matrix

FILE = """schema_version: 1
name: mine
claims:
  one:
    source: {arxiv: "2504.11426", says: One is better.}
    better: kd
    than: sft
    pairs: [big/small]
"""


Read = Callable[..., ClaimsFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file of one claim, with a part of it replaced."""

    def reading(old: str = "", new: str = "") -> ClaimsFile:
        assert old in FILE
        path = tmp_path / "claims.yaml"
        path.write_text(FILE.replace(old, new) if old else FILE)
        return read_claims(path)

    return reading


def test_a_claim_is_said_in_words(read: Read) -> None:
    claim = read().claims["one"]
    assert claim.statement == "kd is better than sft (tuned; big/small; all tasks)"
    assert claim.source.cited == "arXiv 2504.11426"
    assert [claim.recorded(name) for name in (claim.better, *claim.than)] == ["kd+tuned", "sft+tuned"]
    claim = read(
        "than: sft", "than: sft\n    tuned: false\n    direction: as-good\n    margin: 3\n    tasks: dolly"
    ).claims["one"]
    assert claim.statement == "kd is as good as sft, within 3 points (default settings; big/small; dolly)"
    assert claim.recorded("kd") == "kd"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("than: sft", "then: sft", "claims.one.then: unknown key; did you mean 'than'?"),
        ("says: One", "sayz: x, says: One", "claims.one.source.sayz: unknown key; did you mean 'says'?"),
        (
            '"2504.11426"',
            "2504.11426",
            "claims.one.source.arxiv: is a number, which loses zeros; fix: put it in quotes",
        ),
        ('arxiv: "2504.11426", ', "", "claims.one.source: gives no source; fix: add arxiv"),
        ("than: sft", "than: [sft, kd]", "claims.one: 'kd' is compared with itself; fix:"),
        ("than: sft", "than: [sft, sft]", "claims.one.than: 'sft' is given twice; fix:"),
        ("than: sft", "than: []", "claims.one.than: "),
        ("than: sft", "than: sft+tuned", "claims.one: 'sft+tuned': the key tuned says that; fix: write sft"),
        ("than: sft", "than: sft\n    direction: as-good", "nothing is equal within a margin of 0; fix: give a margin"),
        ("than: sft", "than: sft\n    margin: -1", "claims.one.margin: "),
        ("than: sft", "than: sft\n    direction: worse", "claims.one.direction: "),
        ("[big/small]", "matching", "claims.one.pairs: 'matching' is no pair; fix: write matched, mismatched, all, or"),
        ("[big/small]", "[]", "claims.one.pairs: names no pair"),
        ("[big/small]", "all\n    tasks: []", "claims.one.tasks: names no task"),
        ("  one:", "  one claim:", "claims.one claim: 'one claim' is not a name"),
        ("One is", '"One\\nis', "claims.yaml"),
        ("schema_version: 1", "schema_version: 2", "schema_version: "),
    ],
)
def test_a_mistake_is_one_line_with_its_key(read: Read, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read(old, new)
    assert message in str(error.value)
    assert "claims.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_file_is_one_line_with_the_nearest_that_ships() -> None:
    with pytest.raises(InputError, match=r"--claims referees: no such file.*did you mean 'referee'"):
        find_claims("referees")


def test_the_files_that_ship_name_methods_that_there_are_and_ask_for_tuned_ones() -> None:
    matrix = read_matrix(find_matrix("methods"))
    known = {*METHODS, *(name for pair in matrix.pairs for name in pair.methods)}
    assert set(shipped_claims()) == {"referee", "published", "ours", "parts"}
    for path in (path for shipped, path in shipped_claims().items() if shipped != "parts"):
        for name, claim in read_claims(path).claims.items():
            assert {claim.better, *claim.than} <= known, name
            assert claim.tuned, name
            needs = {METHODS[each].requires.vocabulary for each in (claim.better, *claim.than) if each in METHODS}
            assert not (claim.pairs == "mismatched" and "same" in needs), name


def test_those_of_the_parts_of_our_method_are_about_rows_of_its_matrix_and_its_fixed_settings() -> None:
    rows = {name for pair in read_matrix(find_matrix("own-method")).pairs for name in pair.methods}
    claims = read_claims(find_claims("parts")).claims
    assert {name for claim in claims.values() for name in (claim.better, *claim.than)} == rows
    assert not any(claim.tuned for claim in claims.values())


def test_default_settings_can_be_asked_for_in_place_of_tuned_ones() -> None:
    path = find_claims("referee")
    assert not any(claim.tuned for claim in read_claims(path, tuned=False).claims.values())
