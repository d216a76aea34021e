"""Several teachers in a run: the rows of each, identities, and what a training is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dskd
from dskd import methods
from dskd.data import Route, iter_examples, split_by_teacher
from dskd.data.examples import write_examples
from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from harness.runs.identity import FileHashes
from harness.runs.job_context import JobContext, ProgressChannel
from harness.steps.base import Input
from harness.steps.base_model import model_in_folder
from harness.steps.data import FileExamples, PreparedData
from harness.steps.several_teachers import SeveralTeachers, TaughtBySeveral, TaughtData
from harness.steps.tokenizers import TokenizerFiles
from helpers import tiny_world

NAMES = ("maths", "code")
OPTIONS = {"steps": 1, "batch_size": 4}


def _file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _route(teacher: str) -> Route:
    return Route(column="teacher", teacher=teacher, teachers=NAMES)


SHAPES = {
    "text": ("text", lambda text: {"prompt": text, "output": " b"}),
    "instruction": ("alpaca", lambda text: {"instruction": text, "input": "", "output": " b"}),
    "messages": (
        "chat",
        lambda text: {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]},
    ),
    "question": ("any", lambda text: {"question": text, "answer": "b"}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_any_shape_go_to_the_teacher_that_they_name(tmp_path: Path, shape: str) -> None:
    takes, row = SHAPES[shape]
    file = _file(tmp_path, [{**row(f"row {k}"), "teacher": NAMES[k % 3 == 0]} for k in range(7)])
    found = {name: json.dumps([str(item) for item in iter_examples(file, takes, route=_route(name))]) for name in NAMES}
    assert [f"row {k}" in found["code"] for k in range(7)] == [k % 3 == 0 for k in range(7)]
    assert [f"row {k}" in found["maths"] for k in range(7)] == [k % 3 != 0 for k in range(7)]
    # The first rows are those of all teachers.
    assert len(list(iter_examples(file, takes, limit=4, route=_route("code")))) == 2
    split = split_by_teacher(file, tmp_path / "split", "teacher", NAMES)
    assert list(iter_examples(split["code"], takes)) == list(iter_examples(file, takes, route=_route("code")))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"teacher": "poetry"},
            r"train\.jsonl:2: 'teacher' is 'poetry', which is no teacher; fix: name one of code, maths",
        ),
        ({"teacher": None}, r"train\.jsonl:2: has no 'teacher'; fix: name one of code, maths"),
        ({}, r"train\.jsonl:2: has no 'teacher'; fix"),
    ],
)
def test_a_row_that_names_no_teacher_is_refused_with_its_place(tmp_path: Path, row: dict, message: str) -> None:
    file = _file(tmp_path, [{"prompt": "a", "output": "b", "teacher": "code"}, {"prompt": "a", "output": "b", **row}])
    with pytest.raises(InputError, match=message):
        write_examples(file, tmp_path / "made", "text", route=_route("code"))
    assert not list((tmp_path / "made").glob("*"))
    step = PreparedData(
        examples=FileExamples(name="d", file=file, sha256="1"),
        student_tokenizer=TokenizerFiles(folder=tmp_path, files={}),
        max_length=8,
        route=_route("code"),
    )
    with pytest.raises(InputError, match=message):
        step.preflight(tmp_path)


def test_a_teacher_that_no_row_names_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, [{"prompt": "a", "output": "b", "teacher": "code"}])
    with pytest.raises(InputError, match=r"no row has 'maths' in 'teacher'; fix: give it rows"):
        list(iter_examples(file, "text", route=_route("maths")))
    with pytest.raises(InputError, match=r"no row has 'maths' in 'teacher'"):
        split_by_teacher(file, tmp_path, "teacher", NAMES)
    assert not (tmp_path / "maths.jsonl").exists()


def test_a_route_is_in_the_identity_and_none_is_not(tmp_path: Path) -> None:
    def step(**route: Any) -> PreparedData:
        return PreparedData(
            examples=FileExamples(file=tmp_path / "f", sha256="1"),
            student_tokenizer=TokenizerFiles(folder=tmp_path, files={}),
            max_length=8,
            **route,
        )

    assert "route" not in step().identity_parts()
    texts = [step(route=route).fingerprint.text for route in (None, _route("code"), _route("maths"))]
    assert len(set(texts)) == 3
    turned = Route(column="teacher", teacher="code", teachers=NAMES[::-1])
    assert step(route=turned).fingerprint.text == texts[1]
    assert PreparedData.model_validate_json(step(route=turned).model_dump_json()).fingerprint.text == texts[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("several")
    tiny_world.make(made, steps=2)
    return made


def _parts(folder: Path, root: Path, weights: dict[str, float] | None = None) -> TaughtBySeveral:
    lines = (folder / "train.jsonl").read_text().splitlines()
    file = _file(root, [{**json.loads(line), "teacher": NAMES[k % 2]} for k, line in enumerate(lines)])
    models = {
        name: model_in_folder(name, folder / name, FileHashes(), "models") for name in ("teacher", "same", "cross")
    }
    parts = []
    for name, model in zip(NAMES, ("teacher", "same"), strict=True):
        data = PreparedData(
            title=f"data for {name}",
            examples=FileExamples(name="d", file=file, sha256="1"),
            student_tokenizer=models["cross"].tokenizer_input,
            teacher_tokenizer=models[model].tokenizer_input,
            max_length=64,
            route=_route(name) if weights is None else None,
        )
        weight = None if weights is None else weights[name]
        parts.append(TaughtData(name=name, teacher=models[model], data=data, weight=weight))
    return TaughtBySeveral(parts=parts)


def _prepare(taught: TaughtBySeveral, root: Path) -> None:
    for part in taught.parts:
        job = JobContext(root, part.data.folder, part.data.outputs, ProgressChannel())
        store = job.store.output(part.data.folder)
        store.begin(part.data.kind, part.data.title, part.data.fingerprint)
        part.data.run(job)


@pytest.mark.parametrize("weights", [None, {"maths": 0.5, "code": 0.5}], ids=["routed", "weighted"])
def test_a_training_gets_each_teacher_with_its_own_data(folder: Path, tmp_path: Path, weights: Any) -> None:
    taught = _parts(folder, tmp_path, weights)
    taught = TaughtBySeveral.model_validate_json(taught.model_dump_json())
    _prepare(taught, tmp_path)
    assert taught.kept(tmp_path) == 20
    assert taught.lengths.examples == 20
    assert [step.kind for step in taught.needs] == ["data"] * (2 if weights is None else 1)
    report = dskd.train(
        student=folder / "cross",
        teachers=taught.sources(tmp_path),
        method="uld",
        options=TrainingOptions(**OPTIONS),
        output=tmp_path / "run",
    )
    count = 10 if weights is None else 20
    assert {name: own.examples for name, own in report.teachers.items()} == {"maths": count, "code": count}


def test_names_weights_and_outputs_are_in_the_identity_of_what_several_teach(folder: Path, tmp_path: Path) -> None:
    taught = _parts(folder, tmp_path)
    first, second = taught.parts
    changed: list[Input] = [
        taught,
        _parts(folder, tmp_path, {"maths": 0.5, "code": 0.5}),
        _parts(folder, tmp_path, {"maths": 0.7, "code": 0.3}),
        TaughtBySeveral(parts=[first.model_copy(update={"name": "other"}), second]),
        TaughtBySeveral(parts=[first.model_copy(update={"outputs": {"kind": "top_k", "k": 4}}), second]),
        TaughtBySeveral(parts=[first.model_copy(update={"teacher": second.teacher}), second]),
    ]
    assert len({each.fingerprint.text for each in changed}) == len(changed)


def test_what_does_not_go_with_several_teachers_is_a_problem_before_the_run(folder: Path, tmp_path: Path) -> None:
    taught = _parts(folder, tmp_path)
    options = TrainingOptions(**OPTIONS)
    assert taught.problems(methods.get("uld")(), options) == []
    assert taught.problems(methods.get("sft")(), options) == []
    on_policy = TrainingOptions(**OPTIONS, rollouts={"share": 1.0})
    found = taught.problems(methods.get("minillm")(), on_policy)
    assert [problem.key for problem in found] == ["teachers"]
    cached = [
        part.model_copy(update={"outputs": {"kind": "top_k", "k": 4, "temperature": 1.0}}) for part in taught.parts
    ]
    found = TaughtBySeveral(parts=cached).problems(methods.get("gold")(), options)
    assert {problem.key for problem in found} == {"teacher_outputs.kind"}
    assert list(taught.preflight(methods.get("uld")(), "cross", tmp_path)) == []
    of_kd = list(taught.preflight(methods.get("kd")(), "cross", tmp_path))
    assert all("kd needs one vocabulary" in problem.message for problem in of_kd)
    assert [name in problem.message for name, problem in zip(NAMES, of_kd, strict=True)] == [True, True]


def test_several_teachers_are_no_model_of_their_own(folder: Path, tmp_path: Path) -> None:
    members = [model_in_folder(name, folder / name, FileHashes(), "models") for name in ("teacher", "same")]
    experts = SeveralTeachers(name="experts", members=members, route="teacher")
    assert experts.names == ["teacher", "same"]
    assert experts.shape == max((member.shape for member in members), key=lambda shape: shape.parameters)
    assert len(experts.lineage) == 2
    with pytest.raises(
        InputError, match=r"models\.experts: several teachers have no one tokenizer; fix: name one of teacher, same"
    ):
        experts.tokenizer_input  # noqa: B018
    with pytest.raises(InputError, match=r"models\.experts: is several models"):
        experts.path(tmp_path)
