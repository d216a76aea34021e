"""`harness gc`: it finds what nothing needs, and nothing else; what it removes is gone whole, or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dskd.processes import python_module
from harness import tasks
from harness.cli import main
from harness.planning.plan import Plan, PlannedJob, make_plan
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.store import INCOMPLETE, MANIFEST, Store
from helpers.finished_runs import PRODUCT, finish, write_small_matrix

PAIR = {"teacher": "small-teacher", "student": "small-student"}
EVALUATION = f"eval/small_math@v{tasks.load('small_math').version}"
STEPS = {"steps": 600, "batch_size": 16, "learning_rate": 2.0e-3, "warmup_steps": 10, "max_length": 128}


class Run:
    """A run in a folder of its own, whose matrix may change."""

    def __init__(self, folder: Path) -> None:
        self.matrix, self.root = folder / "matrix.yaml", folder / "run"
        self.change()

    def change(
        self, *, methods: Sequence[str] = ("sft", "kd"), evaluated: Sequence[str] = ("small_math",), **more: Any
    ) -> None:
        """Write the matrix anew."""
        named = {name: {} for name in evaluated}
        write_small_matrix(self.matrix, 1, pairs=[{**PAIR, "methods": [*methods]}], tasks=named, **more)

    def plan(self) -> Plan:
        return make_plan(str(self.matrix), output_dir=self.root)

    def finish(self, jobs: Sequence[PlannedJob] | None = None) -> Plan:
        """Do what is to be done, with the specifications that executors write."""
        plan = self.plan()
        for job in plan.to_run if jobs is None else jobs:
            Store(self.root).write_spec(job.id, job.spec().model_dump_json())
            finish(plan, [job])
        return plan

    def gc(self, *more: str, code: int = 0) -> Result:
        command = ["gc", str(self.root), "--matrix", str(self.matrix), *more]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def found(self, *more: str) -> dict[str, str]:
        """What gc lists: kind by path."""
        items = json.loads(self.gc(*more, "--json").stdout)["items"]
        return {item["path"]: item["kind"] for item in items}

    def files(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()}

    def artifacts(self) -> set[str]:
        return {path.parent.relative_to(self.root).as_posix() for path in self.root.glob("artifacts/*/*/manifest.json")}

    def states(self) -> dict[str, list[str]]:
        return {key: [each.status for each in job.outputs] for key, job in self.plan().jobs.items()}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    made = Run(tmp_path)
    made.finish()
    return made


def require_finished(run: Run) -> None:
    plan = run.plan()
    assert plan.to_run == []
    assert {each.status for job in plan.jobs.values() for each in job.outputs} == {"done"}


def test_of_a_finished_run_nothing_goes(run: Run) -> None:
    before = run.files()
    assert run.found("--cells", "--students", "--unfinished", "--rollouts") == {}
    assert "Nothing: all that is there is needed." in run.gc("--remove").output
    assert run.files() == before | {".harness/locks/gc.lock"}
    require_finished(run)


def test_what_a_changed_matrix_has_left_behind_goes_once_all_is_made_again(run: Run) -> None:
    old = run.artifacts()
    run.change(data={"teacher": {"small_world": "teacher", "limit": 500}, "pretraining": {"small_world": "pretraining"},
                     "student": {"small_world": "student"}})  # fmt: skip
    assert run.found() == {}  # records still say that they were made of it
    run.finish()
    new = {output.output.folder for job in run.plan().jobs.values() for output in job.outputs}
    expected = old - new
    assert len(expected) >= 2  # the teacher's data, and the teacher
    found = run.found()
    assert {path for path, kind in found.items() if kind == "artifact"} == expected
    # Nothing is removed without being asked to.
    assert expected <= run.artifacts()
    shown = run.gc()
    assert "Nothing was removed; --remove does it." in shown.output
    assert all(path in shown.output for path in expected)
    run.gc("--remove")
    assert run.artifacts() == new & run.artifacts()
    assert run.artifacts().isdisjoint(expected)
    require_finished(run)
    assert run.found() == {}


def test_a_cell_that_is_not_made_again_yet_keeps_what_it_was_made_of(run: Run) -> None:
    old = run.artifacts()
    run.change(training={"data": "student", **STEPS}, models=_models(run, teacher_steps=10))
    plan = run.plan()
    kd = [job for job in plan.to_run if "/sft/" not in job.id]
    run.finish(kd)
    # The old teacher's evaluation and the student by KD are new; SFT never had the teacher.
    gone = {path for path, kind in run.found().items() if kind == "artifact"}
    assert gone == old - {each.output.folder for job in plan.jobs.values() for each in job.outputs}
    run.change(models=_models(run, teacher_steps=20))
    assert {path for path, kind in run.found().items() if kind == "artifact"} == gone  # what KD was made of stays


def _models(run: Run, teacher_steps: int) -> dict[str, Any]:
    import yaml

    models = yaml.safe_load(run.matrix.read_text())["models"]
    models["small-teacher"]["training"][0]["steps"] = teacher_steps
    return models


def test_cells_in_no_matrix_stay_unless_asked_for_and_so_does_what_they_were_made_of(run: Run) -> None:
    run.change(methods=["sft", "kd", "uld"])
    run.finish()
    cached = {path for path in run.artifacts() if path.startswith("artifacts/signals/")}
    run.change(methods=["sft"])
    assert run.found() == {}
    outside = [f"cells/small-teacher__small-student/{method}/seed0" for method in ("kd", "uld")]
    found = run.found("--cells")
    assert {path for path, kind in found.items() if kind == "cell"} == {f"{cell}/{EVALUATION}" for cell in outside}
    assert "artifact" not in found.values()  # the students stay, and the cache from which they were taught
    run.gc("--cells", "--remove")
    for cell in outside:
        assert (run.root / cell / "train/model").is_dir()
        assert not (run.root / cell / EVALUATION).exists()
    assert run.found("--cells") == {}
    require_finished(run)
    found = run.found("--cells", "--students")
    assert {path for path, kind in found.items() if kind == "cell"} == {f"{cell}/train" for cell in outside}
    assert cached <= {path for path, kind in found.items() if kind == "artifact"}
    assert {"spec"} <= {*found.values()}
    run.gc("--cells", "--students", "--remove")
    assert not any((run.root / cell).exists() for cell in outside)
    assert run.found("--cells", "--students") == {}
    require_finished(run)


def test_a_cache_that_no_identity_names_stays_by_the_specification_of_its_training(run: Run) -> None:
    run.change(methods=["kd"])
    plan = run.finish()
    (cache,) = (job for job in plan.jobs.values() if job.kind == "teacher-cache")
    (train,) = (job for job in plan.jobs.values() if job.kind == "train")
    folder = cache.outputs[0].output.folder
    assert cache.step.fingerprint.text not in train.step.fingerprint.text
    run.change(methods=["sft"])
    assert folder not in run.found()
    for spec in (run.root / ".harness/specs").glob("*+kd+*"):
        spec.unlink()
    assert run.found()[folder] == "artifact"


def test_checkpoints_go_where_a_training_is_done_and_elsewhere_when_asked_for(run: Run) -> None:
    done, other = (f"cells/small-teacher__small-student/{method}/seed0/train" for method in ("kd", "sft"))
    for training in (done, other):
        for name in ("checkpoints/checkpoint-1", "checkpoints.dropped/checkpoint-0", "model.unfinished", "rollouts"):
            (run.root / training / name).mkdir(parents=True)
            (run.root / training / name / "file").write_bytes(b"x" * 100)
    teacher = next(job for job in run.plan().jobs.values() if job.kind == "model").outputs[0].output.folder
    (run.root / teacher / "stages/0").mkdir(parents=True)
    answers = done.replace("train", f"{EVALUATION}/answers.jsonl")
    (run.root / answers).write_text("{}\n")
    (run.root / other / INCOMPLETE).touch()  # interrupted
    always = {
        f"{training}/{name}" for training in (done, other) for name in ("checkpoints.dropped", "model.unfinished")
    }
    always |= {f"{done}/checkpoints", f"{teacher}/stages", answers}
    assert run.found().keys() == always
    assert run.found("--unfinished").keys() == always | {f"{other}/checkpoints"}
    assert run.found("--rollouts").keys() == always | {f"{done}/rollouts"}
    lines = [" ".join(line.split()) for line in run.gc().output.splitlines()]
    assert f"checkpoints {done}/checkpoints 100 bytes the training is done" in lines
    before = run.states()
    run.gc("--remove")
    assert run.states() == before
    assert (run.root / other / "checkpoints/checkpoint-1/file").is_file()
    assert run.found() == {}
    assert (run.root / done / "model/content").is_file()


def test_what_is_left_of_jobs_and_writers_that_are_gone_goes(run: Run) -> None:
    harness = run.root / ".harness"
    Store(run.root).write_spec("train:old/kd/seed0", "{}")
    (harness / "jobs/train+old+kd+seed0").mkdir(parents=True)
    (harness / "jobs/train+old+kd+seed0/state.json").write_text("{}")
    (harness / "jobs/train+small-teacher__small-student+kd+seed0").mkdir()
    with (
        Store(run.root).lock("cells/old/kd/seed0/train"),
        Store(run.root).lock("cells/small-teacher__small-student/kd/seed0/train"),
    ):
        pass
    (harness / "locks/cells+old+kd+seed0+train.lock").touch()
    (harness / "locks/cells+small-teacher__small-student+kd+seed0+train.lock").touch()
    old, young = run.root / "cells/.result.json.abcd1234", run.root / "cells/.result.json.abcd5678"
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (1e9, 1e9))
    (run.root / "artifacts/models/0123456789abcdef").mkdir(parents=True)
    (run.root / "artifacts/models/0123456789abcdef/log.txt").write_text("starting")
    expected = {
        ".harness/specs/train+old+kd+seed0.json": "spec",
        ".harness/jobs/train+old+kd+seed0": "job state",
        ".harness/locks/cells+old+kd+seed0+train.lock": "lock",
        "cells/.result.json.abcd1234": "temporary",
        "artifacts/models/0123456789abcdef": "artifact",
    }
    assert run.found() == expected
    run.gc("--remove")
    assert run.found() == {}
    assert young.is_file()


def test_nothing_that_is_not_the_runs_own_is_listed(run: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(run.root / sorted(run.artifacts())[0], elsewhere / "0123456789abcdef")
    (run.root / "artifacts/linked").symlink_to(elsewhere)
    (run.root / "artifacts/models/ffffffffffffffff").symlink_to(elsewhere / "0123456789abcdef")
    mine = run.root / "artifacts/models/my-notes"
    mine.mkdir()
    (mine / "notes.md").write_text("mine")
    (run.root / "results/regression").mkdir(parents=True)
    (run.root / "results/regression/baseline.json").write_text("{}")
    (run.root / "baseline.json").write_text("{}")
    assert run.found("--cells", "--students", "--unfinished") == {}
    run.gc("--cells", "--students", "--unfinished", "--remove")
    assert (elsewhere / "0123456789abcdef" / MANIFEST).is_file()
    assert (mine / "notes.md").is_file()
    assert (run.root / "results/regression/baseline.json").is_file()


def test_artifacts_behind_a_link_belong_to_others(run: Run, tmp_path: Path) -> None:
    (run.root / "artifacts").rename(tmp_path / "shared")
    (run.root / "artifacts").symlink_to(tmp_path / "shared")
    shutil.copytree(
        run.root / sorted((tmp_path / "shared/models").iterdir())[0], tmp_path / "shared/models/0123456789abcdef"
    )
    assert run.found() == {}


def make_garbage(run: Run, name: str = "0123456789abcdef", files: int = 1) -> Path:
    """An artifact that nothing refers to."""
    source = next(job for job in run.plan().jobs.values() if job.kind == "model").outputs[0].output.folder
    folder = run.root / "artifacts/models" / name
    shutil.copytree(run.root / source, folder)
    for number in range(files):
        (folder / "model" / f"file-{number}").write_bytes(b"")
    return folder


def test_a_file_of_two_names_counts_once_and_only_where_both_go(run: Run) -> None:
    def size() -> int:
        return json.loads(run.gc("--json").stdout)["bytes"]

    garbage = make_garbage(run)
    alone = size()
    os.link(garbage / "model/content", garbage / "model/second")
    assert size() == alone
    kept = run.root / "cells/linked"
    os.link(garbage / "model/content", kept)
    assert size() == alone - len(PRODUCT)  # its removal would free nothing
    kept.unlink()
    (garbage / "model/link").symlink_to(run.root / "run.json")
    assert size() == alone + len(str(run.root / "run.json"))


HOLD = """
import sys, time
from pathlib import Path
from harness.runs.store import Store
with Store(Path(sys.argv[1])).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_nothing_is_removed_while_a_job_runs(run: Run) -> None:
    garbage = make_garbage(run)
    held = "cells/small-teacher__small-student/kd/seed0/train"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.root), held], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert f"A job is running there ({held})" in run.gc().stderr
        before = run.files()
        result = run.gc("--remove", code=2)
        assert (
            result.stderr
            == f"error: {run.root}: a job is running, {held}; fix: wait until the run has ended, or stop it\n"
        )
        assert run.files() == before | {".harness/locks/gc.lock"}
        holder.kill()
    run.gc("--remove")  # the system gave up the lock of the dead
    assert not garbage.exists()


