"""What of each method is tuned: settings that can be trained, around the method's own, and few of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dskd.upstream.methods
from dskd.compatibility import check
from dskd.methods import METHODS, Method
from dskd.methods.space import Choice, Factor, Log, Range, Space, Uniform
from dskd.rollouts.options import RolloutOptions
from dskd.training.options import TrainingOptions
from helpers.method_cases import case, objective

PUBLISHED = [
    dskd.upstream.methods.DualSpaceV2,
    dskd.upstream.methods.DualSpaceV2ExactTokenAlignment,
    dskd.upstream.methods.DualSpaceV1CrossModelAttention,
]
EVERY = [*METHODS.values(), *PUBLISHED]
TRAINING = "training."
LEARNING_RATES = {"training.learning_rate", "training.projector_learning_rate"}


def training_of(method: Method) -> TrainingOptions:
    """As small as the method allows: its own text where it learns from nothing else."""
    always = method.requires.on_policy == "always"
    own = getattr(method.options, "temperature", 1.0) if method.requires.exact_sampling else 1.0
    return TrainingOptions(steps=1, rollouts=RolloutOptions(share=1.0, temperature=own) if always else None)


def problems(method: Method, training: TrainingOptions) -> list[str]:
    """What stops it with every kind of teacher outputs that it can learn from, by each way it may be given."""
    kinds = method.requires.teacher_outputs if method.requires.teacher else ("hidden_states",)
    vocabulary = method.requires.vocabulary == "same"
    live = check(method, rollouts=training.rollouts, same_vocabulary=vocabulary)
    served = [
        problem
        for kind in kinds
        for problem in check(
            method, teacher_outputs=kind, source="served", rollouts=training.rollouts, same_vocabulary=vocabulary
        )
    ]
    return [problem.text("") for problem in (*live, *served)]


def points(space: Space, number: int = 64) -> list[list[float]]:
    """Of the unit cube: its corners on the diagonal, and points spread by multiples of an irrational number."""
    spread = [
        [((k + 1) * 0.754877666**d * 0.618033988749) % 1.0 for d in range(1, len(space) + 1)] for k in range(number)
    ]
    return [[0.0] * len(space), [1.0 - 2**-53] * len(space), *spread]


def defaults_of(method: Method, training: TrainingOptions) -> dict[str, Any]:
    options = {f"{TRAINING}{name}": value for name, value in training.model_dump().items()}
    if training.rollouts is not None:
        options |= {f"{TRAINING}rollouts.{name}": value for name, value in training.rollouts.model_dump().items()}
    return options | method.options.model_dump()


def changed(options: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    first, _, rest = name.partition(".")
    return {**options, first: changed(options.get(first) or {}, rest, value) if rest else value}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: f"{kind.__module__}.{kind.name}")
def test_every_point_is_a_setting_that_can_be_trained(kind: type[Method]) -> None:
    method = kind()
    training = training_of(method)
    space, defaults = method.whole_space, defaults_of(method, training)
    assert set(space) <= set(defaults), "a name that is no option"
    known = problems(method, training)
    for point in points(space):
        options: dict[str, Any] = method.options.model_dump()
        changes = training.model_dump(exclude_unset=True)
        for (name, values), position in zip(space.items(), point, strict=True):
            value = values.value(position, defaults[name])
            if name.startswith(TRAINING):
                changes = changed(changes, name.removeprefix(TRAINING), value)
            else:
                options[name] = value
        made = kind(options)
        assert made.requires.exact_sampling == method.requires.exact_sampling
        assert made.requires.projectors == method.requires.projectors
        of_temperature = [text for text in problems(made, TrainingOptions.model_validate(changes)) if text not in known]
        # Where the teacher gives its most probable tokens, the temperature is one for all trials (harness/planning/tuned.py).
        assert [text for text in of_temperature if "the distributions are at temperature" not in text] == []


def holds(values: Range, default: Any) -> bool:
    if isinstance(values, Choice):
        return default in values.values
    if isinstance(values, Factor):
        return values.low <= 1.0 <= values.high
    assert isinstance(values, Uniform | Log)
    return values.low <= default <= values.high


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: f"{kind.__module__}.{kind.name}")
def test_the_default_is_inside_and_there_are_few_options_beside_the_learning_rates(kind: type[Method]) -> None:
    method = kind()
    space, defaults = method.whole_space, defaults_of(method, training_of(method))
    assert [name for name, values in space.items() if not holds(values, defaults[name])] == []
    own = set(space) - LEARNING_RATES
    assert len(own) <= 5
    assert "training.learning_rate" in space
    assert ("training.projector_learning_rate" in space) == method.requires.projectors
    # Whose text it is, and how long it is trained, is not chosen by trials.
    assert not [name for name in own if name.startswith(TRAINING) and name != "training.rollouts.temperature"]
    if issubclass(kind, METHODS["sft"]):
        assert own == set()


def test_methods_that_weigh_labels_and_temper_distributions_all_tune_both() -> None:
    """The comparison is of methods, so none may choose the weight of wrong labels, or the temperature, where another may not."""
    for name, kind in METHODS.items():
        space = kind().whole_space
        options = kind.Options.model_fields
        assert ("kd_rate" in options) == ("kd_rate" in space), name
        if "temperature" in options and kind.requires.on_policy != "always":
            assert "temperature" in space, name


def test_how_a_student_samples_is_tuned_only_where_the_loss_does_not_read_it() -> None:
    sampling = "training.rollouts.temperature"
    able = {name for name, kind in METHODS.items() if sampling in kind().whole_space}
    assert able == {"opd-full", "opd-student-top-k", "opd-top-k"}
    assert sampling not in METHODS["opd-top-k"]({"remainder": "unbiased_tail"}).whole_space
    tempered = METHODS["opd"]()
    wrong = check(tempered, rollouts=RolloutOptions(share=1.0, temperature=0.7))
    assert [problem.key for problem in wrong] == ["training.rollouts"]


def test_ranges_say_their_values_as_a_matrix_writes_them() -> None:
    assert Choice(None, False, 0.0, 0.25, 16, "kl").text == "null or false or 0 or 0.25 or 16 or kl"
    assert (Uniform(0, 1).text, Log(0.5, 4).text) == ("0 to 1", "0.5 to 4, by ratio")
    assert Factor(0.25, 4).text == "the default times 0.25 to 4, by ratio"


@pytest.mark.parametrize("name", [name for name in METHODS if not issubclass(METHODS[name], METHODS["sft"])])
def test_points_have_finite_losses_and_gradients_that_differ(name: str) -> None:
    """On random hidden states, at the corners and between: an option of a space that changes nothing, or breaks, is none to tune."""
    space = METHODS[name]().space
    defaults = METHODS[name]().options.model_dump()
    losses = set()
    for point in points(space, 5):
        pairs = zip(space.items(), point, strict=True)
        method = METHODS[name](
            {option: values.value(position, defaults[option]) for (option, values), position in pairs}
        )
        batch, _, leaves = case(method, head="softcap", seed=1)
        loss = objective(method, batch)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        assert torch.isfinite(loss), point
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None), point
        losses.add(round(float(sum(gradient.square().sum() for gradient in gradients if gradient is not None)), 6))
    assert len(losses) > 1
