"""Records to tables."""

from __future__ import annotations

import csv
import io
import json
import random
from html.parser import HTMLParser
from typing import Any

import pytest
from pydantic import ValidationError

from dskd.errors import InputError
from harness.protocols import PROTOCOLS, DecodingProtocol
from harness.runs.identity import Identity
from harness.runs.records import Cost, Counts, Environment, MetricValue, Record, RecordCell
from harness.tables.leaderboard import make_leaderboard
from harness.tables.render import FORMATS

ENVIRONMENT = Environment(versions={}, python="3.11", platform="Linux", device="cpu", threads=1, engine="vllm")


def record(
    method: str = "sft",
    seed: int | None = 1,
    task: str | None = "small_math",
    value: float | None = 50.0,
    *,
    student: str | None = "student",
    version: str = "1",
    stderr: float | None = 5.0,
    n: int = 100,
    engine: str = "vllm",
    counts: dict[str, int] | None = None,
    cost: Cost | None = None,
    error: str | None = None,
    protocol: DecodingProtocol | None = None,
) -> Record:
    if method == "teacher":
        student, seed = None, None
    metric = MetricValue(
        value=value,
        stderr=stderr,
        ci95=None if value is None else (value - 9.8, value + 9.8),
        n=n,
        reason=None if value is not None else "no sample could be scored",
    )
    totals = {"total": n, "scored": n, "invalid": 0, "truncated": 0, "harness_error": 0, **(counts or {})}
    return Record(
        cell=RecordCell(
            teacher="teacher",
            student=student,
            method=method,
            seed=seed,
            task=task,
            task_version=version if task else None,
            protocol=protocol,
        ),
        identity=Identity.of({}),
        status="failed" if error else "done",
        n=Counts(**totals) if task and not error else None,
        headline="numeric" if task and not error else None,
        metrics={"numeric": metric} if task and not error else {},
        cost=cost or Cost(),
        environment=ENVIRONMENT.model_copy(update={"engine": engine}),
        error=error,
    )


def on_processor(made: Record, cpu: str | None) -> Record:
    return made.model_copy(update={"environment": made.environment.model_copy(update={"cpu": cpu})})


def test_rows_hold_what_the_contract_says_and_do_not_depend_on_the_order_of_records() -> None:
    records = [record("teacher", value=90), record("sft"), record("kd", value=60), record("kd", seed=2, value=64)]
    board = make_leaderboard(records)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert make_leaderboard(records) == board
    document = json.loads(FORMATS["json"](board, False))
    assert document["schema_version"] == 1
    assert [row["method"] for row in document["rows"]] == ["teacher", "kd", "sft"]
    row = document["rows"][2]
    expected = {"teacher": "teacher", "student": "student", "method": "sft", "task": "small_math", "metric": "numeric"}
    assert expected.items() <= row.items()
    assert (row["value"], row["ci95"], row["seeds"], row["n"]) == (50.0, [40.2, 59.8], 1, 100)


def test_several_seeds_give_mean_standard_deviation_and_a_nested_interval() -> None:
    board = make_leaderboard([record(seed=seed, value=value) for seed, value in ((1, 50.0), (2, 54.0), (3, 58.0))])
    (row,) = board.rows
    assert (row.value, row.sd, row.seeds) == (54.0, 4.0, 3)
    # By hand: variance 4²/3 + 5² = 30.333; Satterthwaite's degrees of freedom 30.333² / (5.333²/2 + 25²/99) = 44.79;
    # t(0.975, 44.79) = 2.0144; half-width 2.0144 × 5.5076 = 11.094.
    assert row.ci95 == pytest.approx((42.906, 65.094), abs=2e-3)


def test_seeds_that_agree_still_have_the_spread_of_the_items() -> None:
    (row,) = make_leaderboard([record(seed=1), record(seed=2)]).rows
    assert row.sd == 0.0
    assert row.ci95 is not None
    assert row.ci95[1] - row.ci95[0] == pytest.approx(2 * 1.984 * 5, abs=0.01)


