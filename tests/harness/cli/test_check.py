"""`harness check` and `harness baseline` as a user calls them, and the workflow that users copy."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from harness.cli import main
from harness.metrics import numbers
from helpers.paths import ROOT
from helpers.planted_defects import first_number
from helpers.stored_runs import answers, write_evaluation

WORKFLOW = ROOT / "examples" / "regression-check.yaml"


def harness(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def gated(tmp_path: Path) -> tuple[Path, Path]:
    """A run's folder and its baseline file."""
    run, baseline = tmp_path / "run", tmp_path / "baseline.json"
    write_evaluation(run, answers("small_math", 30, 50))
    made = harness("baseline", "update", run, "--baseline", baseline, "--reason", "first baseline")
    assert made.exit_code == 0
    assert made.stdout == "+ teacher__student/kd/small_math: 60.00 numeric, 50 items, seeds 1\n"
    return run, baseline


def test_an_unchanged_run_exits_with_0_and_a_broken_answer_rule_with_1(
    gated: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, baseline = gated
    result = harness("check", run, "--baseline", baseline)
    assert (result.exit_code, result.stderr) == (0, "1 cells: 1 pass, 0 inconclusive, 0 regress\n")
    monkeypatch.setattr(numbers, "find_final_number", first_number)
    write_evaluation(run, answers("small_math", 30, 50))
    result = harness("check", run, "--baseline", baseline, "--markdown", tmp_path / "table.md", "--json")
    assert result.exit_code == 1
    assert "regress: teacher__student/kd/small_math: worse: " in result.stderr
    content = json.loads(result.stdout)
    assert (content["schema_version"], content["verdict"]) == (1, "regress")
    assert content["cells"][0]["baseline"] == 60
    assert content["cells"][0]["changed"] == []
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("### Regression check: regress\n")
    assert "| teacher__student/kd/small_math | regress | 60.00 |" in table


def test_a_drop_within_noise_exits_with_0_and_a_warning(gated: tuple[Path, Path]) -> None:
    run, baseline = gated
    write_evaluation(run, answers("small_math", 29, 50), settings="others")
    result = harness("check", run, "--baseline", baseline)
    assert result.exit_code == 0
    assert "warning: inconclusive: teacher__student/kd/small_math: -2.00 points" in result.stderr
    assert harness("check", run, "--baseline", baseline, "--exact-outputs", "always").exit_code == 1
    assert harness("check", run, "--baseline", baseline, "--goldens", "strict").exit_code == 1  # the old name
    assert harness("check", "--results", run, "--baseline", baseline, "--strict").exit_code == 3


def test_a_run_that_lacks_items_exits_with_2_and_has_its_table(gated: tuple[Path, Path]) -> None:
    run, baseline = gated
    write_evaluation(run, answers("small_math", 30, 50), change=lambda samples: samples[:40])
    result = harness("check", "--results", run, "--baseline", baseline)
    assert result.exit_code == 2
    assert "incomplete: teacher__student/kd/small_math: 10 of 50 items missing" in result.stderr
    assert result.stderr.endswith("1 cells: 0 pass, 0 inconclusive, 0 regress, 1 incomplete\n")
    assert "| incomplete" not in result.stdout
    assert "incomplete" in result.stdout


def test_an_update_says_what_it_changes_and_an_idle_one_leaves_the_file(gated: tuple[Path, Path]) -> None:
    run, baseline = gated
    before = baseline.read_bytes()
    result = harness("baseline", "update", run, "--baseline", baseline, "--reason", "once more")
    assert (result.exit_code, result.stdout, baseline.read_bytes()) == (0, "", before)
    write_evaluation(run, answers("small_math", 40, 50))
    result = harness("baseline", "update", run, "--baseline", baseline, "--reason", "a better loss")
    assert "60.00 -> 80.00 numeric; 10 outputs and 10 scores of 50 changed" in result.stdout
    assert json.loads(baseline.read_text())["provenance"]["reason"] == "a better loss"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "{run}", "--baseline", "none.json"], "none.json: no such file; fix: harness baseline update"),
        (["check", "nowhere", "--baseline", "{baseline}"], "nowhere: no such folder; fix"),
        (
            ["check", "{run}", "--baseline", "{baseline}", "--margin", "many"],
            "--margin many: not a number of points; fix",
        ),
        (["check", "{run}", "--baseline", "{baseline}", "--margin", "bleu=1"], "--margin bleu: no such metric"),
        (["check", "{run}"], "--baseline"),
        (["check", "--baseline", "{baseline}"], "check: expected one run; fix: give RUN"),
        (["check", "{run}", "--results", "{run}", "--baseline", "{baseline}"], "check: expected one run"),
        (["baseline", "update", "{run}", "--baseline", "{baseline}"], "--reason"),
        (["baseline", "update", "{run}", "--baseline", "{baseline}", "--reason", ""], "--reason: is empty; fix"),
    ],
)
def test_what_is_given_wrong_is_one_line_and_exit_code_2(
    gated: tuple[Path, Path], arguments: list[str], message: str
) -> None:
    run, baseline = gated
    result = harness(*(argument.format(run=run, baseline=baseline) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


# --- the workflow ---------------------------------------------------------------------------------------------------------------


def commands(script: str) -> list[list[str]]:
    """Every `harness …` line of a shell script, as words."""
    return [shlex.split(line) for line in re.findall(r"^ *harness (.+)$", script, re.MULTILINE)]


def parse(words: list[str]) -> None:
    """Parse a command line without running it; click.UsageError where it does not parse."""
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    command.make_context(command.name, words)


def test_the_workflow_parses_and_calls_commands_that_are_there() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert set(workflow[True]) == {"pull_request", "workflow_dispatch"}  # YAML 1.1 reads the key `on` as true
    (job,) = workflow["jobs"].values()
    assert workflow["permissions"]["pull-requests"] == "write"
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    called = commands("\n".join(scripts))
    assert [words[0] for words in called] == ["run", "check"]
    for words in called:
        parse(words)
    with pytest.raises(click.UsageError):
        parse([*called[-1], "--no-such-option"])
    variables = set(re.findall(r"\$([A-Z]\w*)", " ".join(map(" ".join, called))))
    assert variables == job["env"].keys() - {"OMP_NUM_THREADS"}
    assert any("GITHUB_STEP_SUMMARY" in script for script in scripts)
    assert any("gh pr comment" in script for script in scripts)
