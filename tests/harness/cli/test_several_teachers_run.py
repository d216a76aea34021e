"""A matrix with a student of several teachers, from its file to the table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Harness = Callable[..., subprocess.CompletedProcess[str]]

EXAMPLES = 12


@pytest.fixture(scope="module")
def planned(tiny_pair: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix with two teachers of two vocabularies, routed and weighted, cached and live."""
    folder = tmp_path_factory.mktemp("several")
    rows = [
        {"prompt": f"Say {k}:", "output": f" it is {k}, and no more.", "teacher": ["maths", "code"][k % 3 == 0]}
        for k in range(EXAMPLES)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = tiny_pair
    models = content["models"]
    models["teacher"].pop("training", None)
    models["maths"], models["code"] = {**models["teacher"], "seed": 7}, {**models["cross"], "seed": 8}
    models["experts"] = {"teachers": ["maths", "code"], "route": "teacher"}
    models["mix"] = {"teachers": {"maths": 0.75, "code": 0.25}}
    content["data"] = {"student": {"file": "data.jsonl"}}
    content["methods"] = {"live-uld": {"method": "uld", "teacher_outputs": {"kind": "live"}}}
    content["pairs"] = [
        {"teacher": "experts", "student": "cross", "methods": ["sft", "dskd-v2-eta"]},
        {"teacher": "mix", "student": "cross", "methods": ["live-uld"]},
    ]
    content["training"] = {"data": "student", "epochs": 2, "batch_size": 6, "max_length": 64, "logging_steps": 1}
    content |= {"seeds": [1], "tasks": {}, "evaluation": {"score_teachers": False}}
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="module")
def folder(planned: Path, harness: Harness) -> Path:
    """The folder of the matrix, which has been run once."""
    for only in (["--only", "teacher=experts"], []):
        run = harness("run", "--matrix", "m.yaml", *only, cwd=planned)
        assert run.returncode == 0, run.stderr
    return planned


def test_a_plan_has_data_and_a_cache_for_each_teacher(planned: Path, harness: Harness) -> None:
    plan = harness("plan", "--matrix", "m.yaml", "--json", cwd=planned)
    assert plan.returncode == 0, plan.stderr
    titles = sorted(job["title"] for job in json.loads(plan.stdout)["jobs"])
    assert titles == sorted(
        [
            "small world",
            *(f"model {name}" for name in ("maths", "code", "cross")),
            # The weighted pair has all rows for each, the routed one its own, which the caches are made of, too.
            *("data student for cross and maths", "data student for cross and code"),
            *(f"data student, rows of {name}, for cross and {name}" for name in ("maths", "code")),
            *(f"data student, rows of {name}, for {name}" for name in ("maths", "code")),
            *(f"teacher cache of {name} on student, rows of {name}" for name in ("maths", "code")),
            *("train experts__cross/sft/seed1", "train experts__cross/dskd-v2-eta/seed1"),
            "train mix__cross/live-uld/seed1",
        ]
    )


def test_a_list_says_which_students_each_of_several_teachers_teaches(planned: Path, harness: Harness) -> None:
    listed = json.loads(harness("list", "models", "--matrix", "m.yaml", "--json", cwd=planned).stdout)
    teaches = {row["model"]: row["teaches"] for row in listed}
    assert (teaches["experts"], teaches["maths"], teaches["cross"]) == (["cross"], ["cross", "cross"], [])


def _report(folder: Path, teacher: str, method: str) -> dict[str, Any]:
    path = folder / f"runs/tiny/cells/{teacher}__cross/{method}/seed1/train/manifest.json"
    return json.loads(path.read_text())["report"]