def test_seeds_that_all_fail_everything_keep_an_interval_of_some_width() -> None:
    wilson = MetricValue(value=0.0, stderr=0.0, ci95=(0.0, 49.0), n=100)
    records = [record(seed=seed).model_copy(update={"metrics": {"numeric": wilson}}) for seed in (1, 2)]
    (row,) = make_leaderboard(records).rows
    assert row.ci95 == pytest.approx((0.0, 49.0 * 1.984 / 1.96), abs=0.01)


def test_scores_of_different_task_versions_never_stand_in_one_column() -> None:
    board = make_leaderboard(
        [record("sft", version="9"), record("kd", version="10", value=60), record("kd", version="9")]
    )
    assert [(row.method, row.task_version, row.value) for row in board.rows] == [("kd", "10", 60.0)]
    assert "small_math@v9" in board.notes[0]


@pytest.mark.parametrize(
    ("records", "note"),
    [
        ([record(n=100), record("kd", n=50)], "small_math: not all on the same number of samples (50, 100)"),
        ([record(), record("kd", engine="transformers")], "completions of different engines (transformers, vllm)"),
        (
            [record(counts={"invalid": 3, "truncated": 10}), record("kd", counts={"invalid": 1}), record("teacher")],
            "teacher -> student, small_math: invalid: sft 3.0 %, kd 1.0 %; cut off at the token limit: sft 10.0 %",
        ),
        ([record(), record(seed=2, error="RuntimeError: broke")], "teacher -> student, small_math: failed: sft 1"),
        (
            [on_processor(record("teacher"), "B"), on_processor(record(), "A"), on_processor(record("kd"), "B")],
            "teacher -> student: made on different processors, where the same seed gives other weights (A: sft; B: kd, teacher)",
        ),
    ],
)
def test_what_a_reader_must_know_is_noted(records: list[Record], note: str) -> None:
    assert any(note in line for line in make_leaderboard(records).notes)


@pytest.mark.parametrize("other", ["A", None])
def test_one_processor_or_an_unknown_one_is_not_noted(other: str | None) -> None:
    records = [on_processor(record(), "A"), on_processor(record("kd"), other)]
    assert not any("processors" in line for line in make_leaderboard(records).notes)


def test_markdown_has_a_table_for_each_pair_with_the_teacher_first() -> None:
    records = [record("teacher", value=90), record(), record("kd", value=None), record(student="another", value=20)]
    text = FORMATS["md"](make_leaderboard(records), False)
    assert (
        text.partition("Score 0")[0].strip()
        == """### teacher -> another

| method  | seeds | small_math (numeric, n=100) |
|---------|-------|-----------------------------|
| teacher | –     | 90.0 [80.2, 99.8]           |
| sft     | 1     | 20.0 [10.2, 29.8]           |

### teacher -> student

| method  | seeds | small_math (numeric, n=100) |
|---------|-------|-----------------------------|
| teacher | –     | 90.0 [80.2, 99.8]           |
| sft     | 1     | 50.0 [40.2, 59.8]           |
| kd      | 0     | –                           |"""
    )


def test_a_failed_cell_is_told_from_one_that_is_not_there() -> None:
    records = [record(), record("kd", error="broke"), record("kd", task="small_code", value=10)]
    lines = FORMATS["md"](make_leaderboard(records), False).splitlines()
    (sft,) = (line for line in lines if line.startswith("| sft"))
    (kd,) = (line for line in lines if line.startswith("| kd"))
    assert [cell.strip() for cell in sft.strip("|").split("|")] == ["sft", "1", "–", "50.0 [40.2, 59.8]"]
    assert [cell.strip() for cell in kd.strip("|").split("|")] == ["kd", "1", "10.0 [0.2, 19.8]", "failed"]