def test_two_removals_are_not_at_once(run: Run) -> None:
    make_garbage(run)
    with Store(run.root).lock("gc"):
        assert "another `harness gc` removes there" in run.gc("--remove", code=2).stderr
    run.gc("--remove")


@pytest.mark.slow  # a removal that is killed again and again
def test_a_removal_that_is_killed_leaves_no_folder_halfway(run: Run) -> None:
    """A folder of which a part is gone is never where anything would take it for finished."""
    chance, cut = random.Random(0), 0
    command = python_module("harness.cli", "gc", str(run.root), "--matrix", str(run.matrix), "--remove")
    for attempt in range(8):
        folders = [make_garbage(run, f"{attempt:08x}{number:08x}", files=3000) for number in range(3)]
        whole = {path.name for path in (folders[0] / "model").iterdir()}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            # Killed once the first folder has gone.
            while process.poll() is None and all(folder.exists() for folder in folders):
                time.sleep(0.001)
            time.sleep(chance.random() * 0.05)
            process.kill()
        cut += any((run.root / ".harness/removed").glob("*/model/*"))
        for folder in folders:
            if folder.exists():
                assert {path.name for path in (folder / "model").iterdir()} == whole
        require_finished(run)
        run.gc("--remove")
        assert run.found() == {}
        assert not (run.root / ".harness/removed").exists()
    assert cut > 0, "no removal was caught in the middle"


