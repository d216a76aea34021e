"""What of a step is a part of its identity, field by field, for every class of inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dskd.data import Route
from dskd.teachers.options import ServedOptions
from dskd.tokenization.prompt_templates import Template
from dskd.training.options import TrainingOptions
from harness.costs.token_price import TokenPrice
from harness.protocols import GREEDY, PROTOCOLS
from harness.runs.job_spec import Made
from harness.runs.records import RecordCell
from harness.steps.base import NOT_IDENTITY, Input, ModelInput, Step, TokenizerInput
from harness.steps.base_model import FirstLayers, ModelCopy, ModelFolder, NewModel, Stage, TrainedModel, _MadeModel
from harness.steps.data import Examples, FileExamples, PreparedData, RowExamples, WorldExamples
from harness.steps.distances import Distances
from harness.steps.endpoint_responses import EndpointResponses, TeacherEndpoint
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.hub_data import HubExamples, HubRows
from harness.steps.kept_responses import KeptResponses
from harness.steps.ranking import Candidate, Ranking
from harness.steps.reference import Reference
from harness.steps.reference_texts import ReferenceTexts
from harness.steps.served_model import HeadFolder, ServedModel
from harness.steps.several_teachers import SeveralTeachers, TaughtBySeveral, TaughtData
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_reference import TeacherReference
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.text_mixture import TextMixture
from harness.steps.tokenizers import (
    ChangedTokenizer,
    FolderInput,
    TokenizerChanges,
    TokenizerCopy,
    TokenizerFiles,
    WorldTokenizer,
)
from harness.steps.training import Train
from harness.steps.trial import LaterTrial, Trial, TunedTrain, _OfTuning
from harness.steps.validation import Validate
from harness.steps.world import World

ABSTRACT = {
    *(Step, ModelInput, TokenizerInput, FolderInput, Examples, RowExamples, _MadeModel, TrainedModel, _OfTuning),
}
CELL = RecordCell(teacher="t", student="s", method="kd", seed=1)
TOKENIZER = TokenizerFiles(folder=Path("tokenizer"), files={"tokenizer.json": "1"})
CHANGES = TokenizerChanges(add_bos_token=True, template=Template(kind="alpaca"))
COPY = TokenizerCopy(origin=TOKENIZER, changes=CHANGES)
FOLDER = ModelFolder(name="m", folder=Path("m"), files={"config.json": "1"}, tokenizer=TOKENIZER)
READ: dict[str, Any] = {
    **dict.fromkeys(("prompt", "instruction", "input", "output", "system", "reasoning", "messages", "tools"), "{a}"),
    **{"shape": "messages", "train_on": "last", "split_reasoning": True},
}
EXAMPLES = FileExamples(name="d", file=Path("d"), sha256="1", **READ)
DATA = PreparedData(
    examples=EXAMPLES,
    student_tokenizer=TOKENIZER,
    teacher_tokenizer=TOKENIZER,
    limit=5,
    max_length=64,
    route=Route(column="teacher", teacher="a", teachers=("a", "b")),
)
STAGE = Stage(data=DATA, options=TrainingOptions(steps=1))
CACHE = TeacherCache(
    teacher=FOLDER, data=DATA, options={"kind": "hidden_states", "stored_dtype": "same"}, dtype="float32"
)
HEAD = HeadFolder(folder=Path("h"), files={"config.json": "1"})
SERVED = ServedModel(
    name="far",
    addresses={"served": ("http://a",)},
    model="m",
    head=HEAD,
    tokenizer=TOKENIZER,
    dtype="bfloat16",
    reach={"timeout": 3.0},
)
REFERENCE = TeacherReference(teacher=SERVED)
TRAIN = Train(
    cell=CELL,
    output_folder="train",
    data=DATA,
    student=FOLDER,
    teacher=FOLDER,
    cache=CACHE,
    reference=REFERENCE,
    frozen=FOLDER,
    method="kd",
    method_options={"temperature": 2.0},
    method_code="1",
    teacher_outputs=CACHE.options,
    training=TrainingOptions(steps=1),
    seed=1,
    accelerate_config=Path("a.yaml"),
)
TAUGHT = TaughtData(
    name="a", teacher=FOLDER, data=DATA, cache=CACHE, reference=REFERENCE, outputs=CACHE.options, weight=0.5
)
ENDPOINT = TeacherEndpoint(
    name="teacher", model="m", addresses=("http://a/v1",), tokenizer=TOKENIZER, template=Template(kind="chat")
)
TASK = EvaluatedTask(
    entry="e", task="small_math", version="1", limit=5, max_new_tokens=9, protocol=GREEDY, extra={"dataset": "1"}
)
RESPONSES = TeacherResponses(
    examples=EXAMPLES,
    limit=5,
    teacher=FOLDER,
    max_new_tokens=9,
    temperature=0.7,
    samples=2,
    engine="auto",
    dtype="float32",
    seed=0,
    max_batch_size=2,
)
KEPT = KeptResponses(responses=RESPONSES, keep="right", scorers={"gsm8k": {"version": "1"}})
EVALUATION = Evaluate(
    cell=CELL,
    cell_folder="c",
    model=TRAIN,
    tasks=[TASK],
    engine="auto",
    dtype="float32",
    seed=0,
    max_batch_size=2,
)
TO_SCORES, TO_RANKING = (
    Reference(folder=f"artifacts/{name}", sha256="1", made=[Made(folder=f"artifacts/{name}", sha256="1")])
    for name in ("validation/1", "rankings/1")
)
CANDIDATE = Candidate(
    scores=TO_SCORES, outputs={"t": "f"}, training="artifacts/trials/1", trial=1, position=2, settings={"kd_rate": 0.3}
)
TRAINED = {name: getattr(TRAIN, name) for name in Train.model_fields}
EVALUATED = {name: getattr(EVALUATION, name) for name in Evaluate.model_fields}
HUB_ROWS = HubRows(repository="org/rows", commit="0" * 40, configuration="c", split="train")
INSTANCES: list[Input] = [
    *(HUB_ROWS, HubExamples(source=HUB_ROWS, **READ)),
    *(
        World(),
        WorldTokenizer(small_world=World(), name="bytelevel"),
        WorldExamples(small_world=World(), set="student"),
    ),
    *(TOKENIZER, CHANGES, COPY, ChangedTokenizer(origin=TOKENIZER, changes=CHANGES, maker=COPY)),
    *(FOLDER, ModelCopy(origin=FOLDER, changes=CHANGES), EXAMPLES, DATA, STAGE, CACHE, TRAIN, TASK),
    *(SeveralTeachers(members=[FOLDER], route="teacher", weights=[0.5]), TAUGHT, TaughtBySeveral(parts=[TAUGHT])),
    *(HEAD, SERVED, REFERENCE),
    NewModel(config={"model_type": "llama"}, tokenizer=TOKENIZER, seed=1, training=[STAGE]),
    FirstLayers(layers_of=FOLDER, layers=1, seed=1, training=[STAGE]),
    RESPONSES,
    KEPT,
    TextMixture(responses=KEPT, share=0.25),
    ENDPOINT,
    EndpointResponses(
        examples=EXAMPLES,
        limit=5,
        teacher=ENDPOINT,
        samples=2,
        max_new_tokens=9,
        temperature=0.7,
        parameters={"top_p": 0.9},
        seed=0,
        price=TokenPrice(prompt=1.0, completion=2.0),
    ),
    EVALUATION,
    ReferenceTexts(task="small_math", task_version="1", limit=5, extra={"dataset": "1"}, teacher=FOLDER),
    Distances(
        cell=CELL,
        cell_folder="c",
        evaluation=EVALUATION,
        compared="m",
        teacher=FOLDER,
        reason="none",
        asked={"kind": "live"},
        caches=[CACHE],
        cached=["e"],
    ),
    *(TO_SCORES, CANDIDATE, Trial(**TRAINED, share=0.5), Validate(**EVALUATED, tested=["small_math"])),
    LaterTrial(**TRAINED, share=0.5, ranking=TO_RANKING, position=1),
    TunedTrain(**TRAINED, ranking=TO_RANKING, tuning={"seed": 0}),
    Ranking(
        rung=1,
        share=0.5,
        keep=2,
        candidates=[CANDIDATE],
        earlier=TO_RANKING,
        teacher=TO_SCORES,
        teacher_outputs={"t": "f"},
    ),
]
# Fields that do not take any value of their type.
OTHER: dict[tuple[type, str], Any] = {
    **{(kind, "method"): "dskd-v2" for kind in (Train, Trial, LaterTrial, TunedTrain)},
    **{(kind, "method_options"): {"temperature": 3.0} for kind in (Trial, LaterTrial, TunedTrain)},
    (KeptResponses, "keep"): "shortest_right",
    (KeptResponses, "scorers"): {"gsm8k": {"version": "2"}},
    (Train, "method_options"): {"temperature": 3.0},
    (PreparedData, "route"): Route(column="teacher", teacher="b", teachers=("a", "b")),
    (EvaluatedTask, "protocol"): PROTOCOLS["minillm-sampling"],
    (TokenizerChanges, "template"): Template(kind="chat"),
    (TeacherCache, "engine"): "vllm",
    (TeacherCache, "served"): ServedOptions(addresses=("http://a",)),
    (TeacherEndpoint, "api"): "completions",
    (TeacherEndpoint, "addresses"): ("http://a/v1", "http://b/v1"),
    (TeacherEndpoint, "template"): Template(kind="alpaca"),
    (ServedModel, "addresses"): {"served": ("http://b",)},
    (EndpointResponses, "price"): TokenPrice(prompt=1.0, completion=3.0),
    (FileExamples, "shape"): "conversations",
    (FileExamples, "train_on"): "all",
    (HubExamples, "shape"): "conversations",
    (HubExamples, "train_on"): "all",
}


def subclasses(cls: type) -> Iterator[type]:
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


def hashes(made: Input) -> list[str]:
    """Of its outputs, where it makes some."""
    return [o.fingerprint.hash for o in made.outputs] if isinstance(made, Step) else [made.fingerprint.hash]


def with_another(made: Input, field: str) -> Input:
    value = OTHER.get((type(made), field)) or another(getattr(made, field))
    return made.model_copy(update={field: value})


def another(value: Any) -> Any:
    """Another value of this one's type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, str)):
        return value + type(value)(1)
    if isinstance(value, Path):
        return value / "other"
    if isinstance(value, dict):
        return {**value, "other": "1"}
    if isinstance(value, list):
        return [another(value[0])]
    if isinstance(value, Made):
        return value.model_copy(update={"folder": "other"})
    if isinstance(value, Input):
        field = next(
            name for name, key in type(value)._keys.items() if key is not NOT_IDENTITY and name != "small_world"
        )
        return with_another(value, field)
    assert isinstance(value, BaseModel), value
    return value.model_copy(update={"steps" if isinstance(value, TrainingOptions) else "seed": 9})


