"""`harness schema`: every matrix that plans is valid by it, and typical mistakes are not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from harness.cli import main
from harness.config.matrix_file import shipped_matrices
from helpers.golden_matrices import ODD, odd_content
from helpers.paths import ROOT

Content = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """What the command prints, as a validator."""
    result = CliRunner().invoke(main, ["schema"], catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def places(schema: Draft202012Validator, content: Any) -> list[str]:
    """The places of what is wrong: of each mistake, the deepest that the schema names."""

    def deepest(error: Any) -> list[Any]:
        below = [deepest(each) for each in error.context or ()]
        return max([list(error.absolute_path), *below], key=len)

    return [".".join(map(str, deepest(error))) for error in schema.iter_errors(content)]


EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if "pairs" in path.read_text())


@pytest.mark.parametrize("path", [*shipped_matrices().values(), *EXAMPLES], ids=lambda path: path.stem)
def test_a_matrix_that_ships_is_valid(schema: Draft202012Validator, path: Path) -> None:
    assert places(schema, yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("name", ODD["matrices"])
def test_an_odd_matrix_is_valid(schema: Draft202012Validator, name: str) -> None:
    assert places(schema, odd_content(name)) == []


def test_the_matrix_of_the_reference_is_valid(schema: Draft202012Validator) -> None:
    """The long example of docs/matrix.md, and each of docs/sweeps.md."""
    for page in ("matrix", "sweeps"):
        blocks = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
        whole = [yaml.safe_load(block.partition("```")[0]) for block in blocks]
        assert whole
        for content in whole:
            if not {"name", "extends"} & content.keys():  # a part of a matrix
                content |= {"extends": "quick", "name": "own"}
            assert places(schema, content) == []


SHORT = {
    "groups": {"rivals": ["gkd"]},
    "axes": {
        "text": {"data": None, "own": {"training": {"rollouts": {"share": 0.5}}, "teacher_outputs": {"kind": "live"}}},
        "training.steps": [1, 2],
        "data": ["student"],
    },
    "text": {"data": 0.5, "teacher": {"samples": 4, "keep": "right", "task": "gsm8k"}, "student": "0.2"},
    "methods": {
        "sft": {"axes": []}, "own": {"method": "my_method.py:Mine", "anything": 3}, "hot": {"method": "kd", "temperature": "${T}"},
        "kd+low": {"method": "kd", "axes": {"rate": "low"}, "training": {"learning_rate": "1e-4"}},
        "dskd-v2": {"method": "kd", "temperature": 1},
    },
    "include": [
        {"teacher": "teacher", "student": "same", "method": "gkd", "seed": [7], "text": "own"},
        {"teacher": "teacher", "student": "same", "method": "gkd", "text": {"data": 0.5, "student": 0.5}},
    ],
    "exclude": [{"method": ["kd", "s*"], "training.steps": 1}, {"seed": 3}],
    "resources": {"train": {"gpus": 0.5, "memory": "40 GB"}, "mine": {"cpus": 2, "minutes": 1.5}},
    "tasks": {
        "small_math": None, "lm_eval/arc_easy": {}, "my.py:Task": None, "sampled": {"task": "dolly", "protocol": "minillm-sampling"},
        "gsm8k:validation": {"protocol": {"name": "pass@k-sampling", "samples": "${N}"}},
    },
    "models": {
        "far": {"served": ["http://a:1", "http://b:1"], "head": "x", "template": {"kind": "chat", "system": "s"}},
        "asked": {"chat": "http://a:1", "completions": "http://a:2", "tokenizer": "t"},
        "both": {"teachers": {"a": 0.5, "b": 0.5}}, "routed": {"teachers": ["a", "b"], "route": "c"},
        "averaged": {"step": "average.py:Average", "weight": 0.5}, "hub": {"hub": "org/name", "template": "chat"},
    },
}  # fmt: skip


@pytest.mark.parametrize("key", SHORT)
def test_shorter_forms_are_valid(schema: Draft202012Validator, tiny: Content, key: str) -> None:
    assert places(schema, {**tiny, key: SHORT[key]}) == []
    assert places(schema, {"extends": ["quick", "${BASE}.yaml"], "name": "own", key: SHORT[key]}) == []


def put(*path: Any) -> Callable[[Content], None]:
    """A change: the last of `path` at the place that the others name."""

    def change(content: Content) -> None:
        place: Any = content
        for key in path[:-2]:
            place = place[key]
        place[path[-2]] = path[-1]

    return change


MISTAKES: dict[str, tuple[Callable[[Content], Any], str]] = {
    "an unknown key": (put("sedes", [1]), ""),
    "a missing key": (lambda content: content.pop("seeds"), ""),
    "no data": (lambda content: content["training"].pop("data"), "training"),
    "text for a seed": (put("seeds", ["one"]), "seeds.0"),
    "no pairs": (put("pairs", []), "pairs"),
    "a text by nobody": (put("text", "me"), "text"),
    "a text with an unknown part": (put("text", {"teachers": 1}), "text"),
    "a text that is kept in no way": (put("text", {"teacher": {"keep": "best"}}), "text"),
    "an axis of a text by nobody": (put("axes", {"text": ["data", "me"]}), "axes.text"),
    "an unknown key of a pair": (put("pairs", 0, "method", "kd"), "pairs.0"),
    "an unknown training option": (put("training", "stepz", 3), "training"),
    "a batch of nothing": (put("training", "batch_size", 0), "training.batch_size"),
    "an unknown dtype": (put("training", "dtype", "float8"), "training.dtype"),
    "a nested option": (put("training", "rollouts", {"shar": 1}), "training.rollouts"),
    "an option of another method": (put("methods", {"kd": {"js_beta": 0.5, "max_new_tokens": 3}}), "methods.kd"),
    "an option out of range": (put("methods", {"kd": {"kd_rate": 2}}), "methods.kd.kd_rate"),
    "a variant of nothing": (put("methods", {"hot": {"temperature": 2}}), "methods.hot"),
    "a variant's option": (put("methods", {"hot": {"method": "kd", "tau": 2}}), "methods.hot"),
    "data for one method": (put("methods", {"kd": {"training": {"data": "student"}}}), "methods.kd.training"),
    "a model of no kind": (put("models", "same", {"hidden": 3}), "models.same"),
    "a model of two kinds": (put("models", "same", {"path": "a", "hub": "b/c"}), "models.same"),
    "a model with another's key": (put("models", "same", {"path": "a", "layers": 3}), "models.same"),
    "a stage without data": (put("models", "teacher", "training", [{"steps": 2}]), "models.teacher.training.0"),
    "a task without its task": (put("tasks", {"mine": {"limit": 3}}), "tasks.mine"),
    "an unknown protocol": (put("tasks", {"gsm8k": {"protocol": "greedyy"}}), "tasks.gsm8k.protocol"),
    "a limit of nothing": (put("tasks", {"gsm8k": {"limit": 0}}), "tasks.gsm8k.limit"),
    "an unknown kind of outputs": (put("teacher_outputs", {"kind": "lives"}), "teacher_outputs.kind"),
    "half a GPU in a wrong way": (put("resources", {"train": {"gpus": -1}}), "resources.train.gpus"),
    "memory that is no size": (put("resources", {"train": {"memory": "much"}}), "resources.train.memory"),
    "an empty axis": (put("axes", {"rate": []}), "axes.rate"),
    "an axis with a key's name": (put("axes", {"seed": {"a": {}}}), "axes"),
    "settings of no method": (put("axes", {"rate": {"low": {"training": {"learning_rat": 1}}}}), "axes.rate.low.training"),
    "an empty group": (put("groups", {"none": []}), "groups.none"),
    "a name with spaces": (put("groups", {"a b": ["kd"]}), "groups"),
    "an empty exclude": (put("exclude", [{}]), "exclude.0"),
    "an include without its method": (put("include", [{"teacher": "t", "student": "s"}]), "include.0"),
    "a base that is a number": (put("extends", 3), "extends"),
    "no address": (put("models", "same", {"served": [], "head": "x"}), "models.same.served"),
    "schema version 2": (put("schema_version", 2), "schema_version"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_found_at_its_place(schema: Draft202012Validator, tiny: Content, what: str) -> None:
    change, place = MISTAKES[what]
    content = copy.deepcopy(tiny)
    change(content)
    assert places(schema, tiny) == []
    found = places(schema, content)
    assert any(each == place or each.startswith(f"{place}.") for each in found), found


def test_editors_are_told_what_keys_mean(schema: Draft202012Validator) -> None:
    definitions = schema.schema["$defs"]
    assert definitions["TrainingOptions"]["properties"]["packing"]["description"].startswith(
        "several examples in a row"
    )
    assert definitions["TaskSettings"]["properties"]["task"]["description"].startswith(
        "The task, if the entry has another name"
    )
    assert definitions["ServedSource"]["properties"]["timeout"]["description"] == "Seconds for one request."
    assert "gsm8k" in schema.schema["properties"]["tasks"]["properties"]
    assert "train" in schema.schema["properties"]["resources"]["properties"]
    former = definitions["TrainingOptions"]["properties"]["fused_loss"]
    assert former["deprecated"] is True


def test_it_is_written_into_a_file(tmp_path: Path, schema: Draft202012Validator) -> None:
    path = tmp_path / "matrix.schema.json"
    result = CliRunner().invoke(main, ["schema", "--output", str(path)], catch_exceptions=False)
    assert (result.exit_code, json.loads(path.read_text())) == (0, schema.schema)
    assert f"# yaml-language-server: $schema={path}" in result.stdout
    nowhere = path / "below"
    result = CliRunner().invoke(main, ["schema", "--output", str(nowhere)], catch_exceptions=False)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"error: --output {nowhere}: cannot be written")
