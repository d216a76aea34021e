"""`harness run` of a matrix that tunes: what is chosen is what is trained, and kills change nothing."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.killed_runs import done, outcome_of, run_and_kill, start
from helpers.training_runs import assert_same_weights, saved_weights

Harness = Callable[..., subprocess.CompletedProcess[str]]
Content = dict[str, Any]
# One setting of three does not train at all.
SPACES = {
    "kd": {
        "kd_rate": {"uniform": [0.3, 1.0]},
        "training.learning_rate": [1e-2, 3e-3, 1e12],
        "temperature": None,
        "divergence": None,
    }
}
TASK = "brevity.py:Brevity:validation"
TUNING = {"budget": 6, "halving": True, "limit": 6, "spaces": SPACES}


@pytest.fixture(scope="module")
def content(tiny_pair: Content) -> Content:
    """Students that learn within some steps to answer in the form of the data, so that validation scores differ."""
    content = copy.deepcopy(tiny_pair)
    learned = {"data": "student", "steps": 60, "batch_size": 8, "max_length": 128, "learning_rate": 1e-2}
    content["models"]["teacher"]["training"] = [learned]
    content["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    content["training"] = {"data": "student", "steps": 40, "batch_size": 8, "max_length": 128, "learning_rate": 1e-6}
    content["tasks"] = {"brevity.py:Brevity": {"limit": 4, "max_new_tokens": 16}}
    return {**content, "seeds": [1, 2], "tuning": TUNING}


@pytest.fixture(scope="module")
def folder(content: Content, tmp_path_factory: pytest.TempPathFactory, harness: Harness) -> Path:
    """The folder of the matrix, which has been run once."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "brevity.py").write_text(BREVITY)
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    run = harness("run", "--matrix", "m.yaml", "--output-dir", "run", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    (folder / "printed.md").write_text(run.stdout)
    return folder


def tuning_of(root: Path, seed: int = 1) -> dict[str, Any]:
    return json.loads((root / f"cells/teacher__same/kd+tuned/seed{seed}/train/result.json").read_text())["tuning"]


def test_records_say_what_was_tried_and_chosen(folder: Path) -> None:
    tuning = tuning_of(folder / "run")
    assert tuning == tuning_of(folder / "run", 2)
    assert tuning["budget"] == {"trials": 6}
    assert tuning["trial_seed"] == 1_000_000
    assert tuning["space"]["kd_rate"] == "0.3 to 1"
    trials = tuning["trials"]
    assert sorted(trial["trial"] for trial in trials) == [*range(6)]
    assert [trial["share"] for trial in trials] == [1.0, 1.0, 0.5, 0.25, 0.25, 0.25]
    assert (tuning["chosen"], tuning["settings"], tuning["score"]) == (
        trials[0]["trial"],
        trials[0]["settings"],
        trials[0]["score"],
    )
    assert tuning["score"] > 0
    diverged = [trial for trial in trials if trial["settings"].get("training.learning_rate") == 1e12]
    assert diverged  # the space has them, and the run did not fail
    assert all(trial["score"] is None and trial["share"] == 0.25 for trial in diverged)
    scored = [trial["score"] for trial in trials if trial["share"] == 1.0]
    assert scored == sorted(scored, reverse=True)
    teacher = tuning["teacher"][TASK]
    assert all(
        trial["score"] == pytest.approx(100 * trial["scores"][TASK] / teacher, abs=1e-5)
        for trial in trials
        if trial["score"] is not None
    )


def test_students_are_those_of_the_chosen_setting(folder: Path, content: Content, harness: Harness) -> None:
    settings = dict(tuning_of(folder / "run")["settings"])
    assert settings, "the default was chosen, so that this shows nothing"
    training = {
        name.removeprefix("training."): settings.pop(name) for name in list(settings) if name.startswith("training.")
    }
    by_hand = {key: value for key, value in content.items() if key != "tuning"}
    by_hand["methods"] = {"by-hand": {"method": "kd", "training": training, **settings}}
    by_hand["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["by-hand"]}]
    (folder / "by-hand.yaml").write_text(yaml.safe_dump(by_hand))
    run = harness("run", "--matrix", "by-hand.yaml", "--output-dir", "by-hand", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    for seed in (1, 2):
        tuned, expected = (
            saved_weights(folder / root / f"cells/teacher__same/{method}/seed{seed}/train")
            for root, method in (("run", "kd+tuned"), ("by-hand", "by-hand"))
        )
        assert_same_weights(expected, tuned, rtol=0, atol=0)


def test_default_and_tuned_are_rows_of_one_table_and_trials_are_in_none(folder: Path) -> None:
    printed = (folder / "printed.md").read_text()
    assert "| kd+tuned " in printed
    assert "| kd  " in printed
    assert ":validation" not in printed


def test_a_second_run_does_nothing_also_without_the_trials(folder: Path, harness: Harness) -> None:
    root = folder / "copy"
    shutil.copytree(folder / "run", root, symlinks=True)
    before = done(root)
    run = harness("run", "--matrix", "m.yaml", "--output-dir", "copy", cwd=folder)
    assert run.returncode == 0
    assert done(root) == before
    shutil.rmtree(root / "artifacts" / "trials")
    shutil.rmtree(root / "artifacts" / "validation")
    run = harness("run", "--matrix", "m.yaml", "--output-dir", "copy", cwd=folder)
    assert run.returncode == 0
    assert done(root) == {
        name: at for name, at in before.items() if "/trials/" not in name and "/validation/" not in name
    }
    collected = harness("gc", "copy", cwd=folder)
    assert collected.returncode == 0, collected.stderr
    assert "rankings" not in collected.stdout


@pytest.mark.slow  # a run, killed again and again
def test_killed_at_any_moment_the_choice_and_the_students_are_the_same(folder: Path) -> None:
    command = ["run", "--matrix", "m.yaml", "--tries", "9", "--jobs", "1", "--output-dir", "killed"]
    moments = iter([(9.0, "both"), (6.0, "worker"), (11.0, "harness")])
    killed = run_and_kill(command, folder, folder / "killed", moments, limit=500)
    assert len(killed.kills) >= 2
    assert killed.twice == []
    assert outcome_of(folder / "run") == outcome_of(folder / "killed")


def test_a_planted_leak_is_refused_before_anything_is_written(folder: Path, content: Content) -> None:
    (folder / "leaky.py").write_text(LEAKY)
    leaky = {**content, "tasks": {"leaky.py:Leaky": {"limit": 2, "max_new_tokens": 4}}}
    (folder / "leaky.yaml").write_text(yaml.safe_dump(leaky))
    process = start(["run", "--matrix", "leaky.yaml", "--output-dir", "leaky"], folder)
    assert process.wait(120) == 2
    printed = (folder / "printed.txt").read_text().splitlines()[-1]
    assert "1 of the 2 validation items of leaky.py:Leaky are test items, as second; fix:" in printed
    assert not (folder / "leaky" / "artifacts").exists()


# A score for students who can hardly write: those that were trained at all end their texts.
BREVITY = """
from harness.metrics.sample import SampleScore, score_each
from harness.smallworld import prompt_of, test_docs, validation_docs
from harness.tasks import Metric, Task


class Brevity(Task):
    name, version, max_new_tokens = "brevity", "1", 16
    metrics = (Metric("brevity", kind="continuous"),)
    validation = "as of the small world"

    def documents(self):
        return [{"id": str(number), **doc} for number, doc in enumerate(test_docs("small_instruct"))]

    def validation_documents(self):
        return [{"id": f"validation/{number}", **doc} for number, doc in enumerate(validation_docs("small_instruct"))]

    def prompt(self, doc):
        return prompt_of("small_instruct", doc)

    def reference(self, doc):
        return doc["output"]

    def score_outputs(self, docs, outputs, advance):
        def score(doc, output):
            return SampleScore({"brevity": 100 / (1 + len(output))}, {}, "scored")

        return score_each(score, docs, outputs, advance)
"""

LEAKY = """
from harness.metrics.sample import SampleScore, score_each
from harness.tasks import Metric, Task


class Leaky(Task):
    name, version, max_new_tokens = "leaky", "1", 8
    metrics = (Metric("exact_match"),)
    validation = "one of these is a test item, in other letters"

    def documents(self):
        return [{"id": "a", "text": "What is the capital of  Peru?"}, {"id": "b", "text": "And of Chile?"}]

    def validation_documents(self):
        return [{"id": "first", "text": "Of Spain?"}, {"id": "second", "text": "what is the Capital of Peru?\\n"}]

    def prompt(self, doc):
        return doc["text"]

    def reference(self, doc):
        return "Lima"

    def score_outputs(self, docs, outputs, advance):
        return score_each(lambda doc, output: SampleScore({"exact_match": 0.0}, {}, "scored"), docs, outputs, advance)
"""
