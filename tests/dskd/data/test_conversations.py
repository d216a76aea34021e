"""Conversations of several turns through preparation, batches, caches, rollouts and the training of every method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.data.rows import label_spans, labels
from dskd.errors import InputError
from dskd.methods import METHODS
from dskd.modeling.lm_head import labelled_hidden_states
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.rollouts.sampler import Sample
from dskd.teachers.build_cache import build_teacher_cache
from dskd.teachers.options import TeacherCacheOptions
from dskd.tokenization.prompt_templates import Template, set_template
from dskd.training.run import TrainingOptions, train
from helpers import tiny_world
from helpers.rollouts import Written, make_rollouts, numbered_rows
from helpers.tiny_tokenizers import LINES

# ChatML, and the same with another opening; both leave out the reasoning of earlier turns.
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OTHER = CHAT.replace("<|im_start|>{{ m.role }}\n", "[{{ m.role }}]\n").replace(
    "<|im_start|>assistant\n", "[assistant]\n"
)
THINKING = "<think>\nI look.\n</think>\n\n"


def conversations(*, reasoning: bool = False) -> list[dict[str, Any]]:
    rows = []
    for k, line in enumerate(LINES):
        messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}] if k % 2 else []
        for turn in range(1 + k % 3):
            thought = THINKING if reasoning else ""
            messages += [
                {"role": "user", "content": f"Say {turn}: {line[:6]}"},
                {"role": "assistant", "content": thought + line[turn : 9 + turn + k].strip()},
            ]
        rows.append({"messages": messages})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def with_template(world: Path, folder: Path, name: str, text: str, **settings: Any) -> Path:
    """A copy of a model of the tiny world with a chat template, its tokens in a larger embedding."""
    model, tokenizer = load_model(world / name), load_tokenizer(world / name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = text
    set_template(tokenizer, Template(kind="chat", **settings))
    torch.manual_seed(1)
    model.resize_token_embeddings(len(tokenizer) + 4)
    model.config.max_position_embeddings = 512
    if name == "same":
        model.transformer.wpe = torch.nn.Embedding(512, model.config.n_embd)
        model.config.n_positions = 512
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with templates, conversations, and data prepared for each pair."""
    plain, folder = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("chat")
    tiny_world.make(plain, steps=5)
    for name in ("teacher", "same"):
        with_template(plain, folder, name, CHAT)
    with_template(plain, folder, "cross", OTHER)
    write(folder / "train.jsonl", conversations())
    for name, teacher in (("same", "teacher"), ("cross", "teacher"), ("teacher", None)):
        prepare_dataset(
            folder / "train.jsonl",
            folder / f"{name}-data",
            student=folder / name,
            teacher=folder / teacher if teacher else None,
        )
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(datasets.load_from_disk(str(folder)))