def test_the_matrix_that_a_run_holds_is_used(run: Run, tmp_path: Path) -> None:
    garbage = make_garbage(run)
    shutil.copyfile(run.matrix, run.root / "matrix.yaml")
    result = CliRunner().invoke(main, ["gc", str(run.root), "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert document["matrices"] == [str(run.root / "matrix.yaml")]
    assert [item["path"] for item in document["items"]] == [garbage.relative_to(run.root).as_posix()]
    # What another matrix adds is needed too.
    run.change(methods=["sft", "kd", "uld"])
    run.finish()
    assert set(run.found("--cells")) == {garbage.relative_to(run.root).as_posix()}


def test_without_a_matrix_no_artifact_goes(run: Run) -> None:
    """As for `harness train`, whose folder has no run.json."""
    garbage = make_garbage(run)
    training = run.root / "cells/small-teacher__small-student/kd/seed0/train"
    (training / "checkpoints").mkdir()
    result = CliRunner().invoke(main, ["gc", str(run.root), "--remove"], catch_exceptions=False)
    assert result.exit_code == 0
    assert garbage.is_dir()
    assert not (training / "checkpoints").exists()
    (run.root / "run.json").write_text("{}")
    result = CliRunner().invoke(main, ["gc", str(run.root)])
    assert (result.exit_code, "fix: give --matrix NAME|FILE" in result.stderr) == (2, True)
    assert f"{run.root / 'run.json'}: is damaged" in run.gc(code=2).stderr


@pytest.mark.parametrize("given", ["nothing", "export", "data"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, given: str) -> None:
    folder = tmp_path / "folder"
    if given != "nothing":
        (folder / "cells").mkdir(parents=True)
        (folder / ("records.json" if given == "export" else "data.jsonl")).write_text("{}")
    result = CliRunner().invoke(main, ["gc", str(folder), "--matrix", "quick", "--remove"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {folder}: ")
    assert "; fix: " in line
    assert not (folder / ".harness").exists()


def test_students_are_those_of_cells_in_no_matrix(run: Run) -> None:
    assert "--students: is for the students of cells in no matrix" in run.gc("--students", code=2).stderr


@pytest.mark.parametrize("seed", range(6))
def test_whatever_has_happened_what_is_done_stays_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random histories: matrices that change, runs that stop anywhere, jobs that fail or are killed; then gc with every choice."""
    monkeypatch.chdir(tmp_path)
    run, chance = Run(tmp_path), random.Random(seed)
    for _ in range(4):
        methods = chance.sample(["sft", "kd", "uld", "gkd", "dskd-v2"], chance.randint(1, 3))
        outputs = chance.choice([{}, {"teacher_outputs": {"kind": "live"}}])
        evaluated = chance.sample(["small_math", "small_instruct"], chance.randint(1, 2))
        run.change(
            methods=methods,
            evaluated=evaluated,
            training={"data": "student", **STEPS, "steps": chance.choice([5, 6])},
            **outputs,
        )
        plan = run.plan()
        jobs = plan.to_run[: chance.randint(0, len(plan.to_run) + 3)]
        run.finish(jobs)
        for job in jobs:
            if job.kind == "train" and chance.random() < 0.3:
                (job.folder / "checkpoints/checkpoint-5").mkdir(parents=True, exist_ok=True)
                _interrupt(plan, job, chance.choice(["failed", "killed", "checkpoints left"]))
    before, students = run.states(), {path for path in run.files() if "/train/model/" in path}
    needed = {key: [each.reason for each in job.outputs] for key, job in run.plan().jobs.items()}
    flags = [flag for flag in ("--cells", "--unfinished", "--rollouts") if chance.random() < 0.5]
    run.gc(*flags, "--remove")
    assert run.states() == before
    assert {key: [each.reason for each in job.outputs] for key, job in run.plan().jobs.items()} == needed
    assert {path for path in run.files() if "/train/model/" in path} == students
    assert run.found(*flags) == {}
    run.finish()
    require_finished(run)


def _interrupt(plan: Plan, job: PlannedJob, way: str) -> None:
    output = job.outputs[0].output
    if way == "checkpoints left":
        return
    context = JobContext(plan.root, job.step.folder, [output], ProgressChannel())
    shutil.rmtree(job.folder / "model")
    if way == "failed":
        context.fail("the loss is not finite")
    else:
        (job.folder / INCOMPLETE).touch()