def test_costs_are_the_means_of_the_trainings() -> None:
    def cost(seconds: float | None) -> Cost:
        return Cost(
            train_seconds=seconds,
            teacher_seconds=1.0,
            signal_seconds=30.0,
            tokens=1000,
            tokens_per_second=None if seconds is None else 1000 / seconds,
            peak_memory=2**30,
        )

    records = [record(), record(task=None, cost=cost(10)), record(task=None, seed=2, cost=cost(20))]
    board = make_leaderboard(records)
    assert cost_grid(FORMATS["md"](board, True)) == [
        {
            "method": "sft",
            "seeds": "2",
            "training (s)": "15.0",
            "teacher (s)": "1.0",
            "teacher cache (s)": "30.0",
            "tokens": "1,000",
            "tokens/s": "75",
            "peak memory (MiB)": "1,024",
        }
    ]
    assert "cost of training" not in FORMATS["md"](board, False)
    assert "teacher cache" not in FORMATS["md"](board, False)


def cost_grid(text: str) -> list[dict[str, str]]:
    """The rows of the last table of a text in Markdown."""
    lines = text.rpartition("### ")[2].splitlines()[2:]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|")
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_every_format_has_the_same_costs() -> None:
    cost = Cost(train_seconds=12.5, signal_seconds=31.5, tokens_per_second=765.4, peak_device_memory=3 * 2**20)
    board = make_leaderboard([record(), record(task=None, cost=cost)])
    for form in ("md", "html", "tex"):
        text = FORMATS[form](board, True)
        for words in ("12.5", "31.5", "765", "teacher cache (s)", "tokens/s", "peak GPU memory (MiB)"):
            assert words in text, (form, words)
    (line,) = csv.DictReader(io.StringIO(FORMATS["csv"](board, True)))
    (row,) = json.loads(FORMATS["json"](board, True))["costs"]
    for name, value in (("train_seconds", 12.5), ("signal_seconds", 31.5), ("tokens_per_second", 765.4)):
        assert float(line[name]) == row[name] == value
    assert (line["teacher_seconds"], row["teacher_seconds"]) == ("", None)


def test_a_machine_without_gpu_shows_no_column_for_it() -> None:
    board = make_leaderboard([record(task=None, cost=Cost(train_seconds=1.0))])
    assert "GPU" not in FORMATS["md"](board, True)


def test_the_share_of_labels_that_are_taught_has_a_column_and_a_dash_where_a_record_is_older() -> None:
    older = Cost.model_validate({"train_seconds": 1.0})
    assert "distilled_share" not in older.model_dump()
    costs = {"kd": Cost(train_seconds=1.0, distilled_share=0.953), "gold": older}
    records = [record(), *(record(method, task=None, cost=cost) for method, cost in costs.items())]
    text = FORMATS["md"](make_leaderboard(records), True)
    shown = {row["method"]: row["distilled (% of labels)"] for row in cost_grid(text)}
    assert shown == {"kd": "95.3", "gold": "–"}
    assert "the share of the labels that a teacher's terms teach" in text
    assert "istilled" not in FORMATS["md"](make_leaderboard(records[:1] + records[2:]), True)


def test_csv_has_every_row_with_empty_fields_for_what_is_not_there() -> None:
    board = make_leaderboard([record("teacher", value=90), record(value=None)])
    teacher, student = csv.DictReader(io.StringIO(FORMATS["csv"](board, False)))
    assert (teacher["student"], teacher["value"], teacher["ci95_low"]) == ("", "90.0", "80.2")
    assert (student["value"], student["ci95_low"]) == ("", "")


def test_latex_and_html_escape_what_names_may_hold() -> None:
    board = make_leaderboard([record(student="a_b", task="small_math"), record("teacher")])
    latex = FORMATS["tex"](board, False)
    assert r"small\_math (numeric, n=100)" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    odd: Any = record().cell.model_copy(update={"student": "<script>"})
    page = FORMATS["html"](make_leaderboard([record().model_copy(update={"cell": odd})]), False)
    tags: list[str] = []

    class Collect(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)

    Collect().feed(page)
    assert "script" not in tags
    assert tags.count("table") == 1


