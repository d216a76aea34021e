"""Whole training runs on tiny models: what must not change the result, what is written, and going on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from dskd import methods
from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError, TrainingFailed
from dskd.modeling.loading import load_model
from dskd.teachers.live import LiveTeacher
from dskd.training.checkpoints import LOG, RunFolder
from dskd.training.distiller import Distiller
from dskd.training.run import TrainingOptions, train
from dskd.training.trainer import PROJECTORS
from helpers import tiny_world
from helpers.training_runs import OPTIONS, ROUNDING, a_few_at_once, assert_same_weights, saved_weights, train_tiny


@pytest.mark.parametrize("name", a_few_at_once(methods.METHODS))
def test_accumulation_changes_nothing(world: Path, tmp_path: Path, name: str) -> None:
    # Of a text that the student writes, rounding that Adam makes larger would decide which token comes next.
    rate = 1e-3 if tiny_world.text_of(name) else OPTIONS["learning_rate"]
    whole = train_tiny(world, tmp_path / "whole", name, learning_rate=rate)
    for parts in (2, 4):
        split = {"batch_size": 4 // parts, "gradient_accumulation_steps": parts, "learning_rate": rate}
        split = train_tiny(world, tmp_path / str(parts), name, **split)
        assert split.losses["loss"] == pytest.approx(whole.losses["loss"], rel=1e-4)
        for term, value in whole.losses.items():
            assert split.losses[term] == pytest.approx(value, rel=1e-3, abs=1e-5), term
        assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / str(parts)), **ROUNDING)


def test_the_last_window_of_an_epoch_may_hold_fewer_micro_batches(world: Path, tmp_path: Path) -> None:
    # 20 examples are twelve and eight: four micro-batches of three, then two of three and one of two.
    lengths = {"steps": None, "epochs": 2.0}
    whole = train_tiny(world, tmp_path / "whole", "dskd-v2-eta", batch_size=12, **lengths)
    split = train_tiny(world, tmp_path / "split", "dskd-v2-eta", batch_size=3, gradient_accumulation_steps=4, **lengths)
    assert split.steps == whole.steps == 4
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "split"), **ROUNDING)


def _gradients(
    world: Path, name: str, rows: list[int], collator: Any, parts: int, fused: bool = True
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one optimizer step, as the trainer normalises it."""
    import datasets

    from dskd.modeling.loading import load_tokenizer
    from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary

    student = tiny_world.student_of(name)
    tokenizers = [load_tokenizer(world / folder) for folder in (student, "teacher")]
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in tokenizers]
    torch.manual_seed(0)  # for projectors that start at random
    distiller = Distiller(
        load_model(world / student),
        methods.get(name)(),
        student_size=vocabularies[0].size,
        teacher=LiveTeacher(load_model(world / "teacher"), vocabularies[1].size)
        if methods.get(name).requires.teacher
        else None,
        chunked=fused,
        chunk_tokens=16,
        shared=share_vocabulary(vocabularies[1], vocabularies[0]),
    )
    data = datasets.load_from_disk(str(world / f"{student}-data"))
    chosen = tiny_world.rows_of(data, name, rows)
    collator = tiny_world.pairing_as(name, collator)
    size = len(chosen) // parts
    batches = [distiller.fetch(collator(chosen[k : k + size])) for k in range(0, len(chosen), size)]
    distiller.method.on_step_begin(distiller.whole_student_head())
    distiller.precompute_step(batches)
    counts = [distiller.counts(batch) for batch in batches]
    totals = {key: torch.stack([count[key] for count in counts]).sum() for key in counts[0]}
    assert all(total > 0 for total in totals.values()), totals  # every term takes part
    total = 0.0
    for batch in batches:
        loss, _ = distiller(batch, totals)
        loss.backward()
        total += loss.item()
    return total, {key: value.grad for key, value in distiller.named_parameters() if value.grad is not None}


