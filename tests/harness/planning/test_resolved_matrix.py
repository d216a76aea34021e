"""The matrix that a run's folder keeps plans the same jobs as the file that was run, and holds no secret."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config.matrix_file import read_matrix
from harness.config.resolved import resolved_text, write_resolved
from harness.config.secrets import without_secrets
from harness.planning import preflight
from harness.planning.plan import make_plan
from helpers.golden_matrices import NAMES, located
from helpers.plan_world import write_folders

Content = dict[str, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("resolved") / "folders")


def jobs_of(matrix: str, folder: Path, **asked: Any) -> dict[str, Any]:
    """Every job with its title, needs, and what its outputs are made of."""
    jobs = make_plan(matrix, output_dir=folder, **asked).jobs
    return {
        key: (job.title, job.needs, [(output.folder, output.fingerprint.hash) for output in job.step.outputs])
        for key, job in jobs.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_plans_the_very_same_jobs(name: str, folders: Path, tmp_path: Path) -> None:
    matrix, variables = located(name, folders)
    plan = make_plan(matrix, output_dir=tmp_path, variables=variables)
    assert plan.matrix is not None
    preflight.write_run_file(tmp_path, plan.matrix)
    kept = tmp_path / "matrix.yaml"
    text = kept.read_text()
    assert "extends" not in yaml.safe_load(text)
    assert "${" not in text
    data = {key: value for key, value in variables.items() if key == "HARNESS_DATA"}  # which tasks read by themselves
    assert jobs_of(str(kept), tmp_path, variables=data) == jobs_of(matrix, tmp_path, variables=variables)


@pytest.fixture
def sweep(tiny: Content) -> Content:
    """All that makes a matrix short."""
    tiny["data"]["other"] = {"small_world": "teacher", "limit": 24}
    tiny["methods"] = {"sft": {"axes": ["rate"]}, "hot": {"method": "kd", "temperature": 4.0}}
    tiny["groups"] = {"soft": ["kd", "hot"]}
    tiny["pairs"] = [{"teacher": "teacher", "student": ["same"], "methods": ["sft", "soft"]}]
    tiny["axes"] = {
        "rate": {"low": {"training": {"learning_rate": 1e-4}}, "high": {"training": {"learning_rate": 1e-3}}},
        "kd_rate": [0.25, 0.5],
        "data": ["student", "other"],
    }
    tiny["exclude"] = [
        {"method": "hot", "rate": "low"},
        {"method": "kd+high+kd_rate-0.5", "data": "other", "task": "small_math"},
    ]
    tiny["include"] = [{"teacher": "teacher", "student": "cross", "method": "dskd-v2-eta", "seed": [5, 6]}]
    tiny["seeds"] = [1, 2]
    return tiny


def test_a_sweep_is_kept_as_plain_pairs_and_methods(
    sweep: Content, write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    path = write_matrix(sweep)
    plan = make_plan(str(path), output_dir=tmp_path / "run", add_methods=["gkd"])
    assert plan.matrix is not None
    write_resolved(tmp_path / "run", plan.matrix)
    kept = tmp_path / "run" / "matrix.yaml"
    content = yaml.safe_load(kept.read_text())
    assert "axes" not in content
    assert content["methods"]["kd+low+kd_rate-0.25"] == {
        "method": "kd",
        "training": {"learning_rate": 1e-4},
        "kd_rate": 0.25,
        "axes": {"rate": "low", "kd_rate": "0.25"},
    }
    assert [(pair["student"], pair.get("data")) for pair in content["pairs"]] == [
        ("same", "student"),
        ("same", "other"),
    ]
    again = jobs_of(str(kept), tmp_path / "run")
    assert again == jobs_of(str(path), tmp_path / "run", add_methods=["gkd"])
    assert any(title.startswith("train teacher__same+other/gkd/") for title, _, _ in again.values())
    only = {"only": ["rate=low", "method=soft"], "skip": ["seed=2"]}
    assert jobs_of(str(kept), tmp_path / "run", **only) == jobs_of(str(path), tmp_path / "run", **only)
    assert resolved_text(read_matrix(kept)) == kept.read_text()


def test_one_that_says_the_same_is_not_written_again_and_a_users_file_stays(
    tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    matrix, kept = read_matrix(write_matrix(copy.deepcopy(tiny))), tmp_path / "run" / "matrix.yaml"
    write_resolved(kept.parent, matrix)
    before = kept.stat()
    write_resolved(kept.parent, matrix)
    assert kept.stat().st_ino == before.st_ino
    tiny["seeds"] = [3]
    write_resolved(kept.parent, read_matrix(write_matrix(tiny)))
    assert yaml.safe_load(kept.read_text())["seeds"] == [3]
    kept.write_text("# mine\n")
    write_resolved(kept.parent, matrix)
    assert kept.read_text() == "# mine\n"
    assert caplog.messages == [f"{kept}: is a file of your own and stays; the matrix of this run is not saved"]


def test_a_run_whose_folder_holds_the_users_own_file_leaves_it_as_it_is(
    tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    path = write_matrix(tiny)
    plan, before = make_plan(str(path), output_dir=path.parent), path.read_text()
    assert plan.matrix is not None
    preflight.write_run_file(path.parent, plan.matrix)
    assert path.read_text() == before
    assert (path.parent / "run.json").is_file()


def test_secrets_stay_variables() -> None:
    content = {
        "url": "https://me:pass@word@host/v1",
        "head": "${MODELS}",
        "from_variable": "Bearer 12345 for us",
        "tokenizer": "models/t",
        "api_key": "sk-1",
        "headers": [{"Authorization": "Bearer 9"}],
        "parameters": {"eos_token": "</s>", "max_tokens": 3, "hf_token": "hf_x"},
        "set": "https://${LOGIN}@host",
    }
    assert without_secrets(content, {"MY_TOKEN": "12345", "TOKENIZER": "models/t", "EMPTY_SECRET": ""}) == {
        **content,
        "url": "https://${LOGIN}@host/v1",
        "from_variable": "Bearer ${MY_TOKEN} for us",
        "api_key": "${API_KEY}",
        "headers": [{"Authorization": "${AUTHORIZATION}"}],
        "parameters": {"eos_token": "</s>", "max_tokens": 3, "hf_token": "${HF_TOKEN}"},
    }


def test_a_secret_of_a_model_is_asked_for_again(
    tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["models"]["far"] = {
        "chat": "http://127.0.0.1:8000",
        "parameters": {"user": "${JUDGE_TOKEN}", "top_p": 0.9},
        "model": "${FAR_MODEL}",
    }
    values = {"JUDGE_TOKEN": "s3cret-value", "FAR_MODEL": "big"}
    text = resolved_text(read_matrix(write_matrix(tiny), values))
    assert "s3cret-value" not in text
    assert yaml.safe_load(text)["models"]["far"] == {
        "chat": "http://127.0.0.1:8000",
        "parameters": {"user": "${JUDGE_TOKEN}", "top_p": 0.9},
        "model": "big",
    }
    kept = tmp_path / "kept.yaml"
    kept.write_text(text)
    monkeypatch.setenv("JUDGE_TOKEN", "s3cret-value")
    assert read_matrix(kept).models["far"].parameters == {"user": "s3cret-value", "top_p": 0.9}  # type: ignore[union-attr]
