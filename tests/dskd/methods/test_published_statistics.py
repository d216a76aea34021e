"""The published standard deviations of cross-model attention in training: over the teacher's whole padded micro-batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dskd import TeacherCacheOptions, build_teacher_cache, methods
from dskd.data.collator import Collator
from dskd.errors import InputError
from dskd.modeling.cross_model_attention import Layout
from dskd.modeling.lm_head import final_hidden_states
from dskd.teachers.options import TeacherSource
from dskd.training.run import TrainingOptions, train
from dskd.training.setup import load_run

PARITY = {"upstream_parity": True}
OPTIONS = {"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1}


CMA = "dskd.upstream.methods:DualSpaceV1CrossModelAttention"


def _loaded(
    world: Path, name: str = CMA, options: dict[str, Any] = PARITY, signal: Path | None = None, **training: Any
) -> tuple[Any, Any, Any, Any] | None:
    return load_run(
        world / "cross-data",
        world / "cross",
        TeacherSource(folder=world / "teacher", cache=signal),
        methods.get(name)(options),
        TrainingOptions(**{**OPTIONS, **training}),
        seed=0,
        device="cpu",
    )


class WidePadding(Collator):
    """Ten more columns of padding than needed, on the teacher's side."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        teacher = batch.teacher
        width = teacher.input_ids.shape[1]
        for key in ("input_ids", "position_ids", "attention_mask"):
            setattr(teacher, key, torch.nn.functional.pad(getattr(teacher, key), (0, 10)))
        row, column = teacher.labelled // width, teacher.labelled % width
        teacher.labelled = row * (width + 10) + column
        return batch


def _seen(distiller: Any, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the method's terms were given of a batch."""
    given = []
    terms = distiller.method.terms
    monkeypatch.setattr(distiller.method, "terms", lambda tokens: given.append(tokens) or terms(tokens))
    distiller(distiller.fetch(batch))
    return given[0]


@pytest.mark.parametrize("collator", [Collator(), WidePadding(), Collator(padding_side="left")])
def test_deviations_are_those_of_the_padded_tensors(
    world: Path, monkeypatch: pytest.MonkeyPatch, collator: Any
) -> None:
    """Built as the published code builds them: ids beside the labelled positions are 0, hidden states are as they come."""
    run = _loaded(world)
    dataset, distiller = run.dataset, run.distiller
    batch = collator([dataset[k] for k in (0, 1, 3)])
    tokens = _seen(distiller, batch, monkeypatch)
    teacher = distiller.teacher._model
    with torch.no_grad():
        ids, labelled = batch.teacher.input_ids, batch.teacher.labelled
        hidden = final_hidden_states(teacher, ids, batch.teacher.attention_mask, batch.teacher.position_ids)
        inputs, labels = torch.zeros(2, ids.numel(), dtype=torch.long)
        inputs[labelled], labels[labelled] = ids.flatten()[labelled], batch.teacher.labels
        embedding = teacher.get_input_embeddings().weight
        keys = torch.cat([embedding[inputs], embedding[labels]], dim=-1)
        values = hidden.flatten(0, 1) / hidden.std() + embedding[labels] / embedding[labels].std()
    _, found_keys, found_values = distiller.method._queries_keys_values(
        tokens, Layout(tokens.teacher.sizes, ids.device)
    )
    torch.testing.assert_close(found_keys, (keys / keys.std())[labelled])
    torch.testing.assert_close(found_values, values[labelled])


def test_padding_changes_the_published_result_and_not_ours(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, same in ((PARITY, False), ({}, True)):
        losses = []
        for collator in (Collator(), WidePadding()):
            torch.manual_seed(0)
            run = _loaded(world, options=options)
            dataset, distiller = run.dataset, run.distiller
            losses.append(distiller(distiller.fetch(collator([dataset[k] for k in range(4)])))[0].item())
        assert (losses[0] == pytest.approx(losses[1], rel=1e-5)) == same


def test_a_student_is_trained_with_the_published_statistics(world: Path, tmp_path: Path) -> None:
    losses = []
    for k, options in enumerate(({}, PARITY)):
        report = train(
            data=world / "cross-data",
            student=world / "cross",
            teacher=world / "teacher",
            method=CMA,
            method_options=options,
            options=TrainingOptions(**OPTIONS, gradient_accumulation_steps=2),
            output=tmp_path / str(k),
        )
        losses.append(report.losses["teacher_space"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_where_the_padding_is_not_known_it_is_an_error_that_says_what_to_do(world: Path, tmp_path: Path) -> None:
    signal = tmp_path / "signal"
    build_teacher_cache(
        world / "teacher", world / "teacher-data", signal, options=TeacherCacheOptions(kind="hidden_states")
    )
    with pytest.raises(InputError, match=r"prompt and padding, which no cache and no server has; fix: kind: live"):
        _loaded(world, signal=signal)
    assert _loaded(world, options={}, signal=signal)
    with pytest.raises(InputError, match=r"packing: .* padding, which packed rows do not have; fix: packing: false"):
        _loaded(world, packing=True)
