"""Text that the student writes itself: what it depends on, what a batch makes of it, and runs that learn from it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from dskd import TeacherCacheOptions, build_teacher_cache, methods
from dskd.data.collator import Collator
from dskd.data.preparation import Encoded, prepared_row
from dskd.errors import InputError
from dskd.methods.base import cross_entropy
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.rollouts.drawing import draw
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.sampler import Prompt, Sample, TransformersSampler
from dskd.tokenization.vocabulary import Vocabulary
from dskd.training.checkpoints import RunFolder
from dskd.training.run import TrainingOptions, train
from helpers import method_cases
from helpers.rollouts import Written, make_rollouts, numbered_rows, rollout_records, with_prompt
from helpers.training_runs import ROUNDING, assert_same_weights, saved_weights, train_tiny

ROLLOUTS = {"share": 0.6, "max_new_tokens": 12}


# Drawing one token


def _drawn_slowly(logits: list[float], number: float, temperature: float, top_p: float) -> int:
    """One row, by Python loops."""
    weights = [math.exp(value / temperature) for value in logits]
    p = [weight / sum(weights) for weight in weights]
    order = list(range(len(p)))
    if top_p < 1:
        order.sort(key=lambda k: -p[k])
        held, kept = 0.0, []
        for k in order:
            if held >= top_p:
                break
            kept.append(k)
            held += p[k]
        order = kept
    left = number * sum(p[k] for k in order)
    for k in order:
        left -= p[k]
        if left < 0:
            return k
    raise AssertionError


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 1e-9])
def test_a_token_is_drawn_where_the_cumulative_probability_passes_the_number(temperature: float, top_p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 17, generator=generator)
    numbers = torch.rand(300, generator=generator, dtype=torch.float64)
    expected = [
        _drawn_slowly(row, u, temperature, top_p) for row, u in zip(logits.tolist(), numbers.tolist(), strict=True)
    ]
    assert draw(logits, numbers, temperature, top_p).tolist() == expected


def test_numbers_spread_evenly_draw_every_token_as_often_as_its_probability() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, -30.0]])
    numbers = torch.arange(10_000, dtype=torch.float64) / 10_000
    counts = torch.bincount(draw(logits.expand(10_000, -1), numbers), minlength=5) / 10_000
    torch.testing.assert_close(counts, logits[0].softmax(-1), rtol=0, atol=2e-4)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("number", [0.0, np.nextafter(1.0, 0.0)])
def test_the_least_and_the_largest_number_draw_a_possible_token(number: float, top_p: float) -> None:
    logits = torch.tensor([[-torch.inf, 3.0, -torch.inf, 1.0, -torch.inf]])
    assert draw(logits, torch.tensor([number], dtype=torch.float64), 1.0, top_p).item() in (1, 3)


# Samples of a model


def _both(prompts: Any) -> Any:
    return [Prompt(prompt, prompt) for prompt in prompts]


def _sampler(
    folder: Path, name: str, options: RolloutOptions | None = None
) -> tuple[TransformersSampler, Any, Vocabulary]:
    options = options or RolloutOptions()
    tokenizer, model = load_tokenizer(folder / name), load_model(folder / name)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    return (
        TransformersSampler(
            model, vocabulary, tokenizer.eos_token_id, temperature=options.temperature, top_p=options.top_p
        ),
        model,
        vocabulary,
    )


def _sampled_slowly(
    model: Any, vocabulary: Vocabulary, end: int, prompt: list[int], numbers: np.ndarray, options: RolloutOptions
) -> list[int]:
    """One prompt, without padding and without a cache."""
    ids = []
    for number in numbers:
        logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
        known = [k for k in range(vocabulary.size) if vocabulary.token_bytes[k] or k == end]
        token = known[_drawn_slowly(logits[known].tolist(), number, options.temperature, options.top_p)]
        ids.append(token)
        if token in vocabulary.special_ids:
            break
    return ids


@pytest.mark.parametrize("name", ["same", "cross"])
@pytest.mark.parametrize(
    "options", [RolloutOptions(), RolloutOptions(temperature=0.7, top_p=0.8)], ids=["plain", "cut"]
)
def test_samples_are_those_of_a_slow_loop_without_padding_and_cache(
    dropping: Path, name: str, options: RolloutOptions
) -> None:
    sampler, model, vocabulary = _sampler(dropping, name, options)
    end = load_tokenizer(dropping / name).eos_token_id
    data = datasets.load_from_disk(str(dropping / f"{name}-data"))
    prompts = [row["student_ids"][: row["student_prompt_length"]] for row in data.select(range(6))]
    assert len(set(map(len, prompts))) > 1
    numbers = np.random.default_rng(0).random((6, 10))
    model.train()
    random = torch.random.get_rng_state()
    samples = sampler.sample(_both(prompts), numbers)
    assert torch.equal(random, torch.random.get_rng_state())
    model.eval()
    with torch.no_grad():
        slow = [_sampled_slowly(model, vocabulary, end, p, n, options) for p, n in zip(prompts, numbers, strict=True)]
    assert [sample.ids for sample in samples] == slow
    assert [sample.ended for sample in samples] == [ids[-1] == end for ids in slow]


def test_sampling_leaves_the_modes_and_rules_of_the_model_as_they_were_and_follows_no_rules_but_its_own(
    dropping: Path,
) -> None:
    sampler, model, _ = _sampler(dropping, "same")
    numbers = np.random.default_rng(0).random((2, 10))
    before = sampler.sample(_both([[5, 6, 7], [8, 9]]), numbers)
    rules = GenerationConfig(repetition_penalty=50.0, min_new_tokens=9, suppress_tokens=[5], do_sample=True, top_k=1)
    model.generation_config = rules
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    assert sampler.sample(_both([[5, 6, 7], [8, 9]]), numbers) == before
    assert [module.training for module in model.modules()] == modes
    assert model.generation_config is rules


def test_rows_of_the_head_that_stand_for_no_token_are_never_drawn(world: Path) -> None:
    _, model, vocabulary = _sampler(world, "same")
    assert model.lm_head.weight.shape[0] > vocabulary.size
    model.lm_head = torch.nn.Linear(model.lm_head.in_features, model.lm_head.out_features)
    torch.nn.init.constant_(model.lm_head.bias, 0.0)
    with torch.no_grad():
        model.lm_head.bias[vocabulary.size :] = 1e4
        model.lm_head.bias[9] = 1e3
    gaps = replace(vocabulary, tokens=tuple(None if k == 9 else v for k, v in enumerate(vocabulary.tokens)))
    for known, holes in ((vocabulary, set()), (gaps, {9})):
        sampler = TransformersSampler(model, known, 0)
        samples = sampler.sample(_both([[5, 6, 7]] * 4), np.random.default_rng(0).random((4, 10)))
        drawn = {token for sample in samples for token in sample.ids}
        assert all(token < vocabulary.size and token not in holes for token in drawn)
        assert holes or drawn == {9}


# Rows of a batch


@pytest.mark.parametrize("name", ["same", "cross"])
def test_the_response_of_the_data_sampled_anew_gives_the_row_of_the_data(world: Path, name: str) -> None:
    rows = with_prompt(numbered_rows(world, name))
    assert len(rows) > 10
    for row in rows:
        written = Written(Sample(row["student_ids"][row["student_prompt_length"] :], ended=True))
        rollouts = make_rollouts(world, name, written)
        assert rollouts.take([[row]], epoch=0, step=1) == [[{**row, "sampled": True, "version": 1}]]
        assert not rollouts.counts["not encodable"]


@pytest.mark.parametrize("name", ["same", "cross"])
def test_the_end_is_supervised_where_the_sample_has_one_and_nowhere_else(world: Path, name: str) -> None:
    row = with_prompt(numbered_rows(world, name))[0]
    ids = row["student_ids"][row["student_prompt_length"] : -1]
    ends = {side: load_tokenizer(world / side).eos_token_id for side in (name, "teacher")}
    for ended in (True, False):
        sample = Sample(ids + [ends[name]] * ended, ended)
        ((found,),) = make_rollouts(world, name, Written(sample)).take([[row]], epoch=0, step=1)
        assert found["sampled"]
        for side, model in (("student", name), ("teacher", "teacher")):
            labels = found[f"{side}_ids"][found[f"{side}_prompt_length"] :]
            assert (labels[-1] == ends[model]) == ended
            assert ends[model] not in labels[:-1]
            assert len(found[f"{side}_groups"]) == len(labels)
            assert max(found[f"{side}_pairs"]) < len(labels)
        assert found["student_pairs"] == row["student_pairs"][: None if ended else -1]
        assert found["student_groups"] == row["student_groups"][: None if ended else -1]


def test_a_teacher_with_the_same_vocabulary_reads_the_very_tokens_also_where_they_are_no_text(world: Path) -> None:
    row = with_prompt(numbered_rows(world, "same"))[0]
    vocabulary = Vocabulary.from_tokenizer(load_tokenizer(world / "same"))
    half = vocabulary.id_of[b"\xc3"]
    ids = [vocabulary.id_of[b"T"], vocabulary.id_of[b"h"], half, vocabulary.id_of[b"e"]]  # not how "The" is tokenized
    ((found,),) = make_rollouts(world, "same", Written(Sample(ids, ended=False))).take([[row]], epoch=0, step=1)
    assert found["teacher_ids"] == row["teacher_ids"][: row["teacher_prompt_length"]] + ids
    assert found["teacher_pairs"] == found["student_pairs"] == [0, 1, 2, 3]


def test_a_character_that_was_cut_is_left_out(world: Path) -> None:
    row = with_prompt(numbered_rows(world, "cross"))[0]
    side = Vocabulary.from_tokenizer(load_tokenizer(world / "cross"))
    ids = [side.id_of[b"a"], side.id_of[b"\xe2"], side.id_of[b"\x82"]]
    rollouts = make_rollouts(world, "cross", Written(Sample(ids, ended=False)))
    ((found,),) = rollouts.take([[row]], epoch=0, step=1)
    assert found["student_ids"][found["student_prompt_length"] :] == ids[:1]


def test_what_cannot_be_a_response_leaves_the_example_of_the_data_and_is_counted(world: Path, tmp_path: Path) -> None:
    row = with_prompt(numbered_rows(world, "cross"))[0]
    tokenizer = load_tokenizer(world / "cross")
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    end, a = tokenizer.eos_token_id, vocabulary.id_of[b"a"]
    teacher = Vocabulary.from_tokenizer(load_tokenizer(world / "teacher"))
    spelled = next(teacher.special_token_text[k] for k in sorted(teacher.special_ids))
    cases = {
        "not text": Sample([vocabulary.id_of[b"\xe2"], a, end], ended=True),
        "special token": Sample([a, tokenizer.bos_token_id], ended=False),
        "too long": Sample([a, a, a, end], ended=True),
    }
    for reason, sample in cases.items():
        path = tmp_path / f"{reason}.jsonl"
        rollouts = make_rollouts(world, "cross", Written(sample), path, positions=4 if reason == "too long" else None)
        assert rollouts.take([[row]], epoch=2, step=7) == [[{**row, "sampled": False}]], reason
        assert rollouts.counts[reason] == 1
        (record,) = map(json.loads, path.read_text().splitlines())
        assert record["left_out"] == reason
        assert (record["step"], record["epoch"], record["example"]) == (7, 2, row["example"])
        assert (record["tokens"], record["ended"]) == (sample.ids, sample.ended)
    # Letters that the student spells one by one, and the teacher reads as a command.
    letters = [vocabulary.id_of[bytes([byte])] for byte in spelled]
    rollouts = make_rollouts(world, "cross", Written(Sample([*letters, end], ended=True)))
    assert rollouts.take([[row]], epoch=0, step=1) == [[{**row, "sampled": False}]]
    assert rollouts.counts["special token"] == 1


def test_a_row_that_may_have_no_prompt_is_not_sampled(world: Path) -> None:
    row = next(row for row in numbered_rows(world, "same") if row["student_prompt_length"] == 1)
    written = Written()
    rollouts = make_rollouts(world, "same", written)
    assert rollouts.take([[row]], epoch=0, step=1) == [[{**row, "sampled": False}]]
    assert not written.asked
    assert rollouts.counts == {"no prompt": 1}


@pytest.mark.parametrize("name", ["same", "cross"])
def test_an_example_gets_the_same_sample_whatever_batch_it_is_in(world: Path, name: str) -> None:
    rows = numbered_rows(world, name)
    options = {"share": 0.6, "max_new_tokens": 10}
    (whole,) = make_rollouts(world, name, _sampler(world, name)[0], **options).take([rows], epoch=1, step=1)
    assert 0 < sum(row["sampled"] for row in whole) < len(rows)
    one_by_one = make_rollouts(world, name, _sampler(world, name)[0], **options)
    alone = [one_by_one.take([[row]], epoch=1, step=1)[0][0] for row in reversed(rows)]
    assert alone[::-1] == whole
    parts = make_rollouts(world, name, _sampler(world, name)[0], **options).take([rows[:7], rows[7:]], epoch=1, step=1)
    assert parts == [whole[:7], whole[7:]]


def test_seed_epoch_and_example_decide_what_is_drawn_and_nothing_else(world: Path) -> None:
    row = with_prompt(numbered_rows(world, "same"))[0]

    def numbers(seed: int, epoch: int, example: int, length: int = 12) -> tuple[float, ...]:
        written = Written(Sample([5], ended=False))
        rollouts = make_rollouts(world, "same", written, seed=seed, max_new_tokens=length)
        rollouts.take([[{**row, "example": example}]], epoch=epoch, step=1)
        return tuple(written.asked[0][1])

    first = numbers(0, 0, 0)
    assert len({first, numbers(1, 0, 0), numbers(0, 1, 0), numbers(0, 0, 1)}) == 4
    assert numbers(0, 0, 0) == first
    assert numbers(0, 0, 0, length=20)[:12] == first


def test_a_share_of_the_examples_is_sampled_from_an_epoch_on(world: Path) -> None:
    row = with_prompt(numbered_rows(world, "same"))[0]
    rows = [{**row, "example": k} for k in range(2000)]

    def sampled(epoch: int, **options: Any) -> set[Any]:
        rollouts = make_rollouts(world, "same", Written(Sample([5], ended=False)), start_epoch=1, **options)
        return {row["example"] for row in rollouts.take([rows], epoch=epoch, step=1)[0] if row["sampled"]}

    assert not sampled(0)
    assert len(sampled(1, share=1.0)) == 2000
    assert not sampled(1, share=0.0)
    third = sampled(1, share=0.3)
    assert abs(len(third) - 600) < 80
    assert third < sampled(2 - 1, share=0.5)
    assert third != sampled(2, share=0.3)


@pytest.mark.parametrize("packing", [False, True])
def test_a_batch_says_of_each_label_whether_it_was_sampled_and_numbers_groups_of_cut_samples(packing: bool) -> None:
    def row(
        student: list[tuple[int, int]], teacher: list[tuple[int, int]], ended: bool, sampled: bool
    ) -> dict[str, Any]:
        def side(spans: list[tuple[int, int]]) -> Encoded:
            end = [0] * ended
            return Encoded([1, *[2] * len(spans), *end], 1, np.array(spans), ended=ended)

        return {**prepared_row(side(student), side(teacher)), "sampled": sampled}

    rows = [
        row([(0, 1), (1, 2), (2, 4)], [(0, 2), (2, 3), (3, 4)], ended=False, sampled=True),
        row([(0, 2)], [(0, 1), (1, 2)], ended=True, sampled=False),
        row([(0, 1), (1, 3), (-1, -1)], [(0, 2), (2, 3)], ended=False, sampled=True),
        row([(0, 1)], [(0, 1)], ended=True, sampled=False),
    ]
    batch = Collator(packing=packing)(rows)
    assert batch.student.sampled.tolist() == [True] * 3 + [False] * 2 + [True] * 3 + [False] * 2
    assert len(batch.student.sampled) == len(batch.student.labels)
    assert batch.student.groups.tolist() == [0, 0, 1, 2, 3, 4, 4, -1, 5, 6]
    assert batch.teacher.groups.tolist() == [0, 1, 1, 2, 2, 3, 4, 4, 5, 6]


def test_sampled_labels_have_no_cross_entropy() -> None:
    batch, _, leaves = method_cases.case(methods.get("sft")(), tokens=9)
    sampled = torch.tensor([False, True, True, False, False, True, False, False, True])
    logits = batch.student.head.logits(batch.student.hidden, padded=True)
    slow = sum(-logits[k].log_softmax(-1)[batch.student.labels[k]] for k in range(9) if not sampled[k])
    batch.student.sampled = sampled
    term = cross_entropy(batch, logits)
    torch.testing.assert_close(term.total, slow)
    assert term.normalizer == 9
    (gradient,) = torch.autograd.grad(term.total, leaves[0])
    assert torch.equal(gradient.abs().sum(-1) == 0, sampled)
    parts = [batch.part(first, first + 4) for first in (0, 4, 8)]
    sums = [cross_entropy(part, part.student.head.logits(part.student.hidden, padded=True)).total for part in parts]
    torch.testing.assert_close(sum(sums), slow)


# Whole runs


def test_a_share_of_zero_trains_as_no_rollouts_do(dropping: Path, tmp_path: Path) -> None:
    train_tiny(dropping, tmp_path / "none")
    report = train_tiny(dropping, tmp_path / "zero", rollouts={**ROLLOUTS, "share": 0.0})
    assert_same_weights(saved_weights(tmp_path / "none"), saved_weights(tmp_path / "zero"), rtol=0, atol=0)
    assert report.rollouts.samples == 0
    assert report.rollouts.mean_length is None


@pytest.mark.parametrize(("name", "student"), [("kd", "same"), ("dskd-v2-eta", "cross")])
def test_accumulation_changes_neither_samples_nor_what_is_learned(
    world: Path, tmp_path: Path, name: str, student: str
) -> None:
    logged = []
    whole = train_tiny(world, tmp_path / "whole", name, student, rollouts=ROLLOUTS, progress=logged.append)
    split = train_tiny(
        world, tmp_path / "split", name, student, rollouts=ROLLOUTS, batch_size=1, gradient_accumulation_steps=4
    )
    for term, value in whole.losses.items():
        assert split.losses[term] == pytest.approx(value, rel=1e-3, abs=1e-5), term
    assert rollout_records(tmp_path / "whole") == rollout_records(tmp_path / "split")
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "split"), **ROUNDING)
    assert whole.rollouts.model_dump(exclude={"seconds"}) == split.rollouts.model_dump(exclude={"seconds"})
    records = rollout_records(tmp_path / "whole")
    assert whole.rollouts.samples == len(records) > 5
    assert [record["epoch"] for record in records] == [(record["step"] - 1) // 5 for record in records]
    assert {record["epoch"] for record in records} == {0, 1}
    assert whole.rollouts.mean_length == pytest.approx(np.mean([len(record["tokens"]) for record in records]))
    assert whole.rollouts.ended_share == pytest.approx(np.mean([record["ended"] for record in records]))
    assert 0 < whole.rollouts.seconds < whole.train_seconds
    assert not {"rollouts", "rollout_length"} & set(whole.losses)
    assert [event["rollouts"] for event in logged if "loss" in event][-1] == len(records)


def test_a_step_on_mixed_text_has_the_loss_of_its_texts(world: Path, tmp_path: Path) -> None:
    options = {"steps": 1, "batch_size": 20, "rollouts": ROLLOUTS}
    report = train(
        data=world / "same-data",
        student=world / "same",
        teacher=world / "teacher",
        method="gkd",
        method_options={"kd_rate": 0.4},
        options=TrainingOptions(**options),
        output=tmp_path,
    )
    written = {record["example"]: record["tokens"] for record in rollout_records(tmp_path)}
    assert 5 < len(written) < 15
    size = Vocabulary.from_tokenizer(load_tokenizer(world / "same")).size
    student, teacher = load_model(world / "same").eval(), load_model(world / "teacher").eval()
    tokens = distillation = truth = 0.0
    for row in numbered_rows(world, "same"):
        start = row["student_prompt_length"]
        ids = row["student_ids"][:start] + written.get(row["example"], row["student_ids"][start:])
        with torch.no_grad():
            z, other = (model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1] for model in (student, teacher))
        q, p = z[:, :size].softmax(-1), other[:, :size].softmax(-1)
        m = (p + q) / 2
        distillation += float((p * (p / m).log() + q * (q / m).log()).sum() / 2)
        if row["example"] not in written:
            truth += float(torch.nn.functional.cross_entropy(z, torch.tensor(ids[start:]), reduction="sum"))
        tokens += len(ids) - start
    assert report.losses["distillation"] == pytest.approx(distillation / tokens, rel=1e-4)
    assert report.losses["cross_entropy"] == pytest.approx(truth / tokens, rel=1e-4)
    assert report.losses["loss"] == pytest.approx((0.6 * truth + 0.4 * distillation) / tokens, rel=1e-4)


def test_bfloat16_products_write_text_as_well(world: Path, tmp_path: Path) -> None:
    report = train_tiny(world, tmp_path, "gkd", rollouts=ROLLOUTS, dtype="bfloat16", gradient_accumulation_steps=2)
    assert report.rollouts.samples > 5
    assert all(value.dtype == torch.float32 for value in saved_weights(tmp_path).values())


def test_a_run_that_was_killed_samples_the_same_again_and_ends_with_the_same_weights(
    dropping: Path, tmp_path: Path
) -> None:
    options = {"rollouts": ROLLOUTS, "steps": 8, "checkpoint_steps": 3}  # an epoch has five steps
    train_tiny(dropping, tmp_path / "whole", **options)

    def kill(event: dict[str, Any]) -> None:
        if event["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tiny(dropping, tmp_path / "killed", progress=kill, **options)
    assert max(record["step"] for record in rollout_records(tmp_path / "killed")) == 8
    with (tmp_path / "killed" / "rollouts" / "0.jsonl").open("a") as file:
        file.write('{"step": 8, "exam')  # killed while it wrote
    assert train_tiny(dropping, tmp_path / "killed", **options).resumed_from_step == 6
    assert rollout_records(tmp_path / "killed") == rollout_records(tmp_path / "whole")
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "killed"), rtol=0, atol=0)


def test_what_was_written_after_a_step_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.rollouts(1, 0)
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step":')
    assert folder.rollouts(1, 2) == path
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_an_adapter_writes_as_it_is_and_checkpointed_layers_change_nothing(dropping: Path, tmp_path: Path) -> None:
    options = {"rollouts": ROLLOUTS, "lora": {"rank": 4, "dropout": 0.2}, "steps": 4}
    train_tiny(dropping, tmp_path / "plain", **options)
    train_tiny(dropping, tmp_path / "checkpointed", gradient_checkpointing=True, **options)
    records = rollout_records(tmp_path / "plain")
    assert records == rollout_records(tmp_path / "checkpointed")
    # The adapter has learned: its last samples are not those of the model without it.
    still = train_tiny(dropping, tmp_path / "still", **{**options, "learning_rate": 1e-12})
    assert still.rollouts.samples == len(records)
    assert [r["tokens"] for r in records] != [r["tokens"] for r in rollout_records(tmp_path / "still")]


def test_batches_by_tokens_leave_room_for_samples(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_tokens: 60, but example"):
        train_tiny(world, tmp_path, rollouts={"max_new_tokens": 100}, batch_tokens=60, batch_size=16)
    train_tiny(world, tmp_path / "fits", rollouts=ROLLOUTS, batch_tokens=120, batch_size=16, packing=True)


TRAIN = """
    import json, sys
    from pathlib import Path
    import torch
    from dskd.training.run import TrainingOptions, train

    world, output, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    report = train(data=world / "cross-data", student=world / "cross", teacher=world / "teacher", method="dskd-v2-eta",
                   options=TrainingOptions(**options), seed=3, output=output)
    (output / f"report-{torch.distributed.get_rank()}.json").write_text(report.model_dump_json())
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow  # test_replay.py has two processes too
def test_two_processes_write_and_learn_what_one_does(world: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAIN))
    options = {"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "rollouts": ROLLOUTS}
    arguments = [str(script), str(world), str(tmp_path / "two"), json.dumps(options)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    one = train_tiny(world, tmp_path / "one", "dskd-v2-eta", "cross", **{**options, "gradient_accumulation_steps": 2})
    assert len(list((tmp_path / "two" / "rollouts").glob("*.jsonl"))) == 2
    assert all(path.stat().st_size for path in (tmp_path / "two" / "rollouts").glob("*.jsonl"))
    assert rollout_records(tmp_path / "two") == rollout_records(tmp_path / "one")
    for rank in (0, 1):
        two = json.loads((tmp_path / "two" / f"report-{rank}.json").read_text())
        assert two["losses"] == pytest.approx(one.losses, rel=1e-4)
        assert {**two["rollouts"], "seconds": 0} == {**one.rollouts.model_dump(), "seconds": 0}
    for name, value in saved_weights(tmp_path / "one").items():
        torch.testing.assert_close(saved_weights(tmp_path / "two")[name], value, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "rollouts", "signal", "reason"),
    [
        ("sft", {}, None, r"rollouts: sft learns from the data's text alone; fix:"),
        ("kd", {}, "signal", r"rollouts: a cached teacher cannot judge.*fix:.*live"),
        (
            "kd",
            {"max_new_tokens": 200},
            None,
            r"128 positions, but the longest prompt \d tokens; fix: .*max_new_tokens",
        ),
    ],
)
def test_what_cannot_work_is_a_one_line_error_before_anything_is_written(
    world: Path, tmp_path: Path, name: str, rollouts: dict[str, Any], signal: str | None, reason: str
) -> None:
    if signal:
        build_teacher_cache(world / "teacher", world / "teacher-data", tmp_path / signal, options=TeacherCacheOptions())
    with pytest.raises(InputError, match=reason):
        train(
            data=world / "same-data",
            student=world / "same",
            teacher=world / "teacher",
            method=name,
            options=TrainingOptions(steps=2, rollouts=rollouts),
            output=tmp_path / "out",
            teacher_cache=tmp_path / signal if signal else None,
        )
    assert not (tmp_path / "out").exists()


def test_vllm_that_is_not_installed_is_told_at_once(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dskd.compatibility.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"rollouts.engine: vLLM is not installed; fix: set it to transformers, or pip"
    ):
        train_tiny(world, tmp_path / "out", rollouts={"engine": "vllm"})
    assert not (tmp_path / "out").exists()


def test_weights_are_handed_over_once_a_step_however_many_samples_it_takes(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))
    written = Written(Sample([5, 6], ended=False))
    rollouts = make_rollouts(world, "same", written)
    rollouts.take([rows * 10, rows], epoch=0, step=1)
    assert len(written.asked) > 64
    assert written.updates == 1


@pytest.mark.parametrize(
    ("policy", "rollouts", "reason"),
    [
        ("always", None, "from on-policy text alone; fix: rollouts"),
        ("always", {"share": 0.5}, "fix: set share to 1"),
        ("never", {"share": 1.0}, "from the data's text alone; fix: remove rollouts"),
    ],
)
def test_a_method_says_on_which_text_it_learns(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    rollouts: dict[str, float] | None,
    reason: str,
) -> None:
    monkeypatch.setattr(methods.get("kd"), "requires", replace(methods.get("kd").requires, on_policy=policy))
    with pytest.raises(InputError, match=reason):
        train_tiny(world, tmp_path / "out", rollouts=rollouts)
    assert not (tmp_path / "out").exists()
