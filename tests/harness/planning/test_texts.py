"""Who writes the text, as jobs: the same identities as the older keys, what is made once, and what does not go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.planning.plan import Plan, make_plan
from harness.planning.single_training import single_plan
from harness.steps.data import PreparedData
from harness.steps.kept_responses import KeptResponses
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.text_mixture import TextMixture
from harness.steps.training import Train
from helpers.plan_world import write_folders

Content = dict[str, Any]
SAME, CROSS = {"teacher": "teacher", "student": "same"}, {"teacher": "teacher", "student": "cross"}


@pytest.fixture
def plan_of(tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path) -> Callable[..., Plan]:
    def planned(**keys: Any) -> Plan:
        return make_plan(str(write_matrix({**tiny, **keys})), output_dir=tmp_path / "run")

    return planned


def trainings(plan: Plan) -> dict[str, Train]:
    """By `student/method`."""
    steps = [job.step for job in plan.jobs.values() if isinstance(job.step, Train)]
    return {step.id.removeprefix("train:teacher__").removesuffix("/seed1"): step for step in steps}


def steps_of(plan: Plan, kind: type[Any]) -> list[Any]:
    return [job.step for job in plan.jobs.values() if isinstance(job.step, kind)]


def test_texts_are_the_trainings_that_older_keys_ask_for(plan_of: Callable[..., Plan]) -> None:
    """Nothing that was trained by `seqkd`, or with `rollouts.share`, is trained again for being said otherwise."""
    own = {"teacher_outputs": {"kind": "live"}}
    before = trainings(
        plan_of(
            pairs=[{**SAME, "methods": ["sft", "seqkd", "drawn", "kd", "on", "half"]}],
            methods={
                "drawn": {"method": "seqkd", "answer_temperature": 0.7, "max_new_tokens": 64},
                "on": {"method": "kd", "training": {"rollouts": {"share": 1.0, "max_new_tokens": 8}}, **own},
                "half": {"method": "kd", "training": {"rollouts": {"share": 0.5, "top_p": 0.9}}, **own},
            },
        )
    )
    now = trainings(
        plan_of(
            pairs=[{**SAME, "methods": ["sft", "drawn", "kd", "half"]}],
            methods={
                "drawn": {"method": "sft", "axes": [], "text": {"teacher": {"temperature": 0.7, "max_new_tokens": 64}}},
                "half": {"method": "kd", "axes": [], "text": {"data": 0.5, "student": {"top_p": 0.9}}},
            },
            axes={"text": ["data", "teacher", {"student": {"max_new_tokens": 8}}]},
            exclude=[{"method": "sft", "text": "student*"}],
        )
    )
    same = {
        "same/sft": "same/sft", "same/seqkd": "same/sft+teacher", "same/drawn": "same/drawn",
        "same/kd": "same/kd", "same/on": "same/kd+student-max_new_tokens-8", "same/half": "same/half",
    }  # fmt: skip
    for old, new in same.items():
        assert before[old].fingerprint.hash == now[new].fingerprint.hash, old
    assert len({step.fingerprint.hash for step in before.values()}) == len(before)


def test_the_teacher_answers_once_for_all_students_and_methods(plan_of: Callable[..., Plan]) -> None:
    pairs = [{**SAME, "methods": ["sft", "kd"]}, {**CROSS, "methods": ["sft", "uld"]}]
    plan = plan_of(pairs=pairs, text="teacher", seeds=[1, 2])
    (responses,) = steps_of(plan, TeacherResponses)
    (cache,) = steps_of(plan, TeacherCache)
    assert cache.data.examples == responses
    made = steps_of(plan, Train)
    assert len(made) == 8
    assert {step.data.examples for step in made} == {responses}
    # Distillation on the teacher's text reads it in the tokens of both.
    assert trainings(plan)["same/kd"].data.teacher_tokenizer is not None
    assert trainings(plan)["same/kd"].cache == cache


def test_what_is_kept_is_chosen_from_the_same_responses(plan_of: Callable[..., Plan]) -> None:
    texts = [{"teacher": {"samples": 4, "keep": keep}} for keep in ("all", "right", "shortest_right")]
    plan = plan_of(pairs=[{**SAME, "methods": ["kd"]}], axes={"text": texts})
    (responses,) = steps_of(plan, TeacherResponses)
    assert (responses.samples, responses.temperature) == (4, 1.0)
    kept = steps_of(plan, KeptResponses)
    assert [(step.keep, step.responses) for step in kept] == [("right", responses), ("shortest_right", responses)]
    assert {*kept[0].scorers} == {"small_instruct", "small_math", "small_code"}
    assert len({step.fingerprint.hash for step in trainings(plan).values()}) == 3
    # Four examples a prompt at most, and one of the shortest.
    lengths = [step.data.lengths.examples for step in trainings(plan).values()]
    assert lengths == [96, 96, 24]


def test_programs_are_scored_only_where_that_is_allowed(plan_of: Callable[..., Plan]) -> None:
    def kept(**teacher: Any) -> KeptResponses:
        plan = plan_of(pairs=[{**SAME, "methods": ["kd"]}], text={"teacher": {"keep": "right", **teacher}})
        (step,) = steps_of(plan, KeptResponses)
        return step

    with pytest.raises(InputError, match=r"task small_code: it runs the code .*; fix: pass --allow-code-execution"):
        kept().preflight(Path("run"))
    assert kept(task="small_math").preflight(Path("run")) == ()
    allowed = kept().model_copy(update={"allow_code_execution": True})
    assert allowed.fingerprint.hash == kept().fingerprint.hash


def test_a_mixture_is_made_of_what_the_teacher_and_the_data_have(plan_of: Callable[..., Plan]) -> None:
    text = {"teacher": 0.5, "data": 0.3, "student": 0.2}
    plan = plan_of(pairs=[{**SAME, "methods": ["kd"]}, {**CROSS, "methods": ["uld"]}], text=text)
    (mixture,) = steps_of(plan, TextMixture)
    assert mixture.share == pytest.approx(0.625)
    for step in trainings(plan).values():
        assert step.data.examples == mixture
        assert step.training.rollouts is not None
        assert step.training.rollouts.share == 0.2
        assert (step.cache, step.teacher_outputs) == (None, {"kind": "live"})
    without = plan_of(pairs=[{**SAME, "methods": ["kd", "sft"]}], text={"teacher": 0.5, "data": 0.5})
    (cache,) = steps_of(without, TeacherCache)
    assert isinstance(cache.data.examples, TextMixture)
    # As with the data's text alone, fine-tuning sees the examples that the other methods of its pair see.
    assert len({step.data.fingerprint.hash for step in trainings(without).values()}) == 1
    assert trainings(without)["same/sft"].method == "sft"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text": "student"}, r"matrix.yaml: text: sft cannot learn from the student's text; fix: .* kd,"),
        (
            {"axes": {"text": ["data", "student"]}},
            r"matrix.yaml: axes.text.1: sft cannot learn from the student's text; fix: give it the data's or the teacher's",
        ),
        (
            {"pairs": [{**SAME, "methods": ["minillm"], "text": "teacher"}]},
            r"matrix.yaml: pairs.0.text: minillm cannot learn from the teacher's text; fix: text: student, or use",
        ),
        (
            {"pairs": [{**SAME, "methods": ["seqkd"]}], "text": "data"},
            r"matrix.yaml: text: seqkd cannot learn from the data's text; fix: text: teacher",
        ),
        (
            {"pairs": [{**SAME, "methods": ["kd"]}], "text": "student", "teacher_outputs": {"kind": "top_k"}},
            r"a cached teacher cannot judge text that is not written yet; fix: teacher_outputs: \{kind: live\}",
        ),
        (
            {"text": {"teacher": {"keep": "right", "task": "bbh"}}},
            r"matrix.yaml: text.teacher.task: task bbh: does not score rows of a training set; fix: one of .*gsm8k",
        ),
        (
            {"text": {"teacher": {"keep": "right", "task": "no_such"}}},
            r"matrix.yaml: text.teacher.task: .*no_such",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(plan_of: Callable[..., Plan], keys: Content, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        plan_of(**keys)
    assert "\n" not in str(refused.value)


def test_a_training_that_is_there_under_two_names_is_told(
    plan_of: Callable[..., Plan], caplog: pytest.LogCaptureFixture
) -> None:
    plan_of(pairs=[{**SAME, "methods": ["seqkd", "sft"]}], methods={"sft": {"text": "teacher"}})
    assert "teacher__same/sft/seed1: is the same training as teacher__same/seqkd/seed1; leave one" in caplog.text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folders = write_folders(tmp_path_factory.mktemp("texts") / "folders")
    rows = [{"prompt": f"a {k}\n", "output": f"b #### {k}"} for k in range(5)]
    (folders / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folders


def one_training(folders: Path, output: Path, **given: Any) -> Train:
    empty: dict[str, Any] = {key: {} for key in ("method_options", "teacher_outputs", "launch", "template")}
    models = {"teacher": folders / "teacher", "student": folders / "student", "data": folders / "numbers.jsonl"}
    asked = {**models, **empty, "method": "kd", "training": {"steps": 3}, "seed": 0, "limit": None, "output": output}
    plan = single_plan(**{**asked, **given})
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Train))
    return step


def test_one_training_takes_text_as_a_matrix_does(folders: Path, tmp_path: Path) -> None:
    def training(**given: Any) -> Train:
        return one_training(folders, tmp_path / "out", **given)

    def identity(**given: Any) -> str:
        return training(**given).fingerprint.hash

    options = {"answer_temperature": 1.0}
    assert identity(method="sft", text="teacher") == identity(method="seqkd")
    drawn = {"teacher": {"temperature": 1.0}}
    assert identity(method="sft", text=drawn) == identity(method="seqkd", method_options=options)
    on_policy = identity(training={"steps": 3, "rollouts": {"share": 1.0}})
    assert identity(text="student") == on_policy
    assert identity(text="data") == identity()
    kept = training(text={"teacher": {"keep": "right", "task": "gsm8k"}})
    assert isinstance(kept.data, PreparedData)
    assert isinstance(kept.data.examples, KeptResponses)
    cached = training(text={"teacher": 0.5, "data": 0.5}, teacher_outputs={"kind": "hidden_states"})
    assert cached.cache is not None
    assert isinstance(cached.cache.data.examples, TextMixture)
    assert cached.cache.data.examples == cached.data.examples


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "me"}, "--text: no text 'me'; fix"),
        (
            {"text": {"teacher": {"keep": "right"}}},
            "--text teacher.task: is missing, and keep: right asks what is right; fix",
        ),
        ({"text": "student", "method": "sft"}, "--text: sft cannot learn from the student's text; fix"),
        (
            {"text": "teacher", "method": "sft", "teacher": None},
            "--method seqkd: needs a teacher; fix: give --teacher DIR",
        ),
        ({"text": "data", "training": {"steps": 3, "rollouts": {"share": 1.0}}}, "--text: rollouts.share: is 1.0, but"),
    ],
)
def test_one_training_with_a_text_that_cannot_be_is_refused(
    folders: Path, tmp_path: Path, given: Content, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        one_training(folders, tmp_path / "out", **given)
    assert str(refused.value).startswith(("harness train: " + message, message))


# --- prompts alone ---


def of_prompts(**entry: Any) -> Content:
    """A pair of one method on the prompts of the small world; entry: its settings."""
    return {
        "data": {"student": {"small_world": "student"}, "prompts": {"small_world": "prompts"}},
        "pairs": [{**SAME, "data": "prompts", "methods": ["own"]}],
        "methods": {"own": entry},
    }


SMALL: Content = {"training": {"data": "student", "steps": 2, "rollouts": {"max_new_tokens": 8}}}
ALONE = ", and data.prompts has prompts alone"
LIVE: Content = {"teacher_outputs": {"kind": "live"}}


@pytest.mark.parametrize(
    "entry",
    [
        {"method": "seqkd"},
        {"method": "sft", "text": {"teacher": {"temperature": 1.0}}},
        {"method": "kd", "text": "teacher"},
        {"method": "kd", "text": {"student": 0.9, "teacher": 0.1}, **LIVE},
    ],
)
def test_prompts_alone_are_trained_on_where_the_teacher_answers_them(
    plan_of: Callable[..., Plan], entry: Content
) -> None:
    plan = plan_of(**of_prompts(**entry), training={"data": "student", "steps": 2})
    (student,) = trainings(plan).values()
    (responses,) = steps_of(plan, TeacherResponses)
    assert isinstance(student.data, PreparedData)
    assert student.data.examples == responses
    assert responses.examples.path(plan.root).name == "prompts.jsonl"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "sft"}, f"own learns from responses of the data{ALONE}; fix: text: teacher, or other data"),
        (
            {"method": "kd", "text": {"data": 0.5, "teacher": 0.5}},
            f"own learns from responses of the data{ALONE}; fix: text: teacher, or other data",
        ),
        (
            {"method": "kd", "text": "student", **LIVE},
            f"own takes the data's response where the student's cannot be used{ALONE}; "
            "fix: text: {student: 0.9, teacher: 0.1}, or other data",
        ),
    ],
)
def test_prompts_alone_are_refused_in_a_line_where_a_response_of_the_data_is_needed(
    plan_of: Callable[..., Plan], entry: Content, message: str
) -> None:
    with pytest.raises(InputError) as raised:
        plan_of(**of_prompts(**entry), **SMALL)
    assert f"pairs.0.methods: {message}" in str(raised.value)


def test_no_model_is_made_from_prompts_alone(plan_of: Callable[..., Plan], tiny: Content) -> None:
    models = tiny["models"]
    models["teacher"]["training"] = [{"data": "prompts", "steps": 1}]
    with pytest.raises(InputError, match=r"data\.prompts: has prompts without responses; fix: text: teacher"):
        plan_of(**{**of_prompts(method="seqkd"), "models": models})