def test_every_class_of_inputs_has_an_instance_here() -> None:
    shipped = {cls for cls in subclasses(Input) if cls.__module__.startswith("harness.")}
    assert shipped - ABSTRACT == {type(made) for made in INSTANCES}


@pytest.mark.parametrize(
    ("made", "field"),
    [
        pytest.param(made, field, id=f"{type(made).__name__}.{field}")
        for made in INSTANCES
        for field in type(made).model_fields
    ],
)
def test_a_field_changes_the_identity_unless_it_is_marked(made: Input, field: str) -> None:
    changed = with_another(made, field)
    assert getattr(changed, field) != getattr(made, field)
    assert (hashes(changed) == hashes(made)) == (type(made)._keys[field] is NOT_IDENTITY)


@pytest.mark.parametrize("made", INSTANCES, ids=lambda made: type(made).__name__)
def test_an_input_is_the_same_after_json(made: Input) -> None:
    again = Input.model_validate(json.loads(json.dumps(made.model_dump(mode="json"))))
    assert type(again) is type(made)
    assert hashes(again) == hashes(made)
    assert again == made


def test_a_copy_forgets_what_was_computed_of_the_original() -> None:
    before = hashes(DATA)
    assert hashes(DATA.model_copy(update={"limit": 6})) != before
    assert hashes(DATA.model_copy()) == before