@pytest.mark.slow
def test_a_run_has_the_figures_of_each_teacher(folder: Path, harness: Harness) -> None:
    reports = {
        key: _report(folder, *key) for key in [("experts", "dskd-v2-eta"), ("experts", "sft"), ("mix", "live-uld")]
    }
    counts = {
        key: {name: own["examples"] for name, own in report["teachers"].items()} for key, report in reports.items()
    }
    assert counts == {
        ("experts", "dskd-v2-eta"): {"maths": 8, "code": 4},
        ("experts", "sft"): {"maths": 8, "code": 4},
        ("mix", "live-uld"): {"maths": EXAMPLES, "code": EXAMPLES},
    }
    losses = reports["experts", "dskd-v2-eta"]["losses"]
    assert {"cross_entropy", "maths/loss", "code/loss", "maths/aligned_share"} <= losses.keys()
    # A cache has the rows that its teacher teaches; a live teacher is asked in the training.
    caches = [json.loads(path.read_text()) for path in (folder / "runs/tiny/artifacts/signals").glob("*/manifest.json")]
    assert sorted(cache["report"]["rows"] for cache in caches) == [4, 8]
    assert reports["experts", "dskd-v2-eta"]["teacher_examples"] == 0
    assert reports["mix", "live-uld"]["teacher_examples"] == 2 * 2 * EXAMPLES
    cell = "experts__cross/dskd-v2-eta/seed1"
    shown = harness("show", cell, "--results", folder / "runs/tiny").stdout
    (figures,) = (line for line in shown.splitlines() if line.startswith("  losses: "))
    assert "maths/loss " in figures
    assert "code/aligned_share " in figures
    (of_each,) = (line for line in shown.splitlines() if line.startswith("  teachers: "))
    assert "maths examples 8, unmatched 0, seconds" in of_each
    assert "code examples 4, unmatched 0, seconds" in of_each
    shown = harness("leaderboard", "--results", folder / "runs/tiny", "--costs", "--format", "json")
    costs = {(row["teacher"], row["method"]): row for row in json.loads(shown.stdout)["costs"]}
    assert costs.keys() == reports.keys()
    assert costs["experts", "dskd-v2-eta"]["signal_seconds"] > 0
    assert 0 < costs["experts", "dskd-v2-eta"]["distilled_share"] <= 1
    assert costs["experts", "sft"]["distilled_share"] is None
    made = json.loads(
        (folder / "runs/tiny/cells/experts__cross/dskd-v2-eta/seed1/train/model/provenance.json").read_text()
    )
    assert made["teacher"] == {**made["teacher"], "name": "experts", "made": "several teachers: maths, code"}
    assert made["examples"] == EXAMPLES


def test_a_row_without_a_teacher_stops_a_run_before_it_begins(planned: Path, harness: Harness) -> None:
    lines = (planned / "data.jsonl").read_text().splitlines(keepends=True)
    (planned / "bad.jsonl").write_text("".join([*lines[:4], lines[4].replace("maths", "poetry"), *lines[5:]]))
    content = yaml.safe_load((planned / "m.yaml").read_text())
    content["name"], content["data"]["student"]["file"] = "bad", "bad.jsonl"
    (planned / "bad.yaml").write_text(yaml.safe_dump(content))
    run = harness("run", "--matrix", "bad.yaml", cwd=planned)
    assert run.returncode != 0
    assert "bad.jsonl:5: 'teacher' is 'poetry', which is no teacher; fix: name one of code, maths" in run.stderr
    assert not (planned / "runs/bad/artifacts").exists()


def test_what_several_teachers_cannot_do_is_refused_by_the_plan(planned: Path, harness: Harness) -> None:
    content = yaml.safe_load((planned / "m.yaml").read_text())
    for method, message in {
        "seqkd": "seqkd learns from the responses of one teacher; fix: name one of maths, code",
        "kd": "kd needs one vocabulary",
    }.items():
        content["pairs"] = [{"teacher": "experts", "student": "cross", "methods": [method]}]
        (planned / "refused.yaml").write_text(yaml.safe_dump(content))
        plan = harness("plan", "--matrix", "refused.yaml", cwd=planned)
        assert plan.returncode != 0
        assert message in plan.stderr
