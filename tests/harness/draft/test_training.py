"""The training options of a draft follow from memory, disk and sizes by the formulas of estimates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dskd.training.options import TrainingOptions
from harness.costs.formulas import Lengths, training_work
from harness.costs.model_shapes import PUBLISHED_MODELS
from harness.draft.machine import Machine, look_at_machine
from harness.draft.sample import DraftedLengths
from harness.draft.training import EXAMPLES_A_STEP, DraftedTraining, choose_training

TEACHER = PUBLISHED_MODELS["Qwen/Qwen2.5-7B-Instruct"]
STUDENT = PUBLISHED_MODELS["Qwen/Qwen2.5-1.5B"]
LENGTHS = DraftedLengths(1024, 0.99, 2000, 1000, {}, None, Lengths(10_000, 200, 300))


def machine(gigabytes: float, *, disk: float = 1e13, device: str = "a GPU") -> Machine:
    return Machine(device, round(gigabytes * 1e9), 1, round(disk), 300.0)


def chosen(on: Machine, student: Any = STUDENT, teacher: Any = TEACHER, epochs: float = 1.0) -> DraftedTraining:
    pair: Any = SimpleNamespace(teacher=SimpleNamespace(shape=teacher), student=SimpleNamespace(shape=student))
    return choose_training(pair, LENGTHS, on, epochs)


def estimated(training: DraftedTraining, on: Machine) -> float:
    options = TrainingOptions.model_validate(training.options).model_dump()
    live = training.teacher_outputs == "live"
    work = training_work(
        "train", "", on.assumed, STUDENT, options, LENGTHS.means, teacher=TEACHER, live=live, dual=True
    )
    return work.bytes


@pytest.mark.parametrize("gigabytes", [20, 40, 80, 140, 1000])
def test_it_fits_as_the_formulas_say_and_takes_as_many_examples_a_step(gigabytes: float) -> None:
    on = machine(gigabytes)
    training = chosen(on)
    options = training.options
    assert options["batch_size"] * options["gradient_accumulation_steps"] == EXAMPLES_A_STEP
    assert training.bytes == pytest.approx(estimated(training, on))
    assert training.fits == (training.bytes <= 0.8 * on.memory)
    assert options["dtype"] == "bfloat16"


def test_less_memory_costs_time_before_it_costs_weights() -> None:
    spent = [chosen(machine(gigabytes)).options for gigabytes in (1000, 80, 40, 16)]
    assert [(o["batch_size"], o.get("gradient_checkpointing", False), "lora" in o) for o in spent[:1]] == [
        (32, False, False)
    ]
    assert sorted((o["batch_size"] for o in spent), reverse=True) == [o["batch_size"] for o in spent]
    assert spent[-1]["lora"] == {"rank": 16}
    assert spent[-1]["learning_rate"] == 2e-4
    assert spent[0]["learning_rate"] == 2e-5  # of a student of 1.5 B parameters
    assert not chosen(machine(4)).fits


def test_the_teacher_is_cached_where_its_hidden_states_find_room() -> None:
    cached, live = chosen(machine(140)), chosen(machine(140, disk=5e10))
    # 10,000 examples with 300 labels, 3,584 numbers of two bytes.
    assert cached.cache == 10_000 * 300 * 3584 * 2
    assert (cached.teacher_outputs, live.teacher_outputs) == ("hidden_states", "live")
    assert (live.bytes or 0) > (cached.bytes or 0) + 1e10


def test_a_shape_that_is_not_known_gives_a_batch_and_no_number() -> None:
    training = chosen(machine(1), teacher=None)
    assert (training.bytes, training.fits, training.cache, training.teacher_outputs) == (None, True, None, "live")


def test_epochs_and_steps() -> None:
    training = chosen(machine(140), epochs=2.5)
    assert training.steps == 782  # 25,000 examples by 32
    assert training.options["epochs"] == 2.5
    assert training.options["warmup_steps"] == 24


def test_this_machine_is_measured() -> None:
    here = look_at_machine()
    assert here.memory > 2**27
    assert here.tflops > 0
    assert here.assumed.peak_tflops == here.tflops
