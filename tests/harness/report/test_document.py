"""What the page is made of, without a browser."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from harness.cli import main
from harness.report import samples as samples_module
from harness.report.document import make_document
from harness.report.page import embedded_json, render
from helpers.written_runs import write_run


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--", "a\u2028b\u2029c", "\ud800 half", "\x00\r\n", "]]>&lt;"]
)
def test_embedded_text_comes_back_as_it_was_and_holds_nothing_that_html_reads(text: str) -> None:
    embedded = embedded_json({"output": text})
    assert json.loads(embedded) == {"output": text}
    assert not set("<>&\u2028\u2029") & set(embedded)
    embedded.encode()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json({"score": math.nan})


def test_the_page_is_the_same_whoever_makes_it_and_names_nothing_of_the_machine(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page = render(*make_document([run]))
    assert page == render(*make_document([run]))
    assert str(tmp_path) not in page


def test_prompts_hold_the_completions_of_teacher_and_students_with_their_scores(tmp_path: Path) -> None:
    _, samples = make_document([write_run(tmp_path / "run", seeds=(1, 2))])
    assert len(samples["items"]) == 4
    completions = samples["items"][1]["completions"]
    who = [
        (samples["cells"][completion["cell"]]["method"], samples["cells"][completion["cell"]]["seed"])
        for completion in completions
    ]
    assert who == [("teacher", None), ("kd", 1), ("kd", 2), ("sft", 1), ("sft", 2)]
    assert [(completion["output"]["text"], completion["score"]) for completion in completions[1:4:2]] == [
        ("kd says 1", 100.0),
        ("sft says 1", 0.0),
    ]


def test_too_many_completions_leave_evenly_chosen_prompts_with_all_their_completions(tmp_path: Path) -> None:
    _, samples = make_document([write_run(tmp_path / "run", items=40)], most_completions=30)
    assert [item["id"] for item in samples["items"]] == [str(item) for item in range(3, 40, 4)]
    assert {len(item["completions"]) for item in samples["items"]} == {3}
    assert samples["completions_total"] == 120


def test_a_long_completion_is_cut_and_says_how_long_it_was(tmp_path: Path) -> None:
    _, samples = make_document([write_run(tmp_path / "run", items=1, answer=lambda *_: "x" * 1_000_000)])
    output = samples["items"][0]["completions"][0]["output"]
    assert output == {"text": "x" * samples_module.MOST_CHARACTERS, "length": 1_000_000}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", logged=False)
    (run / "cells/teacher__student/kd/seed1/eval/small_math@v1/samples.jsonl").unlink()
    (run / "cells/teacher__student/sft/seed1/eval/small_math@v1/samples.jsonl").write_text('{"id": 1')
    record = run / "cells/teacher__student/sft/seed1/train/result.json"
    record.write_text(record.read_text()[:-1])
    document, _ = make_document([run])
    kd, sft = "run/cells/teacher__student/kd/seed1", "run/cells/teacher__student/sft/seed1"
    assert [problem.split(": ")[0].rsplit(":", 1)[0] for problem in document["problems"]] == [
        f"{sft}/train/result.json",
        f"{kd}/train",
        f"{kd}/eval/small_math@v1/samples.jsonl",
        f"{sft}/eval/small_math@v1/samples.jsonl",
    ]
    assert document["alignment"][0]["reason"]


def test_a_training_step_without_a_number_leaves_a_gap(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=["sft"])
    log = run / "cells/teacher__student/sft/seed1/train/model/training_log.jsonl"
    log.write_text(
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 0.123456789}\n{"step": 3, "loss": 1, "rollouts": 4}\n'
    )
    (curve,) = make_document([run])[0]["curves"]
    assert curve["steps"] == [1, 2, 3]
    assert curve["series"] == {"loss": [None, 0.12346, 1.0], "rollouts": [None, None, 4.0]}


def test_a_long_log_is_thinned_to_its_ends(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", methods=["sft"])
    log = run / "cells/teacher__student/sft/seed1/train/model/training_log.jsonl"
    log.write_text("".join(f'{{"step": {step}, "loss": 1}}\n' for step in range(5000)))
    (curve,) = make_document([run])[0]["curves"]
    assert len(curve["steps"]) == 400
    assert (curve["steps"][0], curve["steps"][-1]) == (0, 4999)


def test_two_runs_make_one_page_and_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, student=f"student-{name}") for name in ("a", "b")]
    document, samples = make_document([*runs, runs[0]])
    assert [pair["student"] for pair in document["pairs"]] == ["student-a", "student-b"]
    assert len(samples["cells"]) == 1 + 2 * 2


def test_the_command_writes_one_file_and_names_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    result = CliRunner().invoke(main, ["report", str(run), "--output", str(tmp_path / "out" / "page.html")])
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/out/page.html\n"), result.output
    assert (tmp_path / "out" / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run; fix: give the folder of a run"),
        (["{}/nowhere"], "nowhere: no such folder; fix: "),
        (["{}/empty"], "empty: no records in there; fix: "),
        (["{}/run", "--output", "{}"], "is a folder; fix: name a file"),
        (["{}/run", "--anchor", "kdd"], "--anchor kdd: no method of this run; did you mean 'kd'?"),
    ],
)
def test_mistakes_are_one_line_with_the_fix(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    given = [argument.format(tmp_path) for argument in arguments]
    result = CliRunner().invoke(main, ["report", *given])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert isinstance(result.exception, SystemExit | InputError)


def test_differences_are_those_of_the_paired_comparison_with_holms_over_the_pair(tmp_path: Path) -> None:
    right = {"teacher": 40, "sft": 10, "kd": 30, "uld": 12}
    run = write_run(
        tmp_path / "run",
        methods=["sft", "kd", "uld"],
        items=40,
        score=lambda method, item: 100.0 * (item < right[method]),
    )
    document, _ = make_document([run])
    kd, uld = document["differences"]
    assert (kd["method"], kd["difference"], kd["items"], kd["seeds"]) == ("kd", 50.0, 40, 1)
    assert kd["ci95"][0] > 0 > uld["ci95"][0]
    assert kd["p_holm"] == pytest.approx(2 * kd["p_value"])
    assert uld["p_holm"] == uld["p_value"] == pytest.approx(0.5)  # two wins of two: 2 / 2²


def test_another_anchor_takes_sfts_place(tmp_path: Path) -> None:
    document, _ = make_document([write_run(tmp_path / "run")], anchor="kd")
    assert [row["method"] for row in document["differences"]] == ["sft"]


def test_a_difference_that_cannot_be_told_says_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "cells/teacher__student/kd/seed1/eval/small_math@v1/samples.jsonl").unlink()
    (row,) = make_document([run])[0]["differences"]
    assert (
        row["reason"] == "run/cells/teacher__student/kd/seed1/eval/small_math@v1: samples.jsonl is missing or damaged"
    )


def test_a_task_under_two_protocols_is_two_columns_everywhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    drawn = write_run(tmp_path / "other", score=lambda method, _: 100.0)
    for record in drawn.glob("cells/**/eval/*/result.json"):
        content = json.loads(record.read_text())
        content["cell"]["protocol"] |= {"name": "drawn", "temperature": 0.5}
        record.write_text(json.dumps(content))
    document, samples = make_document([run, drawn])
    assert len(document["tasks"]) == 2
    assert (
        {item["task"] for item in samples["items"]}
        == {row["task"] for row in document["scores"]}
        == set(document["tasks"])
    )
    assert [row["task"] for row in document["differences"]] == document["tasks"]
    assert {len(item["completions"]) for item in samples["items"]} == {3}
