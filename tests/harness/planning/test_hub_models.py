"""Models by name on the hub in a matrix: commits in identities, the lock of a run, what planning downloads, and what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dskd import hub
from dskd.errors import InputError
from harness.cli import main
from harness.evaluation.generate import cache_beside
from harness.planning import preflight
from harness.planning.plan import Plan, make_plan
from harness.runs import identity
from harness.runs.job_spec import JobSpec
from harness.steps.base import Step
from harness.steps.training import Train
from helpers.hub_server import HubServer
from helpers.plan_world import write_folders

WriteMatrix = Callable[[Any], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_folders(tmp_path_factory.mktemp("folders") / "all")
    for name in ("teacher", "student", "other"):
        _write_weights(made / name / "model.safetensors", name)
    _write_weights(made / "adapter" / "adapter_model.safetensors", "adapter")
    return made


def _write_weights(path: Path, tag: str) -> None:
    """A safetensors file with a header alone."""
    header = json.dumps({"__metadata__": {"tag": tag}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as served:
        served.point_client_here(monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield served


@pytest.fixture
def matrix(folders: Path) -> dict[str, Any]:
    """Teacher and student by name."""
    return {
        "schema_version": 1,
        "name": "by-name",
        "data": {"own": {"file": str(folders / "train.jsonl")}},
        "models": {"big": {"hub": "org/teacher"}, "small": {"path": "org/student@v1"}},
        "pairs": [{"teacher": "big", "student": "small", "methods": ["kd"]}],
        "training": {"data": "own", "steps": 1},
        "seeds": [1],
        "tasks": {},
    }


def _command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def _train(plan: Plan) -> Train:
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Train))
    return step


def _new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command pins for its jobs is forgotten with its process."""
    monkeypatch.delenv("DSKD_HUB_COMMITS", raising=False)


def _move(server: HubServer, folders: Path, tmp_path: Path) -> str:
    """A new commit of the teacher, with other weights."""
    newer = tmp_path / "newer"
    shutil.copytree(folders / "teacher", newer)
    _write_weights(newer / "model.safetensors", "newer")
    return server.add_model("org/teacher", newer)


def test_commits_stand_in_identities_and_no_weights_are_downloaded(
    server: HubServer, folders: Path, matrix: dict[str, Any], write_matrix: WriteMatrix
) -> None:
    teacher = server.add_model("org/teacher", folders / "teacher")
    student = server.add_model("org/student", folders / "student", revision="v1")
    plan = make_plan(str(write_matrix(matrix)))
    parts = _train(plan).fingerprint.parts
    assert parts["teacher"]["files"] == {"hub": "org/teacher", "commit": teacher}
    assert parts["student"]["files"] == {"hub": "org/student", "commit": student}
    assert parts["data"]["student_tokenizer"]["files"] == {"hub": "org/student", "commit": student}
    assert not any("model.safetensors" in path for _, path in server.requests)
    assert json.loads(Path("runs/by-name/harness.lock.json").read_text()) == {
        "models": {"org/student@v1": student, "org/teacher@main": teacher}, "datasets": {},
    }  # fmt: skip