class WidePadding(Collator):
    """Ten more columns of padding than needed, on the same side."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        left = self.padding_side == "left"
        for side in filter(None, (batch.student, batch.teacher)):
            width = side.input_ids.shape[1]
            row, column = side.labelled // width, side.labelled % width
            side.labelled = row * (width + 10) + column + (10 if left else 0)
            for key in ("input_ids", "attention_mask", "position_ids"):
                value = getattr(side, key)
                extra = value.new_zeros((len(value), 10))
                setattr(side, key, torch.cat([extra, value] if left else [value, extra], dim=1))
        return batch


@pytest.mark.parametrize("name", methods.METHODS)
def test_padding_order_and_splitting_change_neither_loss_nor_gradients(world: Path, name: str) -> None:
    rows = list(range(8))
    loss, gradients = _gradients(world, name, rows, Collator("right"), 1)
    shuffled = [5, 2, 7, 0, 3, 6, 1, 4]
    variants = {
        "left padding": (rows, Collator("left"), 1),
        "more padding": (rows, WidePadding("right"), 1),
        "more padding on the left": (rows, WidePadding("left"), 1),
        "two parts": (rows, Collator("right"), 2),
        "eight parts": (rows, Collator("right"), 8),
        "four parts in another order": (shuffled, Collator("right"), 4),
        "not fused": (rows, Collator("right"), 1, False),
        "packed": (rows, Collator(packing=True), 1),
        "packed, two parts in another order": (shuffled, Collator(packing=True), 2),
    }
    for variant, arguments in variants.items():
        other_loss, other = _gradients(world, name, *arguments)
        assert other_loss == pytest.approx(loss, rel=1e-6), variant
        for key, value in gradients.items():
            torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-6, msg=lambda m, v=variant: f"{v}: {m}")


@pytest.mark.parametrize("name", a_few_at_once(methods.METHODS))
def test_a_student_is_an_ordinary_model_folder_with_its_projectors_beside_it(
    world: Path, tmp_path: Path, name: str
) -> None:
    report = train_tiny(world, tmp_path, name, steps=25)
    folder = tmp_path / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (
        tokenizer("The fox")["input_ids"]
        == AutoTokenizer.from_pretrained(world / tiny_world.student_of(name))("The fox")["input_ids"]
    )
    assert model.config.use_cache
    assert (folder / PROJECTORS).exists() == name.startswith("dskd")
    # vLLM takes every such file beside the weights for a part of them.
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert report.steps == 25
    assert (report.teacher_seconds > 0) == methods.get(name).requires.teacher
    assert report.tokens > 0
    untrained = train_tiny(world, tmp_path / "untrained", name, steps=25, learning_rate=1e-12)
    options = methods.get(name)().options
    if "cross_entropy" not in report.losses:  # text that it writes itself, which tests of these methods measure
        first, second = saved_weights(tmp_path), saved_weights(tmp_path / "untrained")
        assert not all(torch.equal(first[key], second[key]) for key in first)
    elif getattr(options, "kd_rate", 0.0) < 1.0 and getattr(options, "cross_entropy_weight", 1.0) == 1.0:
        assert report.losses["cross_entropy"] < untrained.losses["cross_entropy"] - 0.1
    else:  # the data's text is no target, or hardly one
        assert report.losses["loss"] < 0.9 * untrained.losses["loss"]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("name", ["sft", "dskd-v2-eta"])
def test_bfloat16_products_train_float32_weights_to_nearly_the_same_loss(
    world: Path, tmp_path: Path, name: str
) -> None:
    exact = train_tiny(world, tmp_path / "exact", name, learning_rate=1e-3)
    half = train_tiny(
        world,
        tmp_path / "half",
        name,
        learning_rate=1e-3,
        dtype="bfloat16",
        gradient_accumulation_steps=2,
        batch_size=2,
    )
    assert half.losses["cross_entropy"] == pytest.approx(exact.losses["cross_entropy"], rel=0.02)
    assert all(value.dtype == torch.float32 for value in saved_weights(tmp_path / "half").values())


def test_gradient_checkpointing_changes_nothing(world: Path, tmp_path: Path) -> None:
    whole = train_tiny(world, tmp_path / "whole", "dskd-v2-eta")
    saved = train_tiny(world, tmp_path / "saved", "dskd-v2-eta", gradient_checkpointing=True)
    assert saved.losses["loss"] == pytest.approx(whole.losses["loss"], rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("name", methods.METHODS)
def test_a_gpu_gives_the_loss_of_the_cpu(
    world: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = train_tiny(world, tmp_path / "gpu", name)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert train_tiny(world, tmp_path / "cpu", name).losses["loss"] == pytest.approx(on_gpu.losses["loss"], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sft", "dskd-v2-eta"])
def test_a_gpu_trains_in_bfloat16_with_the_student_in_float32(world: Path, tmp_path: Path, name: str) -> None:
    whole = train_tiny(world, tmp_path / "float32", name)
    half = train_tiny(world, tmp_path / "bfloat16", name, dtype="bfloat16")
    assert half.losses["loss"] == pytest.approx(whole.losses["loss"], rel=5e-2)
    assert {value.dtype for value in saved_weights(tmp_path / "bfloat16").values()} == {torch.float32}
    assert (half.peak_device_memory or 0) > 0


def test_projectors_are_trained_at_their_own_rate(world: Path, tmp_path: Path) -> None:
    for rate in (1e-2, 1e-9):
        train_tiny(world, tmp_path / str(rate), "dskd-v2-eta", projector_learning_rate=rate, learning_rate=1e-9)
    moved, still = (load_file(tmp_path / str(rate) / "model" / PROJECTORS) for rate in (1e-2, 1e-9))
    assert (moved["teacher_to_student"] - still["teacher_to_student"]).abs().max() > 1e-2


def test_the_teacher_does_not_change_and_is_no_part_of_what_is_trained(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dskd.training.setup as loading

    teachers = []

    def load(folder: Path, dtype: str = "float32") -> Any:
        model = load_model(folder, dtype)
        if folder == world / "teacher":
            teachers.append((model, {key: value.clone() for key, value in model.state_dict().items()}))
        return model

    monkeypatch.setattr(loading, "load_model", load)
    train_tiny(world, tmp_path, "dskd-v2-eta")
    ((teacher, before),) = teachers
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())


def test_a_torn_checkpoint_is_passed_over(world: Path, tmp_path: Path) -> None:
    torn = tmp_path / "checkpoints" / "checkpoint-5"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    assert train_tiny(world, tmp_path, "sft").resumed_from_step == 0


def test_a_run_killed_after_its_last_step_trains_none_more(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(world, tmp_path / "whole", "dskd-v2-eta", checkpoint_steps=3)
    monkeypatch.setattr(RunFolder, "finish", lambda *_, **__: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        train_tiny(world, tmp_path / "killed", "dskd-v2-eta", checkpoint_steps=3)
    monkeypatch.undo()
    report = train_tiny(world, tmp_path / "killed", "dskd-v2-eta", checkpoint_steps=3)
    assert (report.steps, report.resumed_from_step) == (6, 6)
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "killed"), rtol=0, atol=0)


def test_a_run_that_is_done_returns_its_report_and_another_is_refused_its_folder(world: Path, tmp_path: Path) -> None:
    first = train_tiny(world, tmp_path, "sft")
    written = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert train_tiny(world, tmp_path, "sft") == first
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(InputError, match=r"holds a training with another options; fix:"):
        train_tiny(world, tmp_path, "sft", learning_rate=1e-5)
    fewer = tmp_path / "fewer"
    prepare_dataset(world / "train.jsonl", fewer, student=world / "cross", teacher=world / "teacher", limit=5)
    with pytest.raises(InputError, match=r"holds a training with another data; fix:"):
        train(data=fewer, student=world / "cross", options=TrainingOptions(**OPTIONS), seed=3, output=tmp_path)


@pytest.mark.parametrize("damage", ["no weights", "half a state", "no optimizer"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(RunFolder, "finish", lambda *_, **__: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        train_tiny(world, tmp_path, "sft", checkpoint_steps=3)
    monkeypatch.undo()
    newest = tmp_path / "checkpoints" / "checkpoint-6"
    if damage == "half a state":
        state = newest / "trainer_state.json"
        state.write_text(state.read_text()[:50])
    else:
        (newest / ("model.safetensors" if damage == "no weights" else "optimizer.pt")).unlink()
    assert train_tiny(world, tmp_path, "sft", checkpoint_steps=3).resumed_from_step == 3


def test_data_for_other_tokenizers_or_longer_than_the_model_is_refused(world: Path, tmp_path: Path) -> None:
    def run(data: str, student: Path) -> Any:
        options = TrainingOptions(**OPTIONS)
        return train(data=world / data, student=student, method="sft", options=options, output=tmp_path / "out")

    with pytest.raises(InputError, match=r"prepared for another student tokenizer; fix:"):
        run("cross-data", world / "same")
    short = load_model(world / "same")
    short.config.n_positions = 8
    short.save_pretrained(tmp_path / "short")
    AutoTokenizer.from_pretrained(world / "same").save_pretrained(tmp_path / "short")
    (tmp_path / "short" / "model.safetensors").unlink()
    GPT2LMHeadModel(short.config).save_pretrained(tmp_path / "short")
    with pytest.raises(
        InputError, match=r"the model has 8 positions, but the data examples of \d+ tokens; fix: .*max_length 8"
    ):
        run("same-data", tmp_path / "short")
    assert not (tmp_path / "out").exists()


def test_a_method_for_one_vocabulary_refuses_two(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kd needs one vocabulary.*dskd-v2-eta"):
        train(
            data=world / "cross-data",
            student=world / "cross",
            teacher=world / "teacher",
            method="kd",
            options=TrainingOptions(**OPTIONS),
            output=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_a_missing_model_folder_is_a_one_line_error(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such .* folder; fix:"):
        train(
            data=world / "cross-data",
            student=tmp_path / "nowhere",
            options=TrainingOptions(**OPTIONS),
            output=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(
    world: Path, tmp_path: Path, logging_steps: int
) -> None:
    with pytest.raises(TrainingFailed, match=r"the loss is nan at step \d+; fix: lower learning_rate"):
        train_tiny(
            world,
            tmp_path,
            "sft",
            learning_rate=1e30,
            max_gradient_norm=0,
            logging_steps=logging_steps,
            checkpoint_steps=3,
        )
    assert not (tmp_path / "model").exists()
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def _predicted(model: Any, rows: Any, side: str) -> float:
    """How often a model predicts its labels, example by example and with its own logits."""
    hits = labels = 0
    for row in rows:
        ids, start = row[f"{side}_ids"], row[f"{side}_prompt_length"]
        with torch.no_grad():
            logits = model.eval()(torch.tensor([ids])).logits[0]
        hits += sum(int(logits[place - 1].argmax()) == ids[place] for place in range(start, len(ids)))
        labels += len(ids) - start
    return hits / labels


@pytest.mark.parametrize("changes", [{}, {"batch_size": 10, "gradient_accumulation_steps": 2}, {"chunk_tokens": 7}])
def test_how_often_the_models_predict_their_labels_is_logged(
    world: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    rows = datasets.load_from_disk(str(world / "same-data"))
    whole = {"steps": 1, "batch_size": len(rows), "learning_rate": 1e-12, **changes}
    assert whole["batch_size"] * whole.get("gradient_accumulation_steps", 1) == len(rows) == 20
    report = train_tiny(world, tmp_path, "kd", **whole)
    for name, side in (("same", "student"), ("teacher", "teacher")):
        model = AutoModelForCausalLM.from_pretrained(world / name)
        assert report.losses[f"{side}_accuracy"] == pytest.approx(_predicted(model, rows, side))


def test_logged_steps_stand_in_the_models_folder(world: Path, tmp_path: Path) -> None:
    report = train_tiny(world, tmp_path, "dskd-v2", steps=4, logging_steps=2)
    entries = [json.loads(line) for line in (tmp_path / "model" / LOG).read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [2, 4]
    expected = {
        "loss",
        "cross_entropy",
        "agreement",
        "aligned_share",
        "student_accuracy",
        "teacher_accuracy",
        "learning_rate",
    }
    assert expected <= set(entries[-1])
    assert entries[-1]["loss"] == report.losses["loss"]
    assert entries[-1]["grad_norm"] == report.gradient_norm > 0


def test_a_tracker_that_is_not_installed_is_one_line(world: Path, tmp_path: Path) -> None:
    from transformers.integrations import get_available_reporting_integrations

    missing = next(
        (n for n in ("tensorboard", "wandb", "mlflow") if n not in get_available_reporting_integrations()), None
    )
    if missing is None:
        pytest.skip("every tracker is installed")
    with pytest.raises(InputError, match=f"trackers: {missing} is not installed; fix: pip install {missing}"):
        train_tiny(world, tmp_path, "kd", trackers=[missing])
