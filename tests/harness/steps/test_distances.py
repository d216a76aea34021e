"""A matrix with `evaluation.distances`: what is measured, shared, kept, resumed and shown."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import dskd.distances
from dskd.errors import Stopped
from dskd.modeling.loading import load_tokenizer
from dskd.teachers.options import TeacherSource
from harness import tasks
from harness.planning.plan import Plan, make_plan
from harness.report.document import make_document
from harness.results.distances import DISTANCES, DistanceRecord, read_distances
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import Output
from harness.runs.store import Store
from harness.steps.distances import Distances
from harness.steps.teacher_cache import TeacherCache
from helpers.completions_server import CompletionsServer
from helpers.tiny_matrix import NEW_MODEL, training

pytestmark = pytest.mark.slow  # two whole runs

Harness = Callable[..., subprocess.CompletedProcess[str]]
CROSS, SAME, TEACHER = "teacher__cross/dskd-v2-eta/seed1", "teacher__same/kd/seed1", "teacher/teacher"
TASK = "small_math@v2"


def content(**evaluation: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "tiny",
        "data": {"student": {"small_world": "student", "limit": 24}},
        "models": {
            "teacher": {**NEW_MODEL, "training": [training(2)]},
            "same": {**NEW_MODEL, "seed": 2},
            "cross": {**NEW_MODEL, "tokenizer": {"small_world": "sentencepiece"}},
        },
        "pairs": [
            {"teacher": "teacher", "student": "same", "methods": ["sft", "kd"]},
            {"teacher": "teacher", "student": "cross", "methods": ["dskd-v2-eta"]},
        ],
        "training": training(2),
        "seeds": [1],
        "tasks": {"small_math": {"limit": 3, "max_new_tokens": 8}},
        "evaluation": {"engine": "transformers", **evaluation},
    }


@pytest.fixture(scope="module")
def run(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, beside its matrix."""
    folder = tmp_path_factory.mktemp("distances")
    (folder / "m.yaml").write_text(yaml.safe_dump(content(distances=True)))
    done = harness("run", "--matrix", "m.yaml", "--output-dir", "run", cwd=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder / "run"


def plan_of(run: Path) -> Plan:
    return make_plan(str(run.parent / "m.yaml"), output_dir=run)


def record_of(run: Path, cell: str) -> DistanceRecord:
    return DistanceRecord.model_validate_json((run / "cells" / cell / "distances" / TASK / DISTANCES).read_text())


def test_a_plan_has_them_and_nothing_else_changes(tmp_path: Path) -> None:
    plans = {}
    for asked in (False, True):
        (tmp_path / f"{asked}.yaml").write_text(yaml.safe_dump(content(distances=asked)))
        plans[asked] = make_plan(str(tmp_path / f"{asked}.yaml"), output_dir=tmp_path / "run")
    without, both = (
        {output.output.folder: output.output.fingerprint.hash for job in plan.jobs.values() for output in job.outputs}
        for plan in (plans[False], plans[True])
    )
    assert without.items() <= both.items()
    more = [job for job in plans[True].jobs.values() if job.id not in plans[False].jobs]
    assert sorted(job.kind for job in more) == ["distances"] * 4 + ["reference-texts", "teacher-cache"]
    assert all(job.action == "run" for job in more)
    (cached,) = (job for job in more if job.kind == "teacher-cache")
    reading = [job for job in more if cached.id in job.needs]
    assert [job.kind for job in reading] == ["distances"] * 3  # one pass of the teacher for all its students
    for job in reading:
        assert f"evaluate:{job.id.removeprefix('distances:')}" in job.needs
        assert (job.resources.gpus, job.resources.minutes is None) == (1, False)
        assert job.resources.memory > 0


@pytest.mark.parametrize(
    ("cell", "space"), [(SAME, "vocabulary"), (CROSS, "shared_vocabulary")], ids=["one vocabulary", "two vocabularies"]
)
def test_records_have_what_the_models_give_on_these_texts(run: Path, cell: str, space: str) -> None:
    record = record_of(run, cell)
    assert {name: (found.source, found.space, found.form) for name, found in record.texts.items()} == {
        "own_answers": ("live", space, "exact"),
        "reference_answers": ("cache", space, "exact"),
    }
    student = run / "cells" / cell / "train/model"
    teacher = next(
        job.step for job in plan_of(run).jobs.values() if isinstance(job.step, Distances) and job.step.teacher
    )
    folder = teacher.teacher.path(run)  # type: ignore[union-attr]
    readers, docs = [load_tokenizer(each) for each in (student, folder)], tasks.load("small_math").docs(3)
    asked = {doc["id"]: [tasks.load("small_math").render_prompt(doc, reader) for reader in readers] for doc in docs}
    lines = (run / "cells" / cell / "eval" / TASK / "samples.jsonl").read_text().splitlines()
    texts = {
        "own_answers": [
            dskd.distances.Text(*asked[row["id"]], row["output"], row["finish_reason"] != "length")
            for row in map(json.loads, lines)
        ],
        "reference_answers": [
            dskd.distances.Text(*asked[doc["id"]], tasks.load("small_math").reference(doc)) for doc in docs
        ],
    }
    for name, given in texts.items():
        found = record.texts[name]  # type: ignore[index]
        items = [each for each in dskd.distances.measure(given, student, TeacherSource(folder=folder)).items if each]
        assert (found.texts, sum(found.left_out.values())) == (3, 3 - len(items))
        for number, value in found.values.items():
            if number in ("length_ratio", "cut_off_share"):
                continue
            total, count = (sum(each[number][k] for each in items) for k in (0, 1))
            assert value.n == count, number
            assert value.value == pytest.approx(total / count, abs=2e-5), number
            assert value.ci95 is not None
            assert value.ci95[0] - 1e-6 <= value.value <= value.ci95[1] + 1e-6


def test_lengths_are_those_of_the_answers_and_the_teacher_has_its_own(run: Path) -> None:
    docs = {doc["id"]: doc for doc in tasks.load("small_math").docs(3)}
    for cell in (SAME, TEACHER):
        lines = (run / "cells" / cell / "eval" / TASK / "samples.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        written = sum(len(row["output"].encode()) for row in rows)
        expected = written / sum(len(tasks.load("small_math").reference(docs[row["id"]]).encode()) for row in rows)
        found = record_of(run, cell).texts["own_answers"].values
        assert found["length_ratio"].value == pytest.approx(expected, abs=1e-6)
        cut = sum(row["finish_reason"] == "length" for row in rows) / len(rows)
        assert found["cut_off_share"].value == pytest.approx(cut, abs=1e-6)
    own = record_of(run, TEACHER).texts["own_answers"]
    assert (own.source, own.values["kl_teacher_student"].reason) == (None, "it is the teacher itself")
    assert own.values["student_entropy"].value is not None


def test_a_finished_run_has_nothing_to_do_and_nothing_to_remove(run: Path, harness: Harness) -> None:
    assert [job.id for job in plan_of(run).to_run] == []
    assert "Nothing: all that is there is needed." in harness("gc", run, cwd=run.parent).stdout


def test_the_report_and_a_comparison_show_them_and_those_of_older_runs_nothing(
    run: Path, harness: Harness, tmp_path: Path
) -> None:
    rows = make_document([run])[0]["distances"]
    assert len(rows) == 4 * 2
    (row,) = (each for each in rows if each["method"] == "kd" and each["text"] == "own answers")
    named = {value["name"]: value["value"] for value in row["values"]}
    found = record_of(run, SAME).texts["own_answers"].values
    assert named["KL(teacher, student)"] == found["kl_teacher_student"].value
    ratios = [record_of(run, cell).texts["own_answers"].values["length_ratio"].value for cell in (SAME, TEACHER)]
    assert row["length_by_teacher"] == pytest.approx(ratios[0] / ratios[1], abs=1e-4)  # type: ignore[operator]
    shown = harness("compare", "kd", "sft", "--results", run, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    first, _, second = shown.stdout.partition("\n\nDistances from the teacher\n")
    assert "verdict" in first
    assert len(second.splitlines()) == 1 + 10 + 8
    assert "KL(teacher, student)" in second
    old = tmp_path / "old"
    shutil.copytree(run, old, ignore=shutil.ignore_patterns(DISTANCES))
    assert make_document([old])[0]["distances"] == []
    assert "Distances" not in harness("compare", "kd", "sft", "--results", old, cwd=tmp_path).stdout


def begun(run: Path, step: Distances, stop: Callable[[], bool]) -> JobContext:
    outputs: list[Output] = list(step.outputs)
    for output in outputs:
        Store(run).output(output.folder).begin(step.kind, step.title, output.fingerprint)
    return JobContext(run, step.folder, outputs, ProgressChannel(), stop=stop)


def step_of(run: Path, cell: str) -> Distances:
    steps = [job.step for job in plan_of(run).jobs.values() if isinstance(job.step, Distances)]
    (step,) = (each for each in steps if each.cell_folder == cell)
    return step


def copy_without(run: Path, place: Path, step: Distances) -> Path:
    """A copy of a run in which a step has not run."""
    shutil.copytree(run, place)
    shutil.rmtree(place / step.folder)
    return place


@pytest.fixture(scope="module")
def text_by_text(run: Path, tmp_path_factory: pytest.TempPathFactory) -> DistanceRecord:
    """What an undisturbed measurement of the student with another vocabulary gives, a text at a time."""
    step = step_of(run, CROSS)
    copy = copy_without(run, tmp_path_factory.mktemp("undisturbed") / "run", step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dskd.distances, "measure", partial(dskd.distances.measure, batch_tokens=1))
        step.run(begun(copy, step, lambda: False))
    return record_of(copy, CROSS)


def assert_same_numbers(found: DistanceRecord, expected: DistanceRecord) -> None:
    assert (found.texts, found.identity, found.cell) == (expected.texts, expected.identity, expected.cell)


def test_batches_hardly_change_it(run: Path, text_by_text: DistanceRecord) -> None:
    whole = record_of(run, CROSS)
    for name, found in text_by_text.texts.items():
        for number, value in found.values.items():
            assert value.value == pytest.approx(whole.texts[name].values[number].value, abs=2e-6), number
            assert value.n == whole.texts[name].values[number].n


def test_one_that_was_stopped_goes_on_and_gives_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_by_text: DistanceRecord
) -> None:
    monkeypatch.setattr(dskd.distances, "measure", partial(dskd.distances.measure, batch_tokens=1))
    step = step_of(run, CROSS)
    copy = copy_without(run, tmp_path / "run", step)
    asked: list[bool] = []

    def second() -> bool:
        asked.append(True)
        return len(asked) == 2

    with pytest.raises(Stopped):
        step.run(begun(copy, step, second))
    (log,) = (copy / step.folder).rglob("own.jsonl")
    assert len(log.read_text().splitlines()) == 4  # what it is about, and two of three texts
    step.run(begun(copy, step, lambda: False))
    assert not list((copy / step.folder).rglob("*.jsonl"))
    assert_same_numbers(record_of(copy, CROSS), text_by_text)


SLOW = """
import json, sys, time
from pathlib import Path
import dskd.distances
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.store import Store
from harness.steps.base import Step

measure = dskd.distances.measure

def slow(*texts, progress, **settings):
    def told(done, total):
        progress(done, total)
        time.sleep(0.5)
    return measure(*texts, progress=told, batch_tokens=1, **settings)

dskd.distances.measure = slow
root, step = Path(sys.argv[1]), Step.model_validate(json.loads(Path(sys.argv[2]).read_text()))
for output in step.outputs:
    Store(root).output(output.folder).begin(step.kind, step.title, output.fingerprint)
step.run(JobContext(root, step.folder, list(step.outputs), ProgressChannel()))
"""


def test_one_that_was_killed_goes_on_and_gives_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_by_text: DistanceRecord
) -> None:
    step = step_of(run, CROSS)
    copy = copy_without(run, tmp_path / "run", step)
    (tmp_path / "step.json").write_text(step.model_dump_json())
    log = copy / step.folder / TASK / "references.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(copy), str(tmp_path / "step.json")])
    while process.poll() is None and not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        time.sleep(0.01)
    assert process.poll() is None, "it was done before it was killed"
    process.kill()
    process.wait()
    assert not (log.parent / DISTANCES).exists()
    monkeypatch.setattr(dskd.distances, "measure", partial(dskd.distances.measure, batch_tokens=1))
    step.run(begun(copy, step, lambda: False))
    assert_same_numbers(record_of(copy, CROSS), text_by_text)


def test_a_damaged_cache_of_references_is_computed_again(run: Path, tmp_path: Path) -> None:
    step = step_of(run, SAME)
    copy = copy_without(run, tmp_path / "run", step)
    (cache,) = step.caches
    assert isinstance(cache, TeacherCache)
    shard = cache.path(copy) / "shards" / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    step.run(begun(copy, step, lambda: False))
    assert record_of(copy, SAME).texts == record_of(run, SAME).texts


@pytest.mark.slow  # a server
def test_a_served_teacher_gives_what_it_can_and_the_rest_has_its_reason(
    run: Path, harness: Harness, tmp_path: Path
) -> None:
    step = next(job.step for job in plan_of(run).jobs.values() if isinstance(job.step, Distances) and job.step.teacher)
    teacher = step.teacher.path(run)  # type: ignore[union-attr]
    with CompletionsServer(teacher) as server:
        matrix = content(distances=True, score_teachers=False)
        matrix["models"] = {
            "far": {"completions": server.url, "tokenizer": str(teacher), "model": "teacher"},
            "same": {"path": str(run / "cells" / SAME / "train/model")},
        }
        matrix["pairs"] = [{"teacher": "far", "student": "same", "methods": ["sft"]}]
        matrix["teacher_outputs"] = {"kind": "text_log_probabilities"}
        matrix["data"] = {"student": {"small_world": "student", "limit": 8}}
        (tmp_path / "far.yaml").write_text(yaml.safe_dump(matrix))
        planned = harness("plan", "--matrix", "far.yaml", cwd=tmp_path)
        assert f"Teacher far has to be reachable at {server.url} for 2 jobs." in planned.stdout, planned.stderr
        done = harness("run", "--matrix", "far.yaml", "--output-dir", "far", cwd=tmp_path)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    records, problems = read_distances(tmp_path / "far")
    assert (len(records), problems) == (1, [])
    for name, source in (("own_answers", "served"), ("reference_answers", "cache")):
        found = records[0].texts[name]  # type: ignore[index]
        assert (found.source, found.outputs, found.form) == (source, "text_log_probabilities", None)
        assert found.values["log_likelihood_difference"].value is not None
        assert found.values["kl_teacher_student"].reason == "the teacher gives the log-probability of the text alone"
