"""`harness list` and `harness show-method`: what each method needs, its options, and tables that fit a terminal."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dskd.methods import METHODS
from harness.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def shown(name: str) -> dict[str, Any]:
    return json.loads(run("show-method", name, "--json").stdout)


def test_every_method_has_its_paper_vocabularies_and_text() -> None:
    rows = {row["method"]: row for row in json.loads(run("list", "methods", "--json").stdout)}
    assert list(rows) == list(METHODS)
    kd = rows["kd"]
    assert (kd["paper"], kd["vocabularies"], kd["on_policy"]) == ("arXiv 1503.02531", "one", "optional")
    assert rows["dskd-v2-eta"]["vocabularies"] == "any two"
    assert rows["sft"]["learns_from"] == []
    anywhere, elsewhere = ["live", "cache", "served"], ["cache", "served"]
    states = {"outputs": "hidden_states", "from": anywhere, "with": ""}
    assert kd["learns_from"] == [states, {"outputs": "top_k", "from": elsewhere, "with": ""}]
    text = {
        **{"outputs": "text_log_probabilities", "from": elsewhere},
        "with": "append_space: false, merge_by_space_prob: false",
    }
    assert rows["alm"]["learns_from"] == [states, text]
    for name in ("dskd-v2", "x-token", "simct"):
        assert rows[name]["learns_from"] == [states]
        assert (rows[name]["on_policy"], rows[name]["also_reads"]) == ("optional", [])
    assert rows["x-token"]["vocabularies"] == rows["simct"]["vocabularies"] == "any two"
    for row in rows.values():
        assert row["paper"]
        assert row["on_policy"] in {"never", "optional", "always"}
        assert row == shown(row["method"])


def test_below_the_methods_stands_who_learns_from_what_and_where_that_comes_from() -> None:
    _, learners, _ = run("list", "methods").stdout.split("\n\n")
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in learners.splitlines()]
    assert rows[0] == ["learns from", "given by", "methods"]
    able = {row[0]: (row[1], row[2].split(", ")) for row in rows[1:]}
    assert able["hidden_states"][0] == "live, cache, served"
    assert able["hidden_states"][1] == [name for name, method in METHODS.items() if method.requires.teacher]
    assert able["top_k"][0] == able["text_log_probabilities"][0] == "cache, served"
    assert {"kd", "gkd", "distillm", "uld", "strict-kd (with outside: one_outcome"} <= set(able["top_k"][1])
    text_alone = ["g-opd", "iw-opd", "opd", "opd-chunks"]
    assert rows[2][2] == ", ".join(["alm (with append_space: false, merge_by_space_prob: false)", *text_alone])


def test_a_method_shows_each_kind_it_learns_from_on_a_line() -> None:
    lines = run("show-method", "strict-kd").stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("learns from"))
    assert lines[first].split(None, 2)[2] == "hidden_states: live, cache, served"
    assert lines[first + 1].strip() == "top_k: cache, served, with outside: one_outcome, top_k: 0"
    assert "learns from" not in run("show-method", "sft").stdout


def test_a_method_says_whose_text_it_can_be_trained_on() -> None:
    *_, texts = run("list", "methods").stdout.split("\n\n")
    able = {
        row[: row.rindex("  ")].strip(): row[row.rindex("  ") :].strip().split(", ") for row in texts.splitlines()[1:]
    }
    assert able["student"] == [name for name, method in METHODS.items() if method.requires.on_policy == "always"]
    assert {"minillm", "opd", "opd-control"} <= set(able["student"])
    assert "sft" in able["data, teacher"]
    assert "kd" in able["data, teacher, student"]
    assert able["teacher"] == ["seqkd"]
    assert shown("alm")["text"] == ["data", "teacher"]


def test_a_method_says_what_of_its_paper_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown("sft")["status"] == "as in the paper"
    monkeypatch.setattr(METHODS["sft"], "not_reproduced", "The second stage.")
    assert shown("sft")["status"] == "not reproduced: The second stage."


def test_the_methods_fit_100_columns_a_line_each() -> None:
    listed, *_ = run("list", "methods").stdout.split("\n\n")
    header, *lines = listed.splitlines()
    assert header.split() == ["method", "title", "vocabularies", "on_policy"]
    assert [line.split()[0] for line in lines] == list(METHODS)
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("what", ["tasks", "methods", "matrices", "protocols"])
def test_no_word_is_cut_on_a_terminal_of_100_columns(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unfolded = run("list", what).stdout
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    folded = click.unstyle(run("list", what).stdout)
    assert max(map(len, folded.splitlines())) <= 100
    assert sorted(folded.split()) == sorted(unfolded.split())


def test_an_option_has_its_default_range_and_meaning() -> None:
    options = {row["option"]: row for row in shown("distillm")["options"]}
    assert options["kd_rate"]["default"] == METHODS["distillm"].Options.model_fields["kd_rate"].default
    assert options["kd_rate"]["range"] == "≥ 0, ≤ 1"
    assert options["divergence"]["range"].startswith("forward_kl | reverse_kl")
    assert "kd_rate" in run("show-method", "distillm").stdout
    training = {row["option"]: row for row in json.loads(run("list", "training-options", "--json").stdout)}
    assert (training["rollouts.share"]["default"], training["rollouts.share"]["range"]) == (0.5, "≥ 0, ≤ 1")
    assert training["rollouts.replay.capacity"]["range"] == "> 0"
    assert training["packing"]["range"] == "true | false | auto"


def test_an_unknown_method_is_one_line() -> None:
    result = run("show-method", "kdd")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: NAME: no method 'kdd'; did you mean 'kd'?")


def test_each_method_shows_what_of_it_is_tuned() -> None:
    rows = json.loads(run("list", "spaces", "--json").stdout)
    of_kd = [{key: value for key, value in row.items() if key != "method"} for row in rows if row["method"] == "kd"]
    assert of_kd == shown("kd")["space"]
    assert of_kd[0] == {"option": "kd_rate", "default": 0.5, "over": "0.3 to 1"}
    assert of_kd[-1] == {
        "option": "training.learning_rate",
        "default": 5e-4,
        "over": "the default times 0.25 to 4, by ratio",
    }
    assert {row["method"] for row in rows} == set(METHODS)
    (own,) = [row for row in rows if row["method"] == "opd-full" and "rollouts" in row["option"]]
    assert own == {
        "method": "opd-full",
        "option": "training.rollouts.temperature",
        "default": 1.0,
        "over": "0.6 to 1",
    }
    *_, space = run("show-method", "sft").stdout.split("\n\n")
    assert [line.split(None, 1) for line in space.splitlines()] == [
        ["tuned", "over"],
        ["training.learning_rate", "the default times 0.25 to 4, by ratio"],
    ]


def test_below_the_tasks_stands_by_which_items_settings_are_chosen() -> None:
    _, chosen = run("list", "tasks").stdout.split("\n\n")
    rows = dict(reversed([cell.strip() for cell in line.split("  ") if cell]) for line in chosen.splitlines()[1:])
    assert rows["humaneval, humaneval_plus"] == "the validation items of mbpp"
    assert rows["gsm8k, gsm8k_5shot, gsm8k_cot_8shot"] == "500 rows, the last of the training file"
    assert rows["aime2024, bbh, bbh_zeroshot, ifeval, mbpp_plus"] == "no validation items"
