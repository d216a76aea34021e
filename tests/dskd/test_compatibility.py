"""dskd/compatibility.py: which settings go together, each rule asked by itself, and without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from dskd import methods
from dskd.compatibility import RoleDifference, check, check_several, learning_of, require
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
        (
            "kd",
            {"teacher_outputs": "top_k", "source": "served"},
            "teacher_outputs.temperature",
            "at temperature 1, but kd compares them at 2",
        ),
        (
            "gold",
            {"teacher_outputs": "text_log_probabilities", "source": "served"},
            "teacher_outputs.kind",
            "gold cannot learn from text_log_probabilities",
        ),
        ("x-token", {"rollouts": {}, "source": "cache"}, "training.rollouts", "a cached teacher cannot judge"),
        (
            "gkd",
            {"teacher_outputs": "top_k", "source": "live"},
            "teacher_outputs.kind",
            "a teacher that runs in the training gives hidden states, not top_k",
        ),
        (
            "gkd",
            {"rollouts": {}, "teacher_outputs": "top_k", "source": "cache"},
            "training.rollouts",
            "a cached teacher cannot judge",
        ),
        (
            "minillm",
            {"rollouts": {"share": 1.0}, "source": "served"},
            "training.rollouts",
            "minillm samples from the teacher too",
        ),
        (
            "opd",
            {"rollouts": {"share": 1.0, "staleness": 2, "temperature": 0.5}, "options": {"temperature": 0.5}},
            "training.rollouts.staleness",
            "opd weighs text that is older than the step",
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
    method = methods.get(name)(settings.pop("options", None))
    problems = check(method, rollouts=None if rollouts is None else RolloutOptions(**rollouts), **settings)
    assert [problem.key for problem in problems] == [key]
    assert message in problems[0].message
    assert problems[0].text("FILE") == f"FILE: {problems[0].message}; fix: {problems[0].fix}"
    with pytest.raises(InputError, match=message):
        require(problems)


@pytest.mark.parametrize(
    ("name", "kind", "fix"),
    [
        (
            "alm",
            "text_log_probabilities",
            "kind: hidden_states, or set append_space: false, merge_by_space_prob: false",
        ),
        ("strict-kd", "top_k", "kind: hidden_states, or set outside: one_outcome, top_k: 0"),
        (
            "dskd-v2",
            "top_k",
            "kind: hidden_states, or only the methods that can (distillm, gkd, kd, opd-student-top-k, opd-top-k, strict-kd, uld)",
        ),
        (
            "uld",
            "text_log_probabilities",
            "kind: hidden_states, or only the methods that can (alm, g-opd, iw-opd, opd, opd-chunks)",
        ),
        (
            "simct",
            "text_log_probabilities",
            "kind: hidden_states, or only the methods that can (alm, g-opd, iw-opd, opd, opd-chunks)",
        ),
    ],
)
def test_the_fix_names_the_options_with_which_a_method_can_learn_or_the_methods_that_can(
    name: str, kind: str, fix: str
) -> None:
    (problem,) = check(methods.get(name)(), teacher_outputs=kind, source="served")
    assert (problem.key, problem.fix) == ("teacher_outputs.kind", fix)


@pytest.mark.parametrize("source", ["cache", "served"])
@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("kd", "top_k", {"temperature": 1.0}),
        ("gkd", "top_k", {}),
        ("distillm", "top_k", {}),
        ("uld", "top_k", {}),
        ("strict-kd", "top_k", {"outside": "one_outcome"}),
        ("alm", "text_log_probabilities", {"append_space": False, "merge_by_space_prob": False}),
    ],
)
def test_a_method_learns_from_log_probabilities_of_a_cache_and_of_a_server(
    name: str, kind: str, options: dict[str, Any], source: Any
) -> None:
    temperature = 1.0 if source == "cache" else None  # that of a server is known
    method = methods.get(name)(options)
    assert not check(method, teacher_outputs=kind, source=source, top_k_temperature=temperature)


def test_what_the_student_writes_is_judged_by_the_top_k_of_a_server() -> None:
    for name in ("gkd", "distillm"):
        rollouts = RolloutOptions(share=0.5)
        assert not check(methods.get(name)(), teacher_outputs="top_k", source="served", rollouts=rollouts)


def test_what_the_student_writes_is_judged_by_a_server_that_says_how_probable_it_is() -> None:
    for name in ("opd", "iw-opd", "g-opd", "opd-chunks"):
        settings = {"teacher_outputs": "text_log_probabilities", "rollouts": RolloutOptions(share=1.0)}
        assert not check(methods.get(name)(), source="served", **settings)
        (problem,) = check(methods.get(name)(), source="cache", **settings)
        assert problem.key == "training.rollouts"
        warmer = {**settings, "rollouts": RolloutOptions(share=1.0, temperature=1.5)}
        (problem,) = check(methods.get(name)({"temperature": 1.5}), source="served", **warmer)
        assert problem.fix == "kind: hidden_states, or set temperature: 1"


def test_a_control_without_a_teacher_writes_its_text_all_the_same() -> None:
    assert not check(methods.get("opd-control")(), rollouts=RolloutOptions(share=1.0), has_teacher=False)
    (problem,) = check(
        methods.get("opd-control")({"advantage": "teacher"}), rollouts=RolloutOptions(share=1.0), has_teacher=False
    )
    assert problem.message == "opd-control needs a teacher"


@pytest.mark.parametrize("name", ["g-opd", "opd-control"])
def test_what_reads_one_reference_or_no_teacher_has_no_several_teachers(name: str) -> None:
    (problem,) = check_several(methods.get(name)())
    assert problem.key == "teachers"
    assert problem.fix.startswith("give one teacher")


def test_a_method_that_reads_the_teachers_padding_learns_from_a_live_one_alone() -> None:
    as_published = methods.get("dskd.upstream.methods:DualSpaceV1CrossModelAttention")({"upstream_parity": True})
    assert [(learning.kind, learning.sources) for learning in learning_of(as_published.requires)] == [
        ("hidden_states", ("live",))
    ]


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_what_goes_together_has_no_problems(name: str) -> None:
    method = methods.get(name)()
    rollouts = RolloutOptions(share=1.0) if method.requires.on_policy == "always" else None
    assert not check(method, rollouts=rollouts, same_vocabulary=True, shared_tokens=3)


def test_the_rules_need_no_torch() -> None:
    code = "import sys, dskd.compatibility; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
