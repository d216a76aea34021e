"""A teacher's answers to a training set: what is kept of them, and that a killed job goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dskd.errors import InputError
from harness import evaluation
from harness.engines._seeds import sample_seed
from harness.engines._types import Completion, Sampling
from harness.planning.plan import Plan, make_plan
from harness.runs.job_context import JobContext, ProgressChannel
from harness.steps import teacher_responses
from harness.steps.base_model import absent_model
from harness.steps.data import FileExamples
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.training import Train

Content = dict[str, Any]


# Of prompts 0 to 4 under seed 5. Other values would change every response that is drawn.
SEEDS = [sample_seed(5, f"None/{number}", 0) for number in range(5)]


class Teacher:
    """An engine that answers a prompt with its capitals; '…' in a prompt has no end, an empty prompt no answer."""

    name = "fake"

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.on_finished: Callable[[int], None] = lambda _: None
        self.asked: list[tuple[list[int], list[str]]] = []  # seeds and prompts
        self.sampling: Sampling | None = None
        self.closed = False

    def complete(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        self.sampling = sampling
        self.asked.append((list(seeds), list(prompts)))
        self.on_finished(len(prompts))
        return [
            Completion(p.upper(), "length" if "…" in p else "stop", [0] * len(p), [0] * len(p), p.startswith("long"))
            for p in prompts
        ]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Teacher:
    made = Teacher(0)
    monkeypatch.setattr(evaluation, "open_engine", lambda *_, **__: made)
    tokenizer = SimpleNamespace(init_kwargs={}, name_or_path="teacher")
    monkeypatch.setattr(teacher_responses, "load_tokenizer", lambda _: tokenizer)
    monkeypatch.setattr("dskd.data.encode_prompt", lambda _, text: list(text))
    monkeypatch.setattr(teacher_responses, "_BLOCK", 2)
    return made


@pytest.fixture
def respond(tmp_path: Path) -> Callable[..., JobContext]:
    """Run the step for these prompts; its finished job."""

    def run(prompts: Sequence[str], **settings: Any) -> JobContext:
        path = tmp_path / "examples.jsonl"
        path.write_text("".join(json.dumps({"prompt": p, "output": "theirs"}) + "\n" for p in prompts))
        given: dict[str, Any] = {
            "examples": FileExamples(file=path, sha256=""),
            "teacher": absent_model("teacher", Path("teacher")),
            "limit": None,
            "max_new_tokens": 9,
            "temperature": 0.0,
            "engine": "auto",
            "dtype": "float32",
            "seed": 5,
        }
        step = TeacherResponses(**given | settings)
        made = JobContext(tmp_path / "run", step.folder, step.outputs, ProgressChannel())
        made.store.output(step.folder).begin(step.kind, step.title, step.fingerprint)
        step.run(made)
        return made

    return run


def written(job: JobContext) -> list[dict[str, str]]:
    return [json.loads(line) for line in (job.folder / "answers.jsonl").read_text().splitlines()]


def test_answers_take_the_place_of_the_data_s_and_those_without_an_end_are_left_out(
    teacher: Teacher, respond: Callable[..., JobContext]
) -> None:
    made = respond(["one", "two…", "", "long prompt", "é"])
    assert written(made) == [{"prompt": "one", "output": "ONE"}, {"prompt": "é", "output": "É"}]
    report = made.store.output(made.folder).manifest.report  # type: ignore[union-attr]
    counts = {key: report[key] for key in ("prompts", "kept", "without_end", "empty", "prompt_too_long")}
    assert counts == {"prompts": 5, "kept": 2, "without_end": 1, "empty": 1, "prompt_too_long": 1}
    assert teacher.closed
    assert not (made.folder / "blocks").exists()
    assert teacher.sampling == Sampling(9, temperature=0.0)
    # Blocks of two; a prompt's own number decides what is drawn, in whatever block it is asked.
    assert teacher.asked == [(SEEDS[:2], ["one", "two…"]), (SEEDS[2:4], ["", "long prompt"]), (SEEDS[4:], ["é"])]


def test_a_job_that_was_killed_asks_only_for_what_is_missing(
    teacher: Teacher, respond: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["a", "b", "c", "d", "e"]
    complete = teacher.complete

    def killed_in_the_second(*arguments: Any) -> list[Completion]:
        if teacher.asked:
            raise KeyboardInterrupt
        return complete(*arguments)

    monkeypatch.setattr(teacher, "complete", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        respond(prompts)
    monkeypatch.setattr(teacher, "complete", complete)
    again = respond(prompts)
    assert teacher.asked == [(SEEDS[:2], ["a", "b"]), (SEEDS[2:4], ["c", "d"]), (SEEDS[4:], ["e"])]
    assert [row["output"] for row in written(again)] == ["A", "B", "C", "D", "E"]


def test_a_limit_and_a_temperature_are_honoured(teacher: Teacher, respond: Callable[..., JobContext]) -> None:
    made = respond(["a", "b", "c"], limit=1, temperature=0.7)
    assert [row["prompt"] for row in written(made)] == ["a"]
    assert teacher.sampling == Sampling(9, temperature=0.7)


@pytest.mark.usefixtures("teacher")
def test_a_teacher_that_never_ends_is_an_error(respond: Callable[..., JobContext]) -> None:
    with pytest.raises(InputError, match=r"teacher: none of its 2 responses has an end within 9 tokens; fix: raise"):
        respond(["a…", "b…"])


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
    (responses,) = (job.step for job in plan.jobs.values() if isinstance(job.step, TeacherResponses))
    assert responses.title == "responses of teacher to student"
    assert "model teacher" in {need.title for need in responses.needs}
    trainings = [job.step for job in plan.jobs.values() if isinstance(job.step, Train) and "/seqkd/" in job.id]
    assert len(trainings) == 4
    for step in trainings:
        assert step.data.examples == responses
        assert step.data.examples.path(plan.root).name == "answers.jsonl"
        assert responses in step.data.needs
        assert step.teacher is None
        assert step.cache is None
    sft = plan.jobs["train:teacher__same/sft/seed1"]
    assert all(responses not in need.needs for need in sft.step.needs)


def test_what_changes_the_answers_changes_the_student(tiny: Content, plan_of: Callable[[Content], Plan]) -> None:
    def identity() -> str:
        return plan_of(tiny).jobs["train:teacher__same/seqkd/seed1"].step.fingerprint.hash

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
