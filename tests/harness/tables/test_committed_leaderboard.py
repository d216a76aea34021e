"""The leaderboard that is committed: its tables are what its records give, and nothing of it is missing."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.config.matrix_file import find_matrix, read_matrix
from harness.config.tuning import TUNED
from harness.results.load import load_results
from helpers.paths import ROOT

FOLDER = ROOT / "results" / "leaderboard"
# The pair with one vocabulary again, on another processor and with on-policy methods.
AGAIN = ROOT / "results" / "one-vocabulary"
# Of `leaderboard`, what was not run (docs/small-world.md): default settings, and of tuned ones these. Those that are run are taken out.
NOT_RUN: dict[str, set[str]] = {
    "small-student": {
        *("distillm-on-policy", "dskd-v1-on-policy", "dskd-v2-on-policy", "distillm-adaptive"),
        *("minillm", "opd-student-top-k", "opd-full", "iw-opd", "g-opd"),
    },
    "small-student-sentencepiece": {
        *("dskd-v2-eta-on-policy", "gold-on-policy", "prefix-kd-on-policy", "simct-on-policy", "strict-kd-on-policy"),
        *("x-token-on-policy", "opd-chunks", "opd-control"),
    },
    "small-student-bytes": {"dskd-v1-cma", "mined", "multilevel-ot", "uld"},
}


@pytest.mark.parametrize("name", ["leaderboard", "one-vocabulary", "training-sets", "settling", "own-method"])
def test_its_tables_and_answers_are_those_of_its_records_byte_for_byte(name: str) -> None:
    result = CliRunner().invoke(main, ["leaderboard", str(ROOT / "results" / name), "--check"])
    assert result.exit_code == 0, result.stderr


def test_the_trials_and_the_answers_to_claims_are_there() -> None:
    assert (FOLDER / "trials.csv").is_file()
    assert {path.name for path in FOLDER.glob("claims-*.json")} >= {"claims-referee.json", "claims-ours.json"}


@pytest.mark.nightly
def test_every_tuned_method_of_the_matrix_is_there_with_every_seed_and_item() -> None:
    matrix = read_matrix(find_matrix("leaderboard"))
    wanted = {
        (pair.student, method, seed, task)
        for pair in matrix.pairs
        for method in pair.methods
        if method.endswith(f"+{TUNED}") and method.removesuffix(f"+{TUNED}") not in NOT_RUN[pair.student]
        for seed in matrix.seeds
        for task in matrix.tasks
    }
    records = [r for folder in (FOLDER, AGAIN) for r in load_results(folder).records if r.cell.task is not None]
    found = {(r.cell.student, r.cell.method, r.cell.seed, r.cell.task) for r in records if r.cell.student is not None}
    assert found == wanted
    items = {name: settings.limit for name, settings in matrix.tasks.items()}
    assert all(r.n is not None and r.n.total == items[str(r.cell.task)] and r.n.harness_error == 0 for r in records)


@pytest.mark.nightly
def test_every_method_that_was_left_out_is_one_of_the_matrix() -> None:
    matrix = read_matrix(find_matrix("leaderboard"))
    for pair in matrix.pairs:
        assert NOT_RUN[pair.student] <= {method.removesuffix(f"+{TUNED}") for method in pair.methods}


def test_it_is_small_enough_to_be_kept_beside_the_code() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 5e6
