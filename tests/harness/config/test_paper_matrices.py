"""The matrices of the papers hold their published settings, and the matrix of all methods every method."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.methods import METHODS
from dskd.training.options import TrainingOptions
from harness.config.matrix import Matrix
from harness.config.matrix_file import find_matrix, read_matrix, shipped_matrices
from harness.config.sources import FirstLayersModel, PathModel
from harness.costs.model_shapes import published_data, published_model
from harness.planning.plan import choose

PAPERS = [name for name in shipped_matrices() if name.startswith("paper-")]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.delenv("HARNESS_MODELS", raising=False)


def paper(name: str) -> Matrix:
    return choose(name).matrix


def methods_of(matrix: Matrix, student: str) -> set[str]:
    """The methods that teach a student, variants by the method that they are of."""
    return {matrix.method_of(name) for pair in matrix.pairs if pair.student == student for name in pair.methods}


@pytest.mark.nightly
def test_the_matrix_of_all_methods_names_every_method() -> None:
    matrix = read_matrix(find_matrix("methods"))
    forgotten = set(METHODS) - {matrix.method_of(name) for pair in matrix.pairs for name in pair.methods}
    assert not forgotten, f"a new method belongs into harness/matrices/methods.yaml too: {sorted(forgotten)}"
    # A method for any two vocabularies must show that it can take two.
    for_two = {name for name, method in METHODS.items() if method.requires.vocabulary == "any"}
    assert for_two == methods_of(matrix, "small-student-sentencepiece")


@pytest.mark.nightly
def test_the_matrix_of_all_methods_has_each_on_every_text_that_it_can_learn_from() -> None:
    matrix = read_matrix(find_matrix("methods"))
    names = {name for pair in matrix.pairs for name in pair.methods}
    on_policy = {name for name in names if matrix.training_of(name).options.get("rollouts") is not None}
    assert {matrix.method_of(name) for name in on_policy} == {
        n for n, m in METHODS.items() if m.requires.on_policy != "never"
    }
    assert {matrix.method_of(name) for name in names - on_policy} == {
        n for n, m in METHODS.items() if m.requires.on_policy != "always"
    }
    # Its schedule decides how much of the text is the student's.
    assert matrix.training_of("distillm-adaptive").options["rollouts"]["replay"]
    for name in on_policy - {"distillm-adaptive"}:
        either = METHODS[matrix.method_of(name)].requires.on_policy == "optional"
        assert matrix.training_of(name).options["rollouts"]["share"] == (0.5 if either else 1.0)
        assert matrix.outputs_of(name).kind == "live"
        assert name.endswith("-on-policy") == either


@pytest.mark.parametrize("name", PAPERS)
def test_every_model_and_data_set_of_a_paper_is_a_published_one(name: str) -> None:
    matrix = paper(name)
    for model in matrix.models.values():
        if isinstance(model, PathModel):
            assert model.path.startswith("${HARNESS_MODELS}/")
            assert published_model(model.path) is not None
        else:  # a teacher fine-tuned on the data: all layers of a published model
            assert isinstance(model, FirstLayersModel)
            base = matrix.models[model.layers_of]
            assert isinstance(base, PathModel)
            shape = published_model(base.path)
            assert shape is not None
            assert model.layers == shape.layers
            assert model.training
    assert all(published_data(data.file) for data in matrix.data.values())  # type: ignore[union-attr]


# Steps, examples a step, learning rates of student and projectors, longest example, adapter, temperature.
SETTINGS = {
    "paper-dolly-gpt2": (7140, 32, 5e-4, 1e-3, 512, None, 2.0),
    "paper-dolly-tinyllama": (3570, 32, 1e-3, 1e-3, 512, {"rank": 256, "alpha": 8, "dropout": 0.1}, 2.0),
    "paper-math": (1173, 128, 1e-5, 1e-3, 1024, None, 1.0),
    "paper-code": (78, 128, 1e-5, 1e-3, 1280, None, 1.0),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_trained_with_its_published_settings(name: str) -> None:
    import dskd.methods
    from harness.planning.estimate import estimate

    steps, a_step, rate, projector_rate, longest, lora, temperature = SETTINGS[name]
    choice = choose(name)
    matrix = choice.matrix
    options = TrainingOptions.model_validate(matrix.training.options).model_dump()
    assert options["batch_size"] * options["gradient_accumulation_steps"] * (matrix.launch.processes or 1) == a_step
    assert (options["learning_rate"], options["projector_learning_rate"]) == (rate, projector_rate)
    assert (options["weight_decay"], options["max_gradient_norm"], options["warmup_steps"]) == (0.01, 1.0, 0)
    assert (options["schedule"], options["dtype"], options["max_length"]) == ("cosine", "bfloat16", longest)
    adapter = options["lora"]
    assert (adapter and {key: adapter[key] for key in ("rank", "alpha", "dropout")}) == lora
    assert matrix.seeds == [10]
    trainings = [work for work in estimate(matrix, choice.cells).work if work.kind == "train"]
    assert trainings
    assert {work.steps for work in trainings} == {steps}
    for method in {method for pair in matrix.pairs for method in pair.methods}:
        chosen = dskd.methods.get(method).Options.model_validate(matrix.method_options(method)).model_dump()
        if "kd_rate" in chosen and method != "uld":  # whose distance has no temperature in the published scripts either
            assert (chosen["kd_rate"], chosen["temperature"]) == (0.5, temperature), method


@pytest.mark.parametrize("name", PAPERS)
def test_both_kinds_of_pair_have_sft_and_dual_space_methods(name: str) -> None:
    same, other = paper(name).pairs
    assert {"sft", "kd", "dskd-v1", "dskd-v2"} <= set(same.methods)
    assert {"sft", "dskd-v2-eta"} <= set(other.methods)
    if name.startswith("paper-dolly-"):
        assert {"dskd-v1-cma", "uld"} <= set(other.methods)
    assert {METHODS[method].requires.vocabulary for method in other.methods} == {"any"}


def plan(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "harness.cli", "plan", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


def test_a_paper_is_planned_on_a_machine_with_nothing(tmp_path: Path) -> None:
    run = plan("--matrix", "paper-dolly-gpt2", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    first, _, rest = run.stdout.partition("\n")
    assert re.fullmatch(r"Cells of paper-dolly-gpt2: \d+ students, 2 teachers on dolly", first)
    assert "Estimate from shapes (nothing was run or measured):" in rest
    assert re.search(r"train +gpt2-1\.5b__gpt2/dskd-v2/seed10 +7,140 +39 M +\d+ +[\d.]+ GB +[\d.]+", rest)
    assert "models.gpt2: no folder '${HARNESS_MODELS}/openai-community/gpt2'" in rest
    assert "Not checked for that reason: the vocabularies" in rest
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time")}
    assert not imported & {"torch", "transformers", "vllm", "datasets", "huggingface_hub"}


def test_what_is_missing_is_machine_readable(tmp_path: Path) -> None:
    run = plan("--matrix", "paper-code", "--json", "--only", "method=dskd-v2", "--peak-tflops", "100", cwd=tmp_path)
    document = json.loads(run.stdout)
    assert document["jobs"] is None
    assert document["cells"] == ["qwen2.5-coder-7b__qwen2.5-1.5b/dskd-v2/seed10"]
    assert document["not_checked"] == [
        "models.qwen2.5-coder-7b: no folder '${HARNESS_MODELS}/Qwen/Qwen2.5-Coder-7B'",
        "models.qwen2.5-1.5b: no folder '${HARNESS_MODELS}/Qwen/Qwen2.5-1.5B'",
        "data.code: no file '${HARNESS_DATA}/magicoder/sample-10k.jsonl'",
    ]
    estimated = document["estimate"]
    operations = sum(work["operations"] for work in estimated["work"])
    assert [work["kind"] for work in estimated["work"]] == ["teacher-cache", "train"]
    assert estimated["gpu_hours"] == pytest.approx(operations / (100e12 * 0.4 * 3600))


def test_a_variable_that_says_where_models_are_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_MODELS", str(tmp_path))
    missing = choose("paper-math", {"HARNESS_DATA": "elsewhere"}, ["method=sft"]).missing
    assert f"models.llama3.2-1b: no folder '{tmp_path}/meta-llama/Llama-3.2-1B'" in missing
    assert "data.math: no file 'elsewhere/metamathqa/sample-50k.jsonl'" in missing


def test_planning_without_a_variable_is_an_error_where_what_it_holds_is_not_published(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path]
) -> None:
    from dskd.errors import InputError

    with pytest.raises(InputError, match=r"data\.dolly\.file: the variable HARNESS_DATA is not set"):
        choose("real-cpu")
    with pytest.raises(InputError, match=r"--only method=kdd: real-cpu\.yaml has no such method; did you mean 'kd'"):
        choose("real-cpu", only=["method=kdd"])
    tiny["models"]["teacher"] = {"path": "nowhere"}
    with pytest.raises(
        InputError, match=r"matrix\.yaml: models\.teacher\.path: no folder 'nowhere'; fix: correct the path"
    ):
        choose(str(write_matrix(tiny)))


def test_a_run_needs_the_models(tmp_path: Path) -> None:
    from dskd.errors import InputError
    from harness.planning.plan import make_plan

    with pytest.raises(InputError, match="the variable HARNESS_DATA is not set"):
        make_plan("paper-math", output_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"models\.qwen2\.5-math-7b\.path: no folder"):
        make_plan(
            "paper-math",
            output_dir=tmp_path / "run",
            variables={"HARNESS_DATA": str(tmp_path), "HARNESS_MODELS": str(tmp_path)},
        )
