"""What jobs need, against numbers that are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.resources import ResourceRequest
from harness.costs.formulas import Lengths, teacher_work, training_work
from harness.costs.model_shapes import PUBLISHED_MODELS
from harness.costs.needs import Generation, generation_needs, pass_needs, training_needs, weight_bytes
from harness.costs.resources import BASE_MEMORY, Resources
from harness.costs.work import Device
from harness.planning.plan import make_plan
from harness.scheduling.executor import Place
from harness.scheduling.scheduler import Scheduler, Task

SMALL, LARGE = PUBLISHED_MODELS["Qwen/Qwen2.5-1.5B"], PUBLISHED_MODELS["Qwen/Qwen2.5-7B-Instruct"]
SMALL_PARAMETERS, LARGE_PARAMETERS = 1_543_714_304, 7_615_616_512  # as their cards have them


def test_weights_are_parameters_times_bytes() -> None:
    assert weight_bytes(SMALL, "bfloat16") == 2 * SMALL_PARAMETERS
    assert weight_bytes(LARGE, "float32") == 4 * LARGE_PARAMETERS


def test_generation_needs_weights_keys_values_and_logits() -> None:
    asked = [Generation(1319, 256), Generation(None, 128)]
    # 64 sequences of 512 + 256 tokens; keys and values of 28 layers with 2 heads of 128 numbers of 2 bytes.
    cache = 64 * 768 * 28 * 2 * 2 * 128 * 2
    logits = 64 * 151_936 * (4 + 2)
    needs = generation_needs(SMALL, "bfloat16", asked)
    assert (needs.gpus, needs.cpus) == (1, None)
    assert needs.memory == 1_500_000_000 + 2 * SMALL_PARAMETERS
    assert needs.device_memory == 2 * SMALL_PARAMETERS + cache + logits == 4_555_058_176
    # 21 batches of 256 tokens and 16 of 128; a token takes 2 ms of reading weights, and so the least, 10 ms.
    assert needs.minutes == pytest.approx(0.25 + (21 * 256 + 16 * 128) * 0.01 / 60)
    large = generation_needs(LARGE, "float32", [Generation(64, 100)])
    assert large.minutes == pytest.approx(0.25 + 100 * 4 * LARGE_PARAMETERS / 1.5e12 / 60)


def test_parts_and_tensor_parallel_share_the_work_and_the_model() -> None:
    alone = generation_needs(SMALL, "bfloat16", [Generation(640, 256)])
    spread = generation_needs(SMALL, "bfloat16", [Generation(640, 256)], parts=2, tensor_parallel=2)
    assert spread.gpus == 4
    assert spread.memory == 3 * 1_500_000_000 + 2 * 2 * SMALL_PARAMETERS  # two processes, and the one that started them
    logits = 64 * 151_936 * 6
    assert alone.device_memory is not None
    assert spread.device_memory == (alone.device_memory - logits) // 2 + logits
    assert (spread.minutes or 0) - 0.25 == pytest.approx(((alone.minutes or 0) - 0.25) / 2)


def test_a_teacher_that_reads_needs_its_weights_and_a_batch() -> None:
    work = teacher_work("teacher-cache", "", Device(), LARGE, "bfloat16", Lengths(10_000, 300, 200))
    needs = pass_needs(work, LARGE, "bfloat16", gpus=2)
    batch = 4096 * (8 * 3584 + 2 * 18_944) * 2
    logits = 1024 * 152_064 * 4
    assert needs.device_memory == LARGE_PARAMETERS + batch + logits == 8_783_730_176
    assert needs.memory == 1_500_000_000 + 2 * LARGE_PARAMETERS
    head = 3584 * 152_064
    operations = 2 * (LARGE_PARAMETERS - 2 * head - 3584) * 10_000 * 500 + 2 * head * 10_000 * 200
    assert needs.minutes == pytest.approx(0.25 + operations / (312e12 * 0.4) / 60 / 2)
    assert pass_needs(work, LARGE, "bfloat16", timed=False).minutes is None


def test_a_training_needs_a_gpu_a_process_and_each_loads_the_models() -> None:
    options = {
        "batch_size": 4, "batch_tokens": None, "max_length": 512, "gradient_accumulation_steps": 1, "steps": 1000,
        "epochs": None, "lora": None, "dtype": "bfloat16", "gradient_checkpointing": False, "chunked_loss": True,
        "chunk_tokens": 512,
    }  # fmt: skip
    launch = {"processes": 2, "sharded": ""}
    work = training_work("train", "", Device(), SMALL, options, Lengths(8000, 256, 256), launch)
    needs = training_needs([work], [weight_bytes(SMALL, "float32")], 2)
    assert needs.gpus == 2
    assert needs.memory == 2 * (1_500_000_000 + 4 * SMALL_PARAMETERS)
    # Weights in float32 and their copy, gradients and two moments; 34 bytes a unit of each layer; 12 rows of logits a token.
    assert needs.device_memory == 18 * SMALL_PARAMETERS + 2048 * 1536 * 28 * 34 + 512 * 151_936 * 4 * 12
    assert needs.minutes == pytest.approx(0.25 + 60 * work.gpu_hours / 2)
    again = training_needs([work, work], [0.0])
    assert again.minutes == pytest.approx(0.5 + 120 * work.gpu_hours)


def test_without_gpus_main_memory_holds_what_would_be_in_theirs() -> None:
    needs = Resources(gpus=2, memory=10**9, device_memory=5 * 10**9)
    assert needs.on_cpus() == Resources(gpus=0, memory=11 * 10**9)
    assert Resources(gpus=0.25, device_memory=10**9).on_cpus().memory == BASE_MEMORY + 10**9
    two = [Task(name, (), needs) for name in "ab"]
    assert len(Scheduler(two, [Place("gpus", 8, 4, 12 * 10**9)]).take()) == 2
    assert len(Scheduler(two, [Place("none", 8, 0, 12 * 10**9)]).take()) == 1
    # What the user says is what the job needs there too.
    asked = ResourceRequest(memory="5GB").applied_to(needs)
    assert (asked.memory, asked.on_cpus().memory) == (5 * 10**9, 5 * 10**9)


@pytest.fixture
def needs(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], tmp_path: Path
) -> Callable[..., dict[str, Resources]]:
    """What the jobs of the tiny matrix need, with changed parts of it."""

    def of(**changes: Any) -> dict[str, Resources]:
        for key, value in changes.items():
            tiny[key] = {**tiny.get(key, {}), **value}
        plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
        return {f"{job.kind}:{job.title}": job.resources for job in plan.jobs.values()}

    return of


# A layer: four maps of attention and three of the MLP, 32 × 32 each, and two norms; a norm, embedding and head of 896 tokens.
TINY = 7 * 32 * 32 + 2 * 32 + 32 + 2 * 896 * 32


def test_every_step_of_a_matrix_says_what_it_needs(needs: Callable[..., dict[str, Resources]]) -> None:
    found = needs()
    weights = 4 * TINY
    cache, logits = 64 * (512 + 4) * 2 * 2 * 16 * 4, 64 * 896 * 8
    for name, each in found.items():
        kind = name.split(":")[0]
        assert (kind, each.gpus) == (
            kind,
            float(kind in {"train", "evaluate", "teacher-cache"} or name == "model:model teacher"),
        )
        if kind in {"world", "data"}:
            assert each == Resources()
    evaluated = found["evaluate:evaluate teacher/teacher"]
    assert evaluated.memory == BASE_MEMORY + weights
    assert evaluated.device_memory == weights + cache + logits
    trained = found["train:train teacher__same/kd/seed1"]
    assert trained.memory == BASE_MEMORY + weights  # the teacher's outputs come from a cache
    student = 16 * TINY + 2 * 200 * 32 * 34 * 2
    assert trained.device_memory is not None
    assert trained.device_memory > student + 4 * 896 * 32  # of the teacher its head, and the loss
    assert (trained.minutes or 0) == pytest.approx(0.25 + 2 * 0.02 / 60)
    made = found["model:model same"]
    assert (made.memory, made.device_memory) == (BASE_MEMORY + weights, None)
    assert found["model:model teacher"].device_memory is not None


def test_parts_processes_and_tensor_parallel_are_gpus(needs: Callable[..., dict[str, Resources]]) -> None:
    found = needs(
        evaluation={"engine": "vllm", "parts": 2, "tensor_parallel": 2},
        teacher_cache={"engine": "vllm", "tensor_parallel": 4},
        launch={"processes": 2},
    )
    gpus = {name.split(":")[0]: each.gpus for name, each in found.items()}
    assert (gpus["evaluate"], gpus["teacher-cache"], gpus["train"]) == (4, 4, 2)
    assert found["train:train teacher__same/sft/seed1"].memory == 2 * (BASE_MEMORY + 4 * TINY)


def test_a_live_teacher_is_loaded_by_the_training(needs: Callable[..., dict[str, Resources]]) -> None:
    cached = needs()["train:train teacher__same/kd/seed1"]
    live = needs(teacher_outputs={"kind": "live"})["train:train teacher__same/kd/seed1"]
    assert live.memory == cached.memory + 4 * TINY
    assert live.device_memory == (cached.device_memory or 0) + 4 * (TINY - 896 * 32)


def test_a_model_of_unknown_shape_is_taken_for_a_small_one(
    tiny: dict[str, Any], needs: Callable[..., dict[str, Resources]]
) -> None:
    config = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1}
    for name in ("teacher", "same"):
        tiny["models"][name] = {**tiny["models"][name], "config": config}
    found = needs(evaluation={"parts": 2})
    assert found["train:train teacher__same/sft/seed1"] == Resources(gpus=1)
    assert found["evaluate:evaluate teacher__same/sft/seed1"] == Resources(gpus=2, memory=2 * BASE_MEMORY)
