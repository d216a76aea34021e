"""dskd/compatibility.py: which settings go together, each rule asked by itself, and without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dskd import methods
from dskd.compatibility import RoleDifference, check, require
from dskd.errors import InputError
from dskd.rollouts.rollouts import RolloutOptions


@pytest.mark.parametrize(
    ("name", "settings", "key", "message"),
    [
        ("sft", {"rollouts": {}}, "training.rollouts", "sft learns from the data's text alone"),
        ("minillm", {}, "training.rollouts", "minillm learns from on-policy text alone"),
        (
            "minillm",
            {"rollouts": {"share": 1.0, "replay": {"schedule": "mixed"}}},
            "training.rollouts.replay",
            "as it is now",
        ),
        ("minillm", {"rollouts": {"share": 1.0, "engine": "vllm"}}, "training.rollouts.engine", "the teacher too"),
        (
            "kd",
            {"rollouts": {}, "teacher_outputs": "top_k", "source": "cache"},
            "training.rollouts",
            "a cached teacher cannot judge",
        ),
        (
            "dskd-v2",
            {"teacher_outputs": "top_k", "source": "cache"},
            "teacher_outputs.kind",
            "dskd-v2 cannot learn from top_k",
        ),
        (
            "kd",
            {"teacher_outputs": "top_k", "source": "cache", "top_k_temperature": 1.0},
            "teacher_outputs.temperature",
            "at temperature 1, but kd compares them at 2",
        ),
        ("kd", {"same_vocabulary": False}, "method", "kd needs one vocabulary, but teacher and student have different"),
        (
            "kd",
            {"same_vocabulary": True, "roles": RoleDifference("eos", "'</s>' (id 2)", "'<end>' (id 7)")},
            "method",
            "teacher and student: the teacher ends a text with '</s>'",
        ),
        ("dskd-v2-eta", {"shared_tokens": 0}, "pair", "teacher and student share no token"),
        ("kd", {"has_teacher": False}, "teacher", "kd needs a teacher"),
    ],
)
def test_each_rule_names_the_setting_at_fault(name: str, settings: dict[str, Any], key: str, message: str) -> None:
    rollouts = settings.pop("rollouts", None)
    problems = check(methods.get(name)(), rollouts=None if rollouts is None else RolloutOptions(**rollouts), **settings)
    assert [problem.key for problem in problems] == [key]
    assert message in problems[0].message
    assert problems[0].text("FILE") == f"FILE: {problems[0].message}; fix: {problems[0].fix}"
    with pytest.raises(InputError, match=message):
        require(problems)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_what_goes_together_has_no_problems(name: str) -> None:
    method = methods.get(name)()
    rollouts = RolloutOptions(share=1.0) if method.requires.on_policy == "always" else None
    assert not check(method, rollouts=rollouts, same_vocabulary=True, shared_tokens=3)


def test_the_rules_need_no_torch() -> None:
    code = "import sys, dskd.compatibility; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