def test_the_commit_says_what_a_model_is_and_nothing_is_hashed(
    server: HubServer,
    folders: Path,
    matrix: dict[str, Any],
    write_matrix: WriteMatrix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = server.add_model("org/teacher", folders / "teacher")
    server.add_model("org/student", folders / "student", revision="v1")
    preflight.fetch(make_plan(str(write_matrix(matrix))))  # the weights are here from now on
    read: list[Path] = []
    real = identity.hash_of
    monkeypatch.setattr(identity, "hash_of", lambda file, size: read.append(Path(file.name)) or real(file, size))
    make_plan(str(write_matrix(matrix)), verify=True)
    assert [path.name for path in read] == ["train.jsonl"]
    beside = cache_beside(Path("answers.jsonl"), hub.snapshot_folder("org/teacher", commit), "transformers", "float32")
    assert len(read) == 1
    other = hub.snapshot_folder("org/teacher", "0" * 40)
    assert beside != cache_beside(Path("answers.jsonl"), other, "transformers", "float32")


def test_a_job_finds_its_folder_by_name_and_commit_wherever_it_runs(
    server: HubServer,
    folders: Path,
    tmp_path: Path,
    matrix: dict[str, Any],
    write_matrix: WriteMatrix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    commit = server.add_model("org/teacher", folders / "teacher")
    server.add_model("org/student", folders / "student", revision="v1")
    plan = make_plan(str(write_matrix(matrix)))
    spec = next(job for job in plan.jobs.values() if isinstance(job.step, Train)).spec().model_dump_json()
    # Another machine: nothing is in its cache, which is elsewhere.
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(elsewhere))
    step = Step.model_validate(JobSpec.model_validate_json(spec).step)
    assert isinstance(step, Train)
    assert step.teacher is not None
    folder = step.teacher.path(plan.root)
    assert folder == elsewhere / "models--org--teacher" / "snapshots" / commit
    assert b"teacher" in (folder / "model.safetensors").read_bytes()
    assert step.teacher.text_config["num_hidden_layers"] == 4
    assert step.fingerprint.hash == _train(plan).fingerprint.hash


def test_weights_are_fetched_before_the_first_job_and_only_those_that_jobs_read(
    server: HubServer, folders: Path, matrix: dict[str, Any], write_matrix: WriteMatrix
) -> None:
    for name in ("teacher", "other"):
        server.add_model(f"org/{name}", folders / name)
    server.add_model("org/student", folders / "student", revision="v1")
    matrix["models"]["unused"] = {"hub": "org/other"}
    plan = make_plan(str(write_matrix(matrix)))
    preflight.fetch(plan)
    fetched = {path.split("/")[3] + "/" + path.split("/")[4] for _, path in server.requests if "/cdn/" in path}
    assert fetched == {"org/teacher", "org/student"}
    asked = len(server.requests)
    preflight.fetch(plan)
    assert len(server.requests) == asked


def test_a_run_stays_at_its_commits_and_plan_says_that_a_branch_has_moved(
    server: HubServer,
    folders: Path,
    tmp_path: Path,
    matrix: dict[str, Any],
    write_matrix: WriteMatrix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = server.add_model("org/teacher", folders / "teacher")
    server.add_model("org/student", folders / "student", revision="v1")
    path = write_matrix(matrix)
    before = _train(make_plan(str(path))).fingerprint.hash
    assert "has moved" not in _command("plan", "--matrix", path).stdout
    second = _move(server, folders, tmp_path)
    _new_session(monkeypatch)
    assert _train(make_plan(str(path))).fingerprint.hash == before
    server.requests.clear()
    planned = _command("plan", "--matrix", path)
    assert (
        f"On the hub org/teacher@main has moved from {first[:12]}, which this run uses, to {second[:12]}"
        in planned.stdout
    )
    assert "org/student" not in planned.stdout
    assert [path for _, path in server.requests] == [
        "/api/models/org/student/revision/v1", "/api/models/org/teacher/revision/main",
    ]  # fmt: skip
    assert json.loads(_command("plan", "--matrix", path, "--json").stdout)["hub"][1] == {
        "kind": "model", "name": "org/teacher@main", "commit": first,
    }  # fmt: skip
    server.stop()
    _new_session(monkeypatch)
    offline = _command("plan", "--matrix", path)
    assert offline.exit_code == 0
    assert "has moved" not in offline.stdout + offline.stderr


def test_the_lock_is_shown_and_moved_on_purpose(
    server: HubServer,
    folders: Path,
    tmp_path: Path,
    matrix: dict[str, Any],
    write_matrix: WriteMatrix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = server.add_model("org/teacher", folders / "teacher")
    student = server.add_model("org/student", folders / "student", revision="v1")
    path, lock = write_matrix(matrix), Path("runs/by-name/harness.lock.json")
    shown = _command("lock", "--matrix", path)
    assert f"org/teacher@main  model  {first}" in shown.stdout
    assert json.loads(lock.read_text())["models"]["org/student@v1"] == student
    before = _train(make_plan(str(path))).fingerprint.hash
    second = _move(server, folders, tmp_path)
    _new_session(monkeypatch)
    assert f"{first}  moved to {second}" in _command("lock", "--output-dir", "runs/by-name").stdout
    assert json.loads(lock.read_text())["models"]["org/teacher@main"] == first, "showing moves nothing"
    updated = _command("lock", "--matrix", path, "--update", "org/student", "--json")
    assert [row["commit"] for row in json.loads(updated.stdout)] == [student]
    assert json.loads(lock.read_text())["models"]["org/teacher@main"] == first
    moved = _command("lock", "--update", "--matrix", path)
    assert f"{second}  was {first}" in moved.stdout
    assert f"{student}  unchanged" in moved.stdout
    assert json.loads(lock.read_text())["models"]["org/teacher@main"] == second
    _new_session(monkeypatch)
    assert _train(make_plan(str(path))).fingerprint.hash != before


def test_data_sets_are_locked_beside_models(
    server: HubServer, folders: Path, matrix: dict[str, Any], write_matrix: WriteMatrix
) -> None:
    rows = Path("rows")
    rows.mkdir()
    (rows / "train.jsonl").write_text('{"prompt": "a", "output": "b"}\n')
    commit = server.add_dataset("org/rows", rows, revision="v2")
    server.add_model("org/teacher", folders / "teacher")
    server.add_model("org/student", folders / "student", revision="v1")
    matrix["data"]["own"] = {"hub": "org/rows", "revision": "v2"}
    shown = json.loads(_command("lock", "--matrix", write_matrix(matrix), "--json").stdout)
    assert {(row["kind"], row["name"]) for row in shown} == {
        ("model", "org/teacher@main"), ("model", "org/student@v1"), ("dataset", "org/rows@v2"),
    }  # fmt: skip
    assert json.loads(Path("runs/by-name/harness.lock.json").read_text())["datasets"] == {"org/rows@v2": commit}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lock"], "error: lock: needs a run; fix: give --matrix or --output-dir"),
        (["lock", "--output-dir", "nowhere"], "error: --output-dir nowhere: has no harness.lock.json; fix: "),
        (["lock", "--output-dir", "bad"], "error: bad/harness.lock.json: models.org/name: is no name with a commit"),
        (
            ["lock", "--output-dir", "own", "--update", "org/nme"],
            "error: --update org/nme: this run takes no such name",
        ),
    ],
)
def test_a_mistake_about_a_lock_is_one_line(server: HubServer, arguments: list[str], line: str) -> None:
    for folder, name in (("bad", "org/name"), ("own", "org/name@main")):
        Path(folder).mkdir()
        Path(folder, "harness.lock.json").write_text(json.dumps({"models": {name: "1" * 40}}))
    done = _command(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("models", "line"),
    [
        ({"big": {"hub": "org/none"}}, r"models\.big\.hub: org/none@main: no model of this name on http"),
        (
            {"big": {"hub": "org/teacher", "revision": "v9"}},
            r"models\.big\.hub: org/teacher@v9: this model has no such rev",
        ),
        ({"big": {"path": "org/none"}}, r"models\.big\.path: org/none@main: no model of this name on http.* folder"),
        ({"big": {"hub": "teacher"}}, r"models\.big\.hub: 'teacher' is no name on the hub; fix: write org/name"),
        ({"big": {"hub": "org/a@b", "revision": "c"}}, r"models\.big.*: the revision is given twice; fix: "),
        ({"big": {"hub": "org/pickled"}}, r"models\.big\.hub: org/pickled@.* pytorch_model\.bin alone, a pickle"),
    ],
)
def test_what_cannot_be_had_is_refused_when_planning(
    server: HubServer,
    folders: Path,
    tmp_path: Path,
    matrix: dict[str, Any],
    write_matrix: WriteMatrix,
    models: dict[str, Any],
    line: str,
) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(folders / "teacher", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    server.add_model("org/pickled", pickled)
    server.add_model("org/teacher", folders / "teacher")
    server.add_model("org/student", folders / "student", revision="v1")
    matrix["models"] |= models
    with pytest.raises(InputError, match=line) as raised:
        make_plan(str(write_matrix(matrix)))
    assert "\n" not in str(raised.value)
    assert not Path("runs").exists()


def test_an_adapters_base_is_locked_and_in_the_identity(
    server: HubServer,
    folders: Path,
    tmp_path: Path,
    matrix: dict[str, Any],
    write_matrix: WriteMatrix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = server.add_model("org/teacher", folders / "teacher")
    server.add_model("org/student", folders / "student", revision="v1")
    adapter = tmp_path / "adapter"
    shutil.copytree(folders / "adapter", adapter)
    (adapter / "config.json").unlink()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/teacher", "r": 4}))
    commit = server.add_model("org/adapter", adapter)
    expected = {"base/hub": "org/teacher", "base/commit": base}
    for model in ({"hub": "org/adapter"}, {"path": str(adapter)}):
        matrix["models"]["big"] = model
        files = _train(make_plan(str(write_matrix(matrix)))).fingerprint.parts["teacher"]["files"]
        assert {key: value for key, value in files.items() if key.startswith("base/")} == expected
        assert files.get("commit", commit) == commit
    assert json.loads(Path("runs/by-name/harness.lock.json").read_text())["models"]["org/teacher@main"] == base
    # The base's branch moves: a job reads the locked commit.
    _move(server, folders, tmp_path)
    _new_session(monkeypatch)
    plan = make_plan(str(write_matrix(matrix)))
    preflight.fetch(plan)
    assert hub.resolve("org/teacher") == base
    assert (hub.snapshot_folder("org/teacher", base) / "model.safetensors").is_file()


def test_a_new_models_tokenizer_comes_from_the_hub(
    server: HubServer, folders: Path, matrix: dict[str, Any], write_matrix: WriteMatrix
) -> None:
    alone = {
        path.name: path.read_bytes() for path in (folders / "other").iterdir() if path.name.startswith("tokenizer")
    }
    tokenizer = Path("tokenizer-alone")
    tokenizer.mkdir()
    for name, content in alone.items():
        (tokenizer / name).write_bytes(content)
    commit = server.add_model("org/tokenizer", tokenizer)
    server.add_model("org/teacher", folders / "teacher")
    config = {"model_type": "llama", "hidden_size": 8}
    matrix["models"]["small"] = {"config": config, "tokenizer": {"path": "org/tokenizer"}, "seed": 1}
    matrix["pairs"][0]["methods"] = ["sft"]
    plan = make_plan(str(write_matrix(matrix)))
    files = _train(plan).fingerprint.parts["student"]["tokenizer"]["files"]
    assert files == {"hub": "org/tokenizer", "commit": commit}


def test_published_names_are_estimated_without_network(
    server: HubServer, folders: Path, matrix: dict[str, Any], write_matrix: WriteMatrix
) -> None:
    server.stop()
    matrix["models"] = {"big": {"hub": "openai-community/gpt2-xl"}, "small": {"path": "openai-community/gpt2"}}
    path = write_matrix(matrix)
    estimated = _command("plan", "--matrix", path, "--estimate")
    assert estimated.exit_code == 0, estimated.stderr
    assert "GPU-hours" in estimated.stdout
    assert (
        "models.big: not in the hub's cache, and no network leads to it: 'openai-community/gpt2-xl@main'"
        in estimated.stdout
    )
    assert not Path("runs").exists()
    matrix["models"]["big"] = {"hub": "org/unknown"}
    refused = _command("plan", "--matrix", write_matrix(matrix), "--estimate")
    assert refused.exit_code == 2
    assert "models.big.hub: org/unknown@main: is not in the hub's cache" in refused.stderr
    assert refused.stderr.count("\n") == 1