def test_titles_and_notes_are_escaped_and_names_hold_no_control_characters() -> None:
    odd: Any = record().cell.model_copy(update={"student": "a^b~c|<b>"})
    board = make_leaderboard([record(counts={"invalid": 3}).model_copy(update={"cell": odd})])
    markdown = FORMATS["md"](board, False)
    assert "<b>" not in markdown
    assert markdown.count(r"a^b~c\|&lt;b>") == 3  # two titles and the note of the invalid answers
    methods = [record(method="a^b~c\\d"), record("teacher")]
    assert r"a\textasciicircum{}b\textasciitilde{}c\textbackslash{}d" in FORMATS["tex"](
        make_leaderboard(methods), False
    )
    for name in ("two\nlines", "\x1b[31m", "line\u2028end"):
        with pytest.raises(ValidationError):
            record(student=name)


def test_a_record_found_twice_counts_once_and_two_different_ones_of_a_cell_are_refused() -> None:
    one = record()
    assert make_leaderboard([one, record()]).rows[0].seeds == 1
    other = one.model_copy(update={"identity": Identity.of({"limit": 5})})
    with pytest.raises(
        InputError, match=r"^teacher/student/sft/1/small_math: two records .*limit: absent -> 5.*one run"
    ):
        make_leaderboard([one, other])


def test_seeds_made_with_different_settings_are_noted() -> None:
    seeds = [
        record(seed=k).model_copy(update={"identity": Identity.of({"model": {"seed": k, "steps": 100 * k}})})
        for k in (1, 2)
    ]
    assert any("model.steps: 100 -> 200" in note for note in make_leaderboard(seeds).notes)
    alike = [record(seed=k).model_copy(update={"identity": Identity.of({"model": {"seed": k}})}) for k in (1, 2)]
    assert make_leaderboard(alike).notes == []


def test_a_seed_without_a_score_is_none_of_the_seeds() -> None:
    row = make_leaderboard([record(seed=1), record(seed=2, value=None)]).rows[0]
    assert (row.seeds, row.unscored, row.failed, row.value) == (1, 1, 0, 50.0)


def test_trainings_alone_show_their_costs() -> None:
    board = make_leaderboard([record(task=None, cost=Cost(train_seconds=12.5))])
    for form in ("md", "html", "tex"):
        assert "12.5" in FORMATS[form](board, True)


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_no_records_give_an_empty_table_in_every_format(form: str) -> None:
    assert isinstance(FORMATS[form](make_leaderboard([]), True), str)


def test_scores_of_unequal_protocols_never_stand_in_one_column() -> None:
    preset = PROTOCOLS["minillm-sampling"]
    other = preset.model_copy(update={"no_repeat_ngram": 0})
    records = [
        record(value=50),
        record(value=60, protocol=preset),
        record(value=70, protocol=other),
        record("kd", value=40, protocol=preset),
        record("kd", value=30, version="2"),  # of the greedy column alone there is a newer version
    ]
    board = make_leaderboard(records)
    drawn, unlike = "small_math [minillm-sampling]", "small_math [minillm-sampling, no_repeat_ngram=0]"
    assert set(board.tasks) == {"small_math", drawn, unlike}
    found = {(row.method, row.column): row.value for row in board.rows}
    assert found == {("sft", drawn): 60, ("sft", unlike): 70, ("kd", drawn): 40, ("kd", "small_math"): 30}
    text = FORMATS["md"](board, False)
    for column in board.tasks:
        assert f"{column} (numeric, n=100)" in text
    assert [row["protocol"] for row in json.loads(FORMATS["json"](board, False))["rows"]] == [
        row.protocol for row in board.rows
    ]