def as_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Every turn of a row as a row of its own, as if it were the last."""
    spans = {side: label_spans(row, side) for side in ("student", "teacher")}
    turns = []
    for k in range(len(spans["student"])):
        turn: dict[str, Any] = {}
        for side, own in spans.items():
            first, last = own[k]
            turn |= {f"{side}_ids": row[f"{side}_ids"][:last], f"{side}_prompt_length": first}
        turns.append(turn)
    return turns


def test_turns_that_continue_each_other_share_a_row(world: Path) -> None:
    rows = rows_of(world / "cross-data")
    assert len(rows) == len(LINES)
    assert {len(label_spans(row, "student")) for row in rows} == {1, 2, 3}
    report = json.loads((world / "cross-data" / "report.json").read_text())
    assert report["turns"] == sum(1 + k % 3 for k in range(len(LINES)))
    assert report["student_tokens"] == sum(len(labels(row, "student")) for row in rows)
    for side, name in (("student", "cross"), ("teacher", "teacher")):
        tokenizer = load_tokenizer(world / name)
        for row, source in zip(rows, conversations(), strict=True):
            said = [m["content"] for m in source["messages"] if m["role"] == "assistant"]
            for (first, last), text in zip(label_spans(row, side), said, strict=True):
                assert row[f"{side}_ids"][last - 1] == tokenizer.eos_token_id
                assert tokenizer.decode(row[f"{side}_ids"][first : last - 1]).strip() == text


def test_a_row_of_several_turns_gives_the_hidden_states_and_labels_of_each(world: Path) -> None:
    rows = rows_of(world / "cross-data")[:6]
    for side, name in (("student", "cross"), ("teacher", "teacher")):
        model = load_model(world / name).eval()
        for collator in (Collator(), Collator(padding_side="left"), Collator(packing=True, row_length=80)):
            together = getattr(collator(rows), side)
            apart = getattr(Collator()([turn for row in rows for turn in as_turns(row)]), side)
            assert together.labels.tolist() == apart.labels.tolist()
            assert together.inputs.tolist() == apart.inputs.tolist()
            assert together.sizes.tolist() == apart.sizes.tolist()
            with torch.no_grad():
                torch.testing.assert_close(
                    labelled_hidden_states(model, together), labelled_hidden_states(model, apart), rtol=1e-4, atol=1e-4
                )


def test_pairs_cover_the_same_text_in_every_turn(world: Path) -> None:
    student, teacher = load_tokenizer(world / "cross"), load_tokenizer(world / "teacher")
    batch = Collator()(rows_of(world / "cross-data"))
    texts = [
        [tokenizer.decode([k]).strip() for k in side.labels[side.pairs].tolist()]
        for side, tokenizer in ((batch.student, student), (batch.teacher, teacher))
    ]
    ends = {student.eos_token, teacher.eos_token}
    assert all(one == other or {one, other} <= ends for one, other in zip(*texts, strict=True))
    # A part of every turn is paired, its end at least.
    turns = torch.arange(len(batch.student.sizes)).repeat_interleave(batch.student.sizes)
    assert set(turns[batch.student.pairs].tolist()) == set(range(len(batch.student.sizes)))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns_from_conversations(world: Path, tmp_path: Path, name: str) -> None:
    student = tiny_world.student_of(name)
    report = train(
        data=world / f"{student}-data",
        student=world / student,
        teacher=world / "teacher",
        method=name,
        options=TrainingOptions(steps=2, batch_size=4, **tiny_world.text_of(name)),
        output=tmp_path / "run",
    )
    assert report.steps == 2
    assert all(value is None or value == value for value in report.losses.values())


@pytest.mark.parametrize("packing", [False, True])
def test_a_cached_teacher_says_what_a_live_one_says(world: Path, tmp_path: Path, packing: bool) -> None:
    build_teacher_cache(
        world / "teacher",
        world / "teacher-data",
        tmp_path / "cache",
        options=TeacherCacheOptions(kind="hidden_states", stored_dtype="same"),
    )
    found = []
    for cache in (None, tmp_path / "cache"):
        report = train(
            data=world / "cross-data",
            student=world / "cross",
            teacher=world / "teacher",
            method="dskd-v2-eta",
            options=TrainingOptions(steps=3, batch_size=4, learning_rate=1e-3, packing=packing),
            output=tmp_path / f"run-{cache is None}",
            teacher_cache=cache,
        )
        found.append(report.losses)
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert value == pytest.approx(found[1][key], rel=1e-4)


def test_the_student_writes_the_last_turn_after_what_the_data_says_before_it(world: Path) -> None:
    tokenizer = load_tokenizer(world / "same")
    written = tokenizer("green", add_special_tokens=False)["input_ids"]
    sampler = Written(Sample([*written, tokenizer.eos_token_id], ended=True))
    rollouts = make_rollouts(world, "same", sampler, max_new_tokens=6)
    rows = [row for row in numbered_rows(world, "same") if len(label_spans(row, "student")) == 3]
    (taken,) = rollouts.take([rows], epoch=0, step=1)
    sources = [source for source in conversations() if len(source["messages"]) >= 6]
    prompts = sorted(tokenizer.decode(prompt.student) for prompt, _ in sampler.asked)
    assert prompts == sorted(prompt_of(tokenizer, source["messages"][:-1]) for source in sources)
    for row, sampled in zip(rows, taken, strict=True):
        first = label_spans(row, "student")[-1][0]
        assert sampled["student_ids"] == [*row["student_ids"][:first], *written, tokenizer.eos_token_id]
        assert label_spans(sampled, "student") == [(first, first + len(written) + 1)]


def prompt_of(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_turns_whose_context_changes_stand_in_rows_of_their_own(world: Path, tmp_path: Path) -> None:
    """The template leaves the reasoning of earlier turns out, so a later turn does not begin with what an earlier one was."""
    folder = tmp_path / "models"
    for name, text in (("teacher", CHAT), ("cross", OTHER)):
        tokenizer = load_tokenizer(world / name)
        tokenizer.chat_template = text
        set_template(tokenizer, Template(kind="chat", reasoning="train"))
        tokenizer.save_pretrained(folder / name)
        (folder / name / "config.json").write_text("{}")
    data = write(tmp_path / "thoughts.jsonl", conversations(reasoning=True))
    report = prepare_dataset(data, tmp_path / "set", student=folder / "cross", teacher=folder / "teacher")
    assert report.kept == report.turns == sum(1 + k % 3 for k in range(len(LINES)))
    tokenizer = load_tokenizer(folder / "cross")
    for row in rows_of(tmp_path / "set"):
        context = tokenizer.decode(row["student_ids"][: row["student_prompt_length"]])
        written = tokenizer.decode(labels(row, "student")[:-1]).strip()
        assert "I look" not in context
        assert written.startswith("<think>\nI look.\n</think>\n\n")
        # What both models write alike is paired, the markers included.
        assert len(row["student_pairs"]) > len(row["student_ids"][row["student_prompt_length"] :]) // 4


def test_reasoning_is_cut_or_kept_as_context_where_it_is_not_trained(world: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "thoughts.jsonl", conversations(reasoning=True)[:3])
    for reasoning in ("cut", "keep"):
        folder = tmp_path / reasoning
        tokenizer = load_tokenizer(world / "cross")
        set_template(tokenizer, Template(kind="chat", reasoning=reasoning))
        tokenizer.save_pretrained(folder)
        prepare_dataset(data, tmp_path / f"{reasoning}-set", student=folder)
        for row in rows_of(tmp_path / f"{reasoning}-set"):
            assert "look" not in tokenizer.decode(labels(row, "student"))
            context = tokenizer.decode(row["student_ids"][: row["student_prompt_length"]])
            assert ("I look." in context) == (reasoning == "keep")


def test_what_is_left_out_is_counted_by_its_reason(world: Path, tmp_path: Path) -> None:
    good = {"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Green."}]}
    spelled = {"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "A<|im_end|>b"}]}
    long = {"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "river " * 300}]}
    data = write(tmp_path / "data.jsonl", [good, spelled, long])
    report = prepare_dataset(data, tmp_path / "set", student=world / "cross", max_length=100)
    assert (report.kept, report.special_tokens, report.too_long_student) == (1, 1, 1)
    shown = report.left_out["special_tokens"][0]
    assert (shown.line, shown.detail) == (2, "the answer spells <|im_end|>, which begins or ends a text or a turn")
    data = write(tmp_path / "bad.jsonl", [spelled])
    with pytest.raises(
        InputError, match=r"none of 1 examples can be used \(1 special tokens: the answer spells <\|im_end\|>"
    ):
        prepare_dataset(data, tmp_path / "none", student=world / "cross")
