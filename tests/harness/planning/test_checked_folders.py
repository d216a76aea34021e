"""A model folder that lies is refused before a run writes anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.planning import preflight
from harness.planning.plan import Plan
from harness.planning.single_evaluation import evaluation_plan
from harness.planning.single_training import single_plan
from helpers.llama_folders import LFS_POINTER, change_json, write_adapter, write_llama


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("good"))


@pytest.fixture
def teacher(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "teacher"))


def plan_of(student: Path, teacher: Path, output: Path, **template: Any) -> Plan:
    data = output.with_name("data.jsonl")
    keys = ("instruction", "output") if template else ("prompt", "output")
    data.write_text("".join(json.dumps(dict(zip(keys, (f"Say {k}.", f" {k}"), strict=True))) + "\n" for k in range(4)))
    return single_plan(
        **{
            "teacher": teacher,
            "student": student,
            "data": data,
            "method": "kd",
            "method_options": {},
            "output": output,
        },
        **{
            "training": {"steps": 1},
            "teacher_outputs": {},
            "launch": {},
            "template": template,
            "seed": 0,
            "limit": None,
        },
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_refused_by_the_plan_itself(
    good: Path, teacher: Path, tmp_path: Path, name: str
) -> None:
    (teacher / name).write_text(LFS_POINTER)
    with pytest.raises(InputError, match=rf"--teacher: .*{name}: is a pointer of git-lfs.*; fix: `git lfs pull`"):
        plan_of(good, teacher, tmp_path / "out")


def _cut_off(teacher: Path) -> None:
    file = teacher / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut_off, r"model\.safetensors: was cut off"),
        (
            lambda folder: change_json(folder / "config.json", vocab_size=464),
            "vocab_size is 464, but lm_head.weight has 392 rows",
        ),
        (lambda folder: change_json(folder / "config.json", num_hidden_layers=1), "but the weights have 2 layers"),
    ],
)
@pytest.mark.parametrize("template", [{}, {"kind": "alpaca"}])  # with one, a copy is made of the model
def test_weights_that_are_not_whole_or_do_not_fit_are_refused_before_a_run(
    good: Path, teacher: Path, tmp_path: Path, damage: Callable[[Path], None], words: str, template: dict[str, Any]
) -> None:
    preflight.check(plan_of(good, teacher, tmp_path / "out", **template), allow_code_execution=False)
    damage(teacher)
    plan = plan_of(good, teacher, tmp_path / "out", **template)
    with pytest.raises(InputError, match=words) as caught:
        preflight.check(plan, allow_code_execution=False)
    assert str(teacher) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_base_model_of_an_adapter_is_looked_at_too(good: Path, teacher: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", teacher)
    _cut_off(teacher)
    for plan in (plan_of(good, adapter, tmp_path / "out"), _evaluation(adapter, tmp_path / "ev")):
        with pytest.raises(InputError, match=r"teacher/model\.safetensors: was cut off"):
            preflight.check(plan, allow_code_execution=False)


def _evaluation(model: Path, output: Path) -> Plan:
    return evaluation_plan(
        **{
            "model": model,
            "name": None,
            "tasks": ["small_math"],
            "limit": 2,
            "max_new_tokens": 4,
            "protocol": "greedy",
        },
        **{"evaluation": {}, "add_bos_token": False, "template": {}, "output": output, "allow_code_execution": False},
    )
