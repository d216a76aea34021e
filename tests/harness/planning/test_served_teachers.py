"""Planning with teachers behind an address: what is asked for, what has to be reachable, and what does not go together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.config.selection import cells
from harness.planning.plan import Plan, make_plan
from harness.steps.endpoint_responses import EndpointResponses
from harness.steps.served_model import ServedModel
from harness.steps.teacher_cache import TeacherCache
from harness.steps.training import Train
from helpers.plan_world import write_folders

Content = dict[str, Any]
Planned = Callable[..., Plan]
URL = "http://127.0.0.1:8000"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "folders")


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path, folders: Path) -> Planned:
    """A plan of a matrix with a served teacher; more keys of it, and of the whole matrix."""

    def plan(method: str = "kd", teacher: Content | None = None, run: str = "run", **more: Any) -> Plan:
        served = {"served": URL, "model": "big", "head": str(folders / "teacher")} if teacher is None else teacher
        content = {
            "schema_version": 1,
            "name": "served",
            "data": {"train": {"file": str(folders / "train.jsonl")}},
            "models": {"big": served, "student": {"path": str(folders / "student")}},
            "pairs": [{"teacher": "big", "student": "student", "methods": [method]}],
            "training": {"data": "train", "steps": 3},
            "teacher_outputs": {"kind": "live"},
            "seeds": [0],
            "tasks": {},
            **more,
        }
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / run)

    return plan


def only_training(plan: Plan) -> Train:
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Train))
    return step


def test_a_live_served_teacher_is_asked_by_the_training_and_has_to_be_reachable(plan_of: Planned) -> None:
    plan = plan_of()
    step = only_training(plan)
    assert isinstance(step.teacher, ServedModel)
    asked = step.teacher.served(step.teacher_outputs or {})
    assert (asked.addresses, asked.model, asked.kind, asked.dtype) == ((URL,), "big", "hidden_states", "bfloat16")
    assert plan.reaches() == {"big": {URL: 1}}
    assert not any(job.kind == "model" for job in plan.jobs.values())
    # The local copy is asked once, before the training compares the server with it.
    assert step.reference is not None
    assert [job.kind for job in plan.jobs.values()].count("teacher-reference") == 1


def test_a_server_that_quantises_is_not_compared_with_the_local_copy(plan_of: Planned, folders: Path) -> None:
    teacher = {"served": URL, "model": "big", "head": str(folders / "teacher")}
    step = only_training(plan_of(teacher=teacher | {"local_copy": False}))
    assert step.reference is None
    assert step.fingerprint.hash == only_training(plan_of(teacher=teacher)).fingerprint.hash


def test_a_cache_of_a_served_teacher_asks_once_for_all_trainings(plan_of: Planned) -> None:
    plan = plan_of(teacher_outputs={"kind": "hidden_states"}, seeds=[0, 1, 2])
    caches = [job.step for job in plan.jobs.values() if isinstance(job.step, TeacherCache)]
    assert len(caches) == 1
    assert plan.reaches() == {"big": {URL: 1}}


def test_a_cache_of_any_kind_is_made_of_hidden_states_where_the_teacher_gives_them(
    plan_of: Planned, folders: Path
) -> None:
    teacher = {"served": URL, "completions": "http://127.0.0.1:9", "model": "big", "head": str(folders / "teacher")}
    plan = plan_of(teacher=teacher, teacher_outputs={"kind": "top_k", "k": 4, "temperature": 2.0})
    (cache,) = (job.step for job in plan.jobs.values() if isinstance(job.step, TeacherCache))
    assert cache.served is not None
    assert (cache.served.kind, cache.served.addresses) == ("hidden_states", (URL,))
    assert plan.reaches() == {"big": {URL: 1}}


def test_where_the_server_is_and_how_it_is_reached_is_no_part_of_an_identity(plan_of: Planned, folders: Path) -> None:
    teacher = {"served": URL, "model": "big", "head": str(folders / "teacher")}
    first = only_training(plan_of(teacher=teacher))
    elsewhere = teacher | {"served": ["http://a:1", "http://b:2"], "timeout": 5, "in_flight": 9, "api_key_env": "KEY"}
    assert only_training(plan_of(teacher=elsewhere)).fingerprint.hash == first.fingerprint.hash
    for other in ({"model": "bigger"}, {"dtype": "float16"}, {"head": str(folders / "student")}):
        assert only_training(plan_of(teacher=teacher | other)).fingerprint.hash != first.fingerprint.hash


def test_a_teacher_behind_an_address_has_no_row_of_its_own(plan_of: Planned) -> None:
    matrix = plan_of().matrix
    assert matrix is not None
    assert [cell.student for cell in cells(matrix)] == ["student"]


def test_top_k_and_the_text_come_from_completions(plan_of: Planned, folders: Path) -> None:
    teacher = {"completions": f"{URL}/", "model": "big", "tokenizer": str(folders / "teacher")}
    outputs = {"kind": "top_k", "live": True, "k": 8}
    step = only_training(plan_of("gkd", teacher=teacher, teacher_outputs=outputs))
    assert isinstance(step.teacher, ServedModel)
    asked = step.teacher.served(step.teacher_outputs or {})
    assert (asked.kind, asked.k, asked.addresses) == ("top_k", 8, (URL,))
    assert step.teacher.head is None


@pytest.mark.parametrize(
    ("method", "teacher", "outputs", "message"),
    [
        ("kd", {"completions": URL, "tokenizer": "teacher"}, {"kind": "live"}, "big: has no address for hidden_states; fix: give `served`"),
        ("kd", {"served": URL, "head": "teacher"}, {"kind": "top_k", "live": True, "k": 8}, "has no address for top_k; fix: give `completions`"),
        (
            "kd",
            {"completions": URL, "tokenizer": "teacher"},
            {"kind": "top_k", "live": True, "k": 8},
            "temperature of kd to 1: a server gives the distributions at no other",
        ),
        ("kd", {"completions": URL, "tokenizer": "teacher"}, {"kind": "top_k"}, "gives distributions at temperature 1 alone; fix: teacher_outputs"),
        ("dskd-v2", {"completions": URL, "tokenizer": "teacher"}, {"kind": "top_k", "live": True}, "dskd-v2 cannot learn from top_k"),
        ("kd", {"chat": URL}, {"kind": "live"}, "matrix.yaml: models.big: has no address for hidden_states; fix: give `served`"),
        ("kd", {"served": URL}, {"kind": "live"}, "`served` gives hidden states, which need the output head; fix: give `head`"),
        ("kd", {"completions": URL}, {"kind": "live"}, "is asked in tokens; fix: give `tokenizer`"),
        ("kd", {"served": "host:8000", "head": "teacher"}, {"kind": "live"}, "is no address; fix: give it as http://127.0.0.1:8000"),
        ("kd", {"served": "http://me:word@host", "head": "teacher"}, {"kind": "live"}, "holds a password"),
        ("kd", {"served": [URL, URL], "head": "teacher"}, {"kind": "live"}, "is there twice"),
        ("kd", {"served": URL, "head": "teacher", "samples": 2}, {"kind": "live"}, "`samples` means nothing without `completions` or `chat`"),
        ("kd", {"chat": URL, "dtype": "float16"}, {"kind": "live"}, "`dtype` means nothing without `served`"),
        ("kd", {"served": URL, "head": "nowhere"}, {"kind": "live"}, "models.big.head: no folder"),
        ("kd", {"served": 5, "head": "teacher"}, {"kind": "live"}, "models.big.served: is no address and no list of addresses"),
        ("kd", {"served": URL, "head": "teacher"}, {"kind": "top_k", "live": True, "temperature": 1.0}, "nothing with kind: top_k, live: true"),
        ("minillm", {"served": URL, "head": "teacher"}, {"kind": "live"}, "which a served one does not do token by token"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(
    plan_of: Planned, folders: Path, method: str, teacher: Content, outputs: Content, message: str
) -> None:
    placed = {key: str(folders / value) if key in {"head", "tokenizer"} else value for key, value in teacher.items()}
    on_policy = {"training": {"data": "train", "steps": 3, "rollouts": {"share": 1.0}}} if method == "minillm" else {}
    with pytest.raises(InputError) as error:
        plan_of(method, teacher=placed, teacher_outputs=outputs, **on_policy)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "word@" not in str(error.value)


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(plan_of: Planned, folders: Path) -> None:
    teacher = {"served": URL, "head": str(folders / "teacher"), "api_key_env": "sk-secret-1"}
    with pytest.raises(
        InputError, match=r"big\.api_key_env: is no name of an environment variable; fix: give its name"
    ) as error:
        plan_of(teacher=teacher)
    assert "secret" not in str(error.value)


def test_responses_come_from_the_address_that_writes_text(plan_of: Planned) -> None:
    teacher = {"chat": f"{URL}/v1", "model": "big", "samples": 2, "price": {"prompt": 0.5, "completion": 1.5}}
    plan = plan_of("seqkd", teacher=teacher)
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, EndpointResponses))
    assert (step.teacher.api, step.teacher.addresses, step.samples) == ("chat", (f"{URL}/v1",), 2)
    assert plan.reaches() == {"big": {f"{URL}/v1": 1}}
    text = {"teacher": {"samples": 3, "max_new_tokens": 64}}
    plan = plan_of("sft", teacher=teacher, text=text)
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, EndpointResponses))
    assert (step.samples, step.temperature, step.max_new_tokens) == (3, 1.0, 64)
    with pytest.raises(InputError, match=r"models.big.model: is missing, and a request for text names it"):
        plan_of("seqkd", teacher={"chat": URL})
    with pytest.raises(
        InputError, match=r"models.big.price: .*completion.*is missing|models.big.price.completion: is missing"
    ):
        plan_of("seqkd", teacher=teacher | {"price": {"prompt": 1}})


def test_a_student_is_no_model_behind_an_address(plan_of: Planned, folders: Path) -> None:
    pairs = [{"teacher": "student", "student": "big", "methods": ["kd"]}]
    with pytest.raises(InputError, match=r"pairs.0.student: 'big' does not run here; fix: name a model with path"):
        plan_of(pairs=pairs)
