"""What a record says of test items in training data, planned from a matrix and counted in an evaluation's job."""

import json
from pathlib import Path

import pytest
from harness.planning.artifacts import Artifacts
from harness.planning.lineage import training_data

from harness import tasks
from harness.config.matrix import Cell
from harness.config.matrix_file import read_matrix
from harness.planning.plan import make_plan
from harness.runs.identity import FileHashes, Identity
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import JobSpec, OutputSpec
from harness.runs.records import RecordCell
from harness.steps.contamination import overlaps


@pytest.fixture
def train(tmp_path):
    """A training set with the second question of small_math, its answer included, and one of its own."""
    doc = tasks.load("small_math").docs(2)[1]
    rows = [{"q": "How many?", "a": "4"}, {"q": doc["question"], "a": doc["answer"]}]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(file, **changes):
    columns = {"prompt": "Q: {q}", "output": "{a}"}
    return {
        "of": "student",
        "data": "own",
        "path": str(file),
        "columns": columns,
        "limit": None,
        "reason": None,
    } | changes


@pytest.fixture
def counted(tmp_path):
    """The entries of small_math's first `limit` items, against sources."""

    def count(sources, limit=5):
        cell = RecordCell(teacher="t", student="s", method="sft", seed=1, task="small_math", task_version="1")
        output = OutputSpec(folder="eval", identity=Identity.of({}), cell=cell)
        arguments = {"tasks": {"small_math": {"limit": limit}}}
        if sources is not None:
            arguments["training_data"] = sources
        spec = JobSpec(
            id="e", kind="evaluate", title="e", runner="x", root=str(tmp_path / "run"), folder="eval",
            outputs=[output], arguments=arguments,
        )  # fmt: skip
        return overlaps(JobContext(spec, [output], ProgressChannel()), {"small_math": output})["small_math"]

    return count


def test_items_are_counted_in_each_training_set(counted, train):
    first, cut = counted([source(train), source(train, of="teacher", data="cut", limit=1)])
    assert (first.of, first.data, first.items, first.examples, first.n) == ("student", "own", 5, 2, 13)
    assert (first.exact, first.exact_with_answer) == (1, 1)
    assert first.ngram >= 1
    assert (cut.of, cut.data, cut.examples, cut.exact, cut.ngram) == ("teacher", "cut", 1, 0, 0)
    (fewer,) = counted([source(train)], limit=1)  # the items that are evaluated
    assert (fewer.items, fewer.exact) == (1, 0)


def test_a_pair_is_counted_once_in_a_run_and_again_when_its_file_changes(counted, train, tmp_path):
    counted([source(train)])
    (kept,) = (tmp_path / "run/.harness/overlap").iterdir()
    changed = json.loads(kept.read_text()) | {"exact": 3}
    kept.write_text(json.dumps(changed))
    assert counted([source(train)])[0].exact == 3
    assert counted([source(train, of="teacher")])[0].exact == 3  # the same file, whoever read it
    train.write_text(train.read_text().splitlines()[0] + "\n")
    assert counted([source(train)])[0].exact == 0


def test_what_is_not_known_or_cannot_be_read_is_null_with_a_reason_and_no_error(counted, train, capsys):
    elsewhere = source("", path=None, data=None, reason="m is a model folder from elsewhere")
    absent = source(train.parent / "absent.jsonl")
    unknown, gone = counted([elsewhere, absent])
    assert (unknown.data, unknown.exact, unknown.reason) == (None, None, "m is a model folder from elsewhere")
    assert (gone.data, gone.items, gone.reason) == ("own", None, "its file could not be read when this was evaluated")
    assert "absent.jsonl" in capsys.readouterr().out  # in the log, as records hold no paths
    assert counted(None) is None


def sources_of(plan, cell):
    spec = plan.jobs[f"evaluate:{cell}"].spec
    return [(entry["of"], entry["data"]) for entry in spec.arguments["training_data"]]


def test_a_cell_s_sources_are_those_of_its_models_from_the_start(tiny, write_matrix, tmp_path):
    tiny["data"]["more"] = {"small_world": "pretraining"}
    tiny["models"]["same"]["training"] = [{"data": "more", "steps": 1, "batch_size": 2, "max_length": 200}]
    tiny["pairs"][0]["methods"].append("seqkd")
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    own = [("student", "more"), ("student", "student")]
    assert sources_of(plan, "teacher/teacher") == [("teacher", "student")]
    assert sources_of(plan, "teacher__same/sft/seed1") == own  # it never meets the teacher
    assert sources_of(plan, "teacher__same/kd/seed1") == [*own, ("teacher", "student")]
    answered = ("student", "student, answered by teacher")
    assert sources_of(plan, "teacher__same/seqkd/seed1") == [own[0], answered, ("teacher", "student")]
    paths = [entry["path"] for entry in plan.jobs["evaluate:teacher__same/seqkd/seed1"].spec.arguments["training_data"]]
    assert paths[1].endswith("answers.jsonl")
    assert all(Path(path).is_absolute() for path in paths)


def test_first_layers_learned_what_their_model_did_and_a_folder_nobody_knows_what(tiny, write_matrix, tmp_path):
    tiny["models"]["same"] = {"layers_of": "teacher", "layers": 1, "training": []}
    tiny["pairs"] = tiny["pairs"][:1]
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    assert sources_of(plan, "teacher__same/sft/seed1") == [("student", "student")]
    tiny["models"]["teacher"] = {"path": "elsewhere"}
    matrix = read_matrix(write_matrix(tiny), {})
    found = training_data(Artifacts(matrix, "m.yaml", tmp_path, FileHashes()), Cell("teacher", "same", "kd", 1))
    reason = "teacher is a model folder from elsewhere: what it was trained on is not known here"
    assert [(entry["of"], entry["data"], entry["reason"]) for entry in found] == [
        ("student", None, reason),
        ("student", "student", None),
        ("teacher", None, reason),
    ]


def test_records_of_one_matrix_keep_their_identity(tiny, write_matrix, tmp_path):
    """What is only reported about a score is no part of what it was made from."""
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    (output,) = plan.jobs["evaluate:teacher__same/sft/seed1"].spec.outputs
    assert "training_data" not in json.dumps(output.identity.parts)
