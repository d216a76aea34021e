"""`harness claims`: the answers of a run and of its export, the three forms, and the check against a committed file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from harness.cli import main
from harness.results.export import write_export
from helpers.paths import ROOT
from helpers.planted_claims import planted, write_planted

FILE = {
    "schema_version": 1,
    "name": "mine",
    "claims": {
        "first": {
            "source": {"arxiv": "2504.11426", "says": "New | old."},
            "better": "new",
            "than": "old",
            "tuned": False,
        },
        "second": {
            "source": {"work": "a <b>table</b>", "says": "Old."},
            "better": "old",
            "than": ["new", "kd"],
            "tuned": False,
        },
        "third": {"source": {"work": "a table", "says": "X."}, "better": "x-token", "than": "gold"},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(planted({"new": 75, "old": 45}, items=60), tmp_path_factory.mktemp("run"))


@pytest.fixture
def ask(run: Path, tmp_path: Path) -> Callable[..., Result]:
    file = tmp_path / "claims.yaml"
    file.write_text(yaml.safe_dump(FILE))

    def asking(*options: str, results: Path = run) -> Result:
        return CliRunner().invoke(main, ["claims", "--results", str(results), "--claims", str(file), *options])

    return asking


def answers(result: Result) -> dict[str, str]:
    assert result.exit_code == 0, result.stderr
    return {claim["id"]: claim["answer"] for claim in json.loads(result.stdout)["claims"]}


def test_a_run_and_its_export_give_the_same_answers(ask: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    of_run = ask("--json")
    assert answers(of_run) == {"first": "holds", "second": "fails", "third": "no records"}
    export = tmp_path / "export"
    assert CliRunner().invoke(main, ["leaderboard", str(run), "--export", str(export)]).exit_code == 0
    assert ask("--json", results=export).stdout == of_run.stdout


def test_the_text_says_answers_missing_records_commands_and_what_was_asked(ask: Callable[..., Result]) -> None:
    result = ask()
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].split()[:5] == ["first", "holds", "teacher", "->", "student"]
    assert "corrected over the 2 tests of the file" in result.stdout
    assert "third: no records: teacher -> student: x-token+tuned" in lines
    assert any(line.startswith("third: harness run --matrix ") and "x-token+tuned" in line for line in lines)
    assert (
        "first: new is better than old (default settings; all pairs; all tasks). New | old. (arXiv 2504.11426)" in lines
    )


def test_markdown_is_one_table_and_escapes_what_others_wrote(ask: Callable[..., Result]) -> None:
    text = ask("--markdown").stdout
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "New \\| old." in text
    assert "<b>" not in text
    assert "&lt;b>table" in text


def test_a_committed_file_of_answers_is_compared(ask: Callable[..., Result], tmp_path: Path) -> None:
    expected = tmp_path / "expected.json"
    content = json.loads(ask("--json").stdout)
    expected.write_text(json.dumps(content))
    assert ask("--check", str(expected)).exit_code == 0
    content["claims"][0]["answer"] = "fails"
    content["claims"][2]["id"] = "gone"
    expected.write_text(json.dumps(content))
    result = ask("--check", str(expected))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "differs: first: holds, expected fails",
        "differs: gone: not asked, expected no records",
        "differs: third: no records, expected nothing",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--markdown"], "error: --json and --markdown: only one of the two; fix: leave one out"),
        (["--check", "nothing.json"], "error: --check nothing.json: is no file of answers"),
        (["--claims", "mine"], "error: --claims mine: no such file"),
        (["--results", "nowhere"], "error: --results nowhere: no such folder; fix: give that of a run or an export"),
    ],
)
def test_a_mistake_is_one_line(ask: Callable[..., Result], options: list[str], message: str) -> None:
    result = ask(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


def test_a_folder_without_records_is_a_mistake(ask: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = ask(results=tmp_path / "empty")
    assert (result.exit_code, "holds no records; fix:" in result.stderr) == (2, True)


def test_the_committed_leaderboard_answers_for_tuned_settings_and_has_no_default_ones() -> None:
    def asked(*options: str) -> dict[str, str]:
        folder = str(ROOT / "results" / "leaderboard")
        return answers(CliRunner().invoke(main, ["claims", "--results", folder, "--json", *options]))

    assert set(asked("--untuned").values()) == {"no records"}
    tuned = asked()
    assert tuned["dskd-v2-over-kd"] == "fails"
    assert tuned["x-token-over-gold"] == "undecided"
    assert tuned["top-k-over-sampled"] == "no records"


def test_an_export_without_item_scores_decides_nothing(ask: Callable[..., Result], tmp_path: Path) -> None:
    bare = planted({"new": 75, "old": 45})
    write_export(type(bare)(bare.records, {}, []), tmp_path / "bare")
    result = ask("--json", results=tmp_path / "bare")
    assert answers(result)["first"] == "no records"
    missing = json.loads(result.stdout)["claims"][0]["missing"]
    assert (
        missing[0]
        == "teacher -> student: new on code (seed 1 has no scores of items), math (seed 1 has no scores of items)"
    )


@pytest.mark.parametrize("tuned", [True, False])
def test_an_export_with_records_for_a_claim_has_its_answers_written_and_checked(tmp_path: Path, tuned: bool) -> None:
    ending = "+tuned" if tuned else ""
    folder = tmp_path / "export"
    write_export(planted({f"dskd-v2{ending}": 75, f"kd{ending}": 45}, items=60), folder)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments))

    written = invoke("leaderboard", str(folder), "--write")
    assert written.exit_code == 0, written.stderr
    assert "claims-referee.json" in written.stderr
    untuned = [] if tuned else ["--untuned"]
    for option, name in (("--json", "claims-referee.json"), ("--markdown", "claims-referee.md")):
        assert invoke("claims", "--results", str(folder), *untuned, option).stdout == (folder / name).read_text()
    assert {each["id"]: each["answer"] for each in json.loads((folder / "claims-referee.json").read_text())["claims"]}[
        "dskd-v2-over-kd"
    ] == "holds"
    assert (folder / "trials.csv").is_file() == tuned
    if tuned:
        assert (
            invoke("leaderboard", str(folder), "--trials", "--format", "csv").stdout
            == (folder / "trials.csv").read_bytes().decode()
        )
    assert invoke("leaderboard", str(folder), "--check").exit_code == 0
    (folder / "claims-referee.md").write_text("another answer\n")
    assert invoke("leaderboard", str(folder), "--check").exit_code == 1


def test_an_export_without_records_for_any_claim_has_no_answers(tmp_path: Path) -> None:
    write_export(planted({"new": 75, "old": 45}, items=60), tmp_path / "export")
    CliRunner().invoke(main, ["leaderboard", str(tmp_path / "export"), "--write"])
    assert not list((tmp_path / "export").glob("claims*"))
