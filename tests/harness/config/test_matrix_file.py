"""Reading a matrix: what it accepts, and that each mistake is one line with file, key and fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from dskd.errors import InputError
from harness.config.matrix import Cell
from harness.config.matrix_file import find_matrix, read_matrix, select, shipped_matrices
from harness.config.selection import cells

Content = dict[str, Any]


def put(*path: Any, value: Any) -> Callable[[Content], None]:
    """A change to a matrix: the value at a place."""

    def change(content: Content) -> None:
        place: Any = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def endless() -> Content:
    content: Content = {}
    content["a"] = content
    return content


def drop(key: str) -> Callable[[Content], None]:
    return lambda content: content.pop(key)


MISTAKES = [
    (put("sedes", value=[1]), "sedes: unknown key; did you mean 'seeds'?"),
    (put("pairs", 0, "method", value=["kd"]), "pairs.0.method: unknown key; did you mean 'methods'?"),
    (put("models", "same", "tokeniser", value={}), "models.same.tokeniser: unknown key; did you mean 'tokenizer'?"),
    (
        put("models", "same", value={"hidden": 3}),
        "models.same: is of no known kind; fix: give one of the keys path, hub, config, layers_of, step, served",
    ),
    (put("models", "same", "config", value={"hidden_size": 3}), "models.same.config: has no `model_type`; fix: add it"),
    (
        put("models", "same", "tokenizer", value={}),
        "models.same.tokenizer: is no tokenizer, or two; fix: give one of small_world, path",
    ),
    (
        put("data", "student", value={"url": "x"}),
        "data.student: is of no known kind; fix: give one of the keys small_world, file",
    ),
    (put("data", "student", value={"file": "x", "prompt": "{a}"}), "data.student: these keys go together"),
    (
        put("data", "student", value={"file": "x", "prompt": "{a.b}", "output": "{c}"}),
        "data.student.prompt: is not a template",
    ),
    (put("pairs", 0, "teacher", value="teachr"), "pairs.0.teacher: no model 'teachr'; did you mean 'teacher'?"),
    (
        put("pairs", 1, "methods", value=["sft", "dskdv2"]),
        "pairs.1.methods.1: no method 'dskdv2'; did you mean 'dskd-v2'?",
    ),
    (put("pairs", 0, "methods", value=["kd", "kd"]), "pairs.0.methods: a method is given twice"),
    (put("pairs", 1, "student", value="same"), "pairs.1: the same teacher and student are given twice"),
    (put("methods", value={"kdd": {}}), "methods.kdd: no method 'kdd'; did you mean 'kd'?"),
    (
        put("methods", value={"kd": {"temprature": 2}}),
        "methods.kd.temprature: unknown key; did you mean 'temperature'?",
    ),
    (
        put("methods", value={"kd": {"kd_rate": 2}}),
        "methods.kd.kd_rate: input should be less than or equal to 1, not 2",
    ),
    (put("training", "stepz", value=3), "training.stepz: unknown key; did you mean 'steps'?"),
    (put("training", "steps", value="many"), "training.steps: input should be a valid integer"),
    (put("training", value={"data": "student"}), "training: give either steps or epochs"),
    (put("training", "seed", value=3), "training.seed: a seed is no training option"),
    (put("training", "data", value="studnt"), "training.data: no data set 'studnt'; did you mean 'student'?"),
    (
        put("models", "teacher", "training", value=[{"data": "student", "steps": 0}]),
        "models.teacher.training.0.steps: input should be greater than 0, not 0",
    ),
    (
        put("tasks", value={"small_maths": {}}),
        "tasks.small_maths: task small_maths: no such task; did you mean 'small_math'?",
    ),
    (
        put("tasks", "small_math", value={"limit": 0}),
        "tasks.small_math.limit: input should be greater than or equal to 1",
    ),
    (put("evaluation", "engine", value="vlm"), "evaluation.engine vlm: no such engine; did you mean 'vllm'?"),
    (put("seeds", value=[]), "seeds: list should have at least 1 item"),
    (put("seeds", value=[1, 1]), "seeds: the same seed is given twice"),
    (put("name", value="a/b"), "name: 'a/b' is not a name"),
    (put("models", "a__b", value={"path": "x"}), "models.a__b: 'a__b' is not a name"),
    (drop("training"), "training: is missing; fix: add it"),
    (put("schema_version", value=2), "schema_version: input should be 1"),
    (
        put("teacher_outputs", value={"kind": "logits"}),
        "teacher_outputs.kind: input should be 'hidden_states', 'top_k', 'text_log_probabilities' or",
    ),
    (
        put("teacher_outputs", value={"k": 3}),
        "teacher_outputs: `k` means nothing with kind: hidden_states; fix: leave it out",
    ),
    (
        put("teacher_outputs", value={"kind": "live", "stored_dtype": "float16"}),
        "teacher_outputs: `stored_dtype` means nothing with kind: live; fix: leave it out",
    ),
    (
        put("teacher_outputs", value={"kind": "top_k", "stored_dtype": "float16"}),
        "teacher_outputs: `stored_dtype` means nothing with kind: top_k; fix: leave it out",
    ),
    (put("teacher_outputs", value={"knd": "live"}), "teacher_outputs.knd: unknown key; did you mean 'kind'?"),
    (
        put("teacher_outputs", value={"kind": "top_k", "k": 0}),
        "teacher_outputs.k: input should be greater than or equal to 1",
    ),
    (put("launch", value={"processes": 0}), "launch.processes: input should be greater than or equal to 1"),
    (
        put("launch", value={"accelerate_config": "fsdp9"}),
        "launch.accelerate_config: fsdp9: no such accelerate configuration; fix: give a file, or one of ddp-1x8",
    ),
    (put("training", "lora", value={"rank": 0}), "training.lora.rank: input should be greater than"),
    (put("training", "lora", value={"rnk": 4}), "training.lora.rnk: unknown key; did you mean 'rank'?"),
    (put("models", "loop", value={"layers_of": "loop", "layers": 1}), "models.loop.layers_of: goes round in a circle"),
    (put("models", "part", value={"layers_of": "nobody", "layers": 1}), "models.part.layers_of: no model 'nobody'"),
    (
        put("data", "student", value={"file": "x", "prompt": "{a[0]}", "output": "{c}"}),
        "data.student.prompt: is not a template",
    ),
    (
        put("models", "same", "config", value={"rope_theta": float("nan")}),
        "models.same.config.rope_theta: nan is no finite number",
    ),
    (
        put("models", "same", "config", value={"sizes": [1.0, float("-inf")]}),
        "models.same.config.sizes.1: -inf is no finite number",
    ),
    (put("models", "same", "config", value={"day": date(2026, 1, 2)}), "models.same.config.day: a date is no value"),
    (put("models", "same", "config", value={"big": 2**63}), "models.same.config.big: the number is beyond 64 bits"),
    (put("models", "same", "config", value={"half": "\ud800"}), "models.same.config.half: half of a surrogate pair"),
    (put("training", "learning_rate", value=float("inf")), "training.learning_rate: inf is no finite number"),
    (put("training", "learning_rate", value="inf"), "training.learning_rate: input should be a finite number"),
    (
        put("methods", value={"kd": {"temperature": "inf"}}),
        "methods.kd.temperature: input should be a finite number",
    ),
    (put("tasks", True, value={}), "tasks.True: the key True is no text; fix: put it in quotes"),
    (put("tasks", value=endless()), "tasks.a.a: is nested too deeply, or contains itself"),
    (
        put("models", "own", value={"path": "${NOT_SET_ANYWHERE}"}),
        "models.own.path: the variable NOT_SET_ANYWHERE is not set",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[message[:50] for _, message in MISTAKES])
def test_a_mistake_is_one_line_with_file_and_key(
    tiny: Content, write_matrix: Callable[[Any], Path], change: Callable[[Content], Any], message: str
) -> None:
    change(tiny)
    path = write_matrix(tiny)
    with pytest.raises(InputError) as caught:
        read_matrix(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {message}")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", ":1: is not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", ":3: is not valid YAML: the key 'a' is given twice; fix: keep one"),
        ("? [a, b]\n: 1\n", ":1: is not valid YAML: a key is a list or a mapping; fix: write text"),
        ("x: &a [*a]\n", ": x.0.0: is nested too deeply, or contains itself"),
        ("a: 2026-13-01\n", ":1: is not valid YAML: '2026-13-01' cannot be read as timestamp; fix: put it in quotes"),
        (f"a:\n - {'9' * 5000}\n", ":2: is not valid YAML: '999"),
        ("a: !!bool perhaps\n", ":1: is not valid YAML: 'perhaps' cannot be read as bool"),
        (f"a: {'[' * 5000}\n", ": is nested too deeply to be read"),
        ("a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}\n", ":2: is not valid YAML: the key 'y' is given twice"),
        ("- a\n", ": is not a mapping of keys"),
        ("", ": is not a mapping of keys"),
    ],
)
def test_what_is_no_matrix_at_all(write_matrix: Callable[[Any], Path], text: str, message: str) -> None:
    path = write_matrix(text)
    with pytest.raises(InputError) as caught:
        read_matrix(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_merge_key_brings_keys_that_may_be_overridden(tiny: Content, write_matrix: Callable[[Any], Path]) -> None:
    config = "{model_type: llama, a: &a {x: 1, y: 3}, b: {c: &c {<<: *a, x: 2}}, d: {<<: *c}}"
    tiny["models"]["same"]["config"] = "HERE"
    matrix = read_matrix(write_matrix(yaml.safe_dump(tiny).replace("HERE", config)))
    read = matrix.models["same"].config  # type: ignore[union-attr]
    assert read["b"]["c"] == read["d"] == {"x": 2, "y": 3}


def test_variables_come_from_set_first_and_then_from_the_environment(
    tiny: Content, write_matrix: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["models"]["mine"] = {"path": "${ROOT}/model-${KIND}"}
    monkeypatch.setenv("ROOT", "/env")
    monkeypatch.setenv("KIND", "small")
    matrix = read_matrix(write_matrix(tiny), {"ROOT": "/set"})
    assert matrix.models["mine"].path == "/set/model-small"  # type: ignore[union-attr]


def test_a_matrix_is_found_by_path_or_by_the_name_of_one_that_ships(tmp_path: Path) -> None:
    assert find_matrix("quick") == shipped_matrices()["quick"]
    with pytest.raises(InputError, match=r"no such matrix file.*did you mean 'quick'"):
        find_matrix("quik")
    with pytest.raises(InputError, match="is a folder"):
        find_matrix(str(tmp_path))


def test_every_shipped_matrix_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA", "gemma")
    monkeypatch.setenv("HARNESS_DATA", "data")
    monkeypatch.setenv("HARNESS_MODELS", "models")
    assert set(shipped_matrices()) >= {"quick", "real-cpu"}
    for name, path in shipped_matrices().items():
        assert read_matrix(path).name == name


TEACHER = Cell("teacher", None, "teacher", None)


def test_the_cells_are_the_teachers_once_and_every_method_and_seed_of_every_pair(
    tiny: Content, write_matrix: Callable[[Any], Path]
) -> None:
    tiny["seeds"] = [1, 2]
    found = cells(read_matrix(write_matrix(tiny)))
    assert found[0] == TEACHER
    assert len(found) == len(set(found)) == 1 + 2 * 2 * 2
    assert Cell("teacher", "cross", "dskd-v2-eta", 2).folder == "teacher__cross/dskd-v2-eta/seed2"


@pytest.mark.parametrize(
    ("only", "folders"),
    [
        (["student=same"], ["teacher/teacher", "teacher__same/sft/seed1", "teacher__same/kd/seed1"]),
        (["method=kd"], ["teacher__same/kd/seed1"]),
        (["method=teacher"], ["teacher/teacher"]),
        (["method=kd", "method=dskd-v2-eta"], ["teacher__same/kd/seed1", "teacher__cross/dskd-v2-eta/seed1"]),
        (["method=sft", "student=cross", "seed=1"], ["teacher__cross/sft/seed1"]),
    ],
)
def test_only_keeps_the_cells_that_have_all_its_keys(
    tiny: Content, write_matrix: Callable[[Any], Path], only: list[str], folders: list[str]
) -> None:
    chosen, tasks = select(read_matrix(write_matrix(tiny)), only, "matrix.yaml")
    assert [cell.folder for cell in chosen] == folders
    assert tasks == ["small_math"]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["method=kdd"], "no such method; did you mean 'kd'?"),
        (["seed=7"], "no such seed; known: 1"),
        (["task=gsm8k"], "no such task; known: small_math"),
        (["colour=red"], "one of the keys teacher, student, method, seed, task"),
        (["kd"], "is no key=value"),
        (["method=kd", "student=cross"], "no cell of matrix.yaml has all of these"),
    ],
)
def test_an_only_that_matches_nothing_names_what_there_is(
    tiny: Content, write_matrix: Callable[[Any], Path], only: list[str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        select(read_matrix(write_matrix(tiny)), only, "matrix.yaml")
    assert message in str(caught.value)


def test_a_variable_that_the_matrix_does_not_have_is_a_slip(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path]
) -> None:
    tiny["description"] = "${WHAT}"
    path = write_matrix(tiny)
    assert read_matrix(path, {"WHAT": "x", "HARNESS_DATA": "data"}).description == "x"
    with pytest.raises(InputError, match=r"--set WATH: .* has no \$\{WATH\}; fix: use one of HARNESS_DATA, WHAT"):
        read_matrix(path, {"WHAT": "x", "WATH": "y"})


def test_a_variant_is_a_method_under_another_name_with_options_of_its_own(
    tiny: Content, write_matrix: Callable[[Any], Path]
) -> None:
    tiny["methods"] = {"hot-kd": {"method": "kd", "temperature": 4.0}, "kd": {"temperature": 1.0}}
    tiny["pairs"][0]["methods"] = ["kd", "hot-kd"]
    matrix = read_matrix(write_matrix(tiny))
    assert [matrix.method_of(name) for name in ("kd", "hot-kd", "sft")] == ["kd", "kd", "sft"]
    assert matrix.method_options("hot-kd") == {"temperature": 4.0}
    assert {cell.method for cell in cells(matrix) if cell.student == "same"} == {"kd", "hot-kd"}
    for variant, message in (({"method": "kdd"}, "no method 'kdd'"), ({"method": "kd", "tau": 1}, "tau")):
        tiny["methods"]["hot-kd"] = variant
        with pytest.raises(InputError, match=message):
            read_matrix(write_matrix(tiny))


def test_a_variant_is_trained_in_a_way_of_its_own(tiny: Content, write_matrix: Callable[[Any], Path]) -> None:
    """Single options take the place of the matrix's, of two that exclude each other the other's; the signal is another whole."""
    own = {"steps": 5, "batch_tokens": 200, "learning_rate": 1e-4, "rollouts": {"share": 0.5}}
    tiny["training"] = {"data": "student", "epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 1}
    tiny["teacher_outputs"] = {"kind": "top_k", "k": 7}
    tiny["methods"] = {"kd-on-policy": {"method": "kd", "training": own, "teacher_outputs": {"kind": "live"}}}
    tiny["pairs"][0]["methods"] = ["kd", "kd-on-policy"]
    matrix = read_matrix(write_matrix(tiny))
    assert matrix.training_of("kd") == matrix.training
    assert matrix.training_of("kd-on-policy").options == {**own, "warmup_steps": 1}
    assert matrix.training_of("kd-on-policy").data == "student"
    assert (matrix.outputs_of("kd").kind, matrix.outputs_of("kd-on-policy").kind) == ("top_k", "live")
    assert matrix.method_options("kd-on-policy") == {}
    assert matrix.place("kd-on-policy", "training", "rollouts") == "methods.kd-on-policy.training.rollouts"
    assert matrix.place("kd", "training", "warmup_steps") == "training.warmup_steps"
    assert (
        matrix.place("kd", "training", "rollouts") == "methods.kd.training.rollouts"
    )  # nobody says it: it can be said there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"stepz": 3}}, "methods.own.training.stepz: unknown key; did you mean 'steps'?"),
        ({"training": {"steps": 3, "epochs": 1}}, "methods.own.training: give either steps or epochs"),
        ({"training": {"batch_size": 0}}, "methods.own.training.batch_size: input should be greater than 0, not 0"),
        (
            {"training": {"rollouts": {"shar": 1}}},
            "methods.own.training.rollouts.shar: unknown key; did you mean 'share'?",
        ),
        ({"training": {"seed": 3}}, "methods.own.training.seed: a seed is no training option"),
        (
            {"training": {"data": "student"}},
            "methods.own.training: `data` is the same for all methods",
        ),
        ({"training": {"max_length": 9}}, "methods.own.training: `max_length` is the same for all methods"),
        ({"training": 3}, "methods.own.training: input should be a valid dictionary, not 3"),
        ({"teacher_outputs": {"kind": "lives"}}, "methods.own.teacher_outputs.kind: input should be"),
        ({"teacher_outputs": {"knd": "live"}}, "methods.own.teacher_outputs.knd: unknown key; did you mean 'kind'?"),
        ({"trainin": {}}, "methods.own.trainin: unknown key"),
    ],
)
def test_a_mistake_in_a_variants_training_is_named_with_its_key(
    tiny: Content, write_matrix: Callable[[Any], Path], settings: Content, message: str
) -> None:
    tiny["methods"] = {"own": {"method": "kd", **settings}}
    tiny["pairs"][0]["methods"] = ["own"]
    with pytest.raises(InputError, match=re.escape(message)):
        read_matrix(write_matrix(tiny))
