"""A teacher's answers to a training set: what is kept of them, and that a killed job goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dskd.errors import InputError
from harness.engines.base import Generation
from harness.planning.plan import Plan, make_plan
from harness.runs.identity import Identity
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import JobSpec, OutputSpec
from harness.steps import teacher_responses

Content = dict[str, Any]


class Teacher:
    """An engine that answers a prompt with its capitals; '…' in a prompt has no end, an empty prompt no answer."""

    name = "fake"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.on_finished: Callable[[int], None] = lambda _: None
        self.asked: list[tuple[list[int], list[str]]] = []
        self.settings: dict[str, Any] = {}
        self.generations: list[Generation] = []
        self.closed = False

    def generate_until(self, requests: Sequence[Any]) -> None:
        prompts = [request.args[0] for request in requests]
        self.settings = requests[0].args[1]
        self.asked.append(([request.doc["id"] for request in requests], prompts))
        self.generations = [
            Generation(p.upper(), "length" if "…" in p else "stop", len(p), len(p), p.startswith("long"))
            for p in prompts
        ]
        self.on_finished(len(prompts))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Teacher:
    made = Teacher(0)
    monkeypatch.setattr("harness.engines.create_engine", lambda *_, **__: made)
    monkeypatch.setattr(
        "dskd.modeling.loading.load_tokenizer", lambda _: SimpleNamespace(init_kwargs={}, name_or_path="teacher")
    )
    monkeypatch.setattr("dskd.data.preparation.encode_prompt", lambda _, text: list(text))
    monkeypatch.setattr(teacher_responses, "_BLOCK", 2)
    return made


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., JobContext]:
    def make(prompts: Sequence[str], **arguments: Any) -> JobContext:
        examples = tmp_path / "examples.jsonl"
        examples.write_text("".join(json.dumps({"prompt": p, "output": "theirs"}) + "\n" for p in prompts))
        output = OutputSpec(folder="artifacts/answers/1", identity=Identity.of({}), product="answers.jsonl")
        given = {
            "examples": str(examples),
            "model": "teacher",
            "columns": None,
            "limit": None,
            "max_new_tokens": 9,
            "temperature": 0.0,
            "engine": "auto",
            "dtype": "float32",
            "seed": 5,
            "max_batch_size": None,
        }
        spec = JobSpec(
            id="answers:1",
            kind="answers",
            title="answers",
            runner="harness.steps.teacher_responses",
            root=str(tmp_path / "run"),
            folder=output.folder,
            outputs=[output],
            arguments={**given, **arguments},
        )
        made = JobContext(spec, [output], ProgressChannel())
        made.store.output(output.folder).begin("answers", "answers", output.identity)
        return made

    return make


def written(job: JobContext) -> list[dict[str, str]]:
    return [json.loads(line) for line in (job.folder / "answers.jsonl").read_text().splitlines()]


def test_answers_take_the_place_of_the_data_s_and_those_without_an_end_are_left_out(
    teacher: Teacher, job: Callable[..., JobContext]
) -> None:
    made = job(["one", "two…", "", "long prompt", "é"])
    teacher_responses.run(made)
    assert written(made) == [{"prompt": "one", "output": "ONE"}, {"prompt": "é", "output": "É"}]
    report = made.store.output(made.folder).manifest.report  # type: ignore[union-attr]
    counts = {key: report[key] for key in ("prompts", "kept", "without_end", "empty", "prompt_too_long")}
    assert counts == {"prompts": 5, "kept": 2, "without_end": 1, "empty": 1, "prompt_too_long": 1}
    assert teacher.closed
    assert not (made.folder / "blocks").exists()
    assert teacher.settings == {"max_gen_toks": 9, "do_sample": False}
    # Blocks of two; a prompt's own number decides what is drawn, in whatever block it is asked.
    assert teacher.asked == [([0, 1], ["one", "two…"]), ([2, 3], ["", "long prompt"]), ([4], ["é"])]


def test_a_job_that_was_killed_asks_only_for_what_is_missing(
    teacher: Teacher, job: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["a", "b", "c", "d", "e"]
    made = job(prompts)
    answer = teacher.generate_until

    def killed_in_the_second(requests: Sequence[Any]) -> None:
        if teacher.asked:
            raise KeyboardInterrupt
        answer(requests)

    monkeypatch.setattr(teacher, "generate_until", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        teacher_responses.run(made)
    monkeypatch.setattr(teacher, "generate_until", answer)
    again = job(prompts)
    teacher_responses.run(again)
    assert teacher.asked == [([0, 1], ["a", "b"]), ([2, 3], ["c", "d"]), ([4], ["e"])]
    assert [row["output"] for row in written(again)] == ["A", "B", "C", "D", "E"]


def test_a_limit_and_a_temperature_are_honoured(teacher: Teacher, job: Callable[..., JobContext]) -> None:
    made = job(["a", "b", "c"], limit=1, temperature=0.7)
    teacher_responses.run(made)
    assert [row["prompt"] for row in written(made)] == ["a"]
    assert teacher.settings == {"max_gen_toks": 9, "do_sample": True, "temperature": 0.7}


@pytest.mark.usefixtures("teacher")
def test_a_teacher_that_never_ends_is_an_error(job: Callable[..., JobContext]) -> None:
    with pytest.raises(InputError, match=r"teacher: none of its 2 answers has an end within 9 tokens; fix: raise"):
        teacher_responses.run(job(["a…", "b…"]))


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path) -> Callable[[Content], Plan]:
    return lambda content: make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")


def test_students_of_a_teacher_share_its_answers_and_train_on_them_alone(
    tiny: Content, plan_of: Callable[[Content], Plan]
) -> None:
    tiny["seeds"] = [1, 2]
    for pair in tiny["pairs"]:
        pair["methods"].append("seqkd")
    plan = plan_of(tiny)
    (answered,) = (job for job in plan.jobs.values() if job.kind == "answers")
    assert answered.title == "answers of teacher to student"
    assert "model teacher" in {plan.jobs[need].title for need in answered.needs}
    trainings = [job for job in plan.jobs.values() if job.kind == "train" and "/seqkd/" in job.id]
    assert len(trainings) == 4
    for job in trainings:
        (data,) = (plan.jobs[need] for need in job.needs if plan.jobs[need].kind == "data")
        assert data.spec.arguments["examples"] == f"{plan.root.resolve()}/{answered.folder}/answers.jsonl"
        assert answered.id in data.needs
        assert job.spec.arguments["teacher"] is None
        assert job.spec.arguments["signal"] is None
    sft = plan.jobs["train:teacher__same/sft/seed1"]
    assert all(answered.id not in plan.jobs[need].needs for need in sft.needs)


def test_what_changes_the_answers_changes_the_student(tiny: Content, plan_of: Callable[[Content], Plan]) -> None:
    def identity() -> str:
        return plan_of(tiny).jobs["train:teacher__same/seqkd/seed1"].spec.outputs[0].identity.hash

    tiny["pairs"][0]["methods"].append("seqkd")
    found = {identity()}
    for change in (
        lambda: tiny.update(methods={"seqkd": {"answer_temperature": 1.0}}),
        lambda: tiny["models"]["teacher"].update(seed=9),
        lambda: tiny["evaluation"].update(seed=3),
        lambda: tiny["evaluation"].update(dtype="bfloat16"),
    ):
        change()
        found.add(identity())
    assert len(found) == 5
    tiny["evaluation"]["max_batch_size"] = 3
    assert identity() in found
