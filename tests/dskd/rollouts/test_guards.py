"""Warnings about training on the student's own text: what is counted, when they are told, and that they are told once."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from dskd.modeling.loading import load_tokenizer
from dskd.rollouts.ends import other_end
from dskd.rollouts.guards import PARTS_OF_NAT, WINDOW, Guards, repetitions
from dskd.rollouts.sampler import Sample
from dskd.tokenization.prompt_templates import Template, set_template
from helpers.rollouts import Written, make_rollouts, numbered_rows, with_prompt
from helpers.training_runs import saved_weights, train_tiny


class Watched:
    """Guards, and the counts of samples that a test adds."""

    def __init__(self) -> None:
        self.guards = Guards()
        names = ("samples", "tokens", "ended", "ngrams", "repeated", "known", "log_q")
        self.counts = dict.fromkeys(names, 0.0)
        self.step = 0

    def add(
        self,
        samples: int = WINDOW,
        *,
        length: float = 20,
        ended: float = 1.0,
        repeated: float = 0.0,
        entropy: float = 2.0,
    ) -> list[str]:
        tokens = samples * length
        added = (samples, tokens, samples * ended, tokens, tokens * repeated, tokens, -tokens * entropy * PARTS_OF_NAT)
        self.counts = {name: self.counts[name] + value for name, value in zip(self.counts, added, strict=True)}
        self.step += 10
        return self.guards.look(self.counts, self.step)


def _repeated_slowly(ids: list[int]) -> tuple[int, int]:
    seen, again = [], 0
    for first in range(len(ids)):
        if first + 4 > len(ids):
            break
        ngram = [ids[first + k] for k in range(4)]
        again += ngram in seen
        seen.append(ngram)
    return len(seen), again


@pytest.mark.parametrize("ids", [[], [1, 2, 3], [1, 2, 3, 4], [7] * 9, [1, 2] * 6, [1, 2, 3, 4, 5, 1, 2, 3, 4, 6]])
def test_repetitions_are_those_of_a_slow_loop(ids: list[int]) -> None:
    assert repetitions(ids) == _repeated_slowly(ids)


def test_samples_like_the_first_are_no_reason_to_warn() -> None:
    watched = Watched()
    assert [watched.add(), watched.add(length=29), watched.add(ended=0.81, repeated=0.29, entropy=1.01)] == [[]] * 3
    assert not watched.guards.told


@pytest.mark.parametrize(
    ("sign", "change", "numbers"),
    [
        ("length", {"length": 31}, "until step 20 samples have 31.0 tokens on average, the first 64 had 20.0"),
        ("cut", {"ended": 0.75}, "until step 20 25% of 64 samples were cut"),
        ("repeated", {"repeated": 0.4}, "until step 20 40% of all runs of 4 tokens"),
        ("entropy", {"entropy": 0.9}, "until step 20 sampled tokens have 0.900 nats on average, the first had 2.000"),
    ],
)
def test_each_sign_is_told_once_with_its_numbers(sign: str, change: dict[str, float], numbers: str) -> None:
    watched = Watched()
    watched.add()
    (message,) = watched.add(**change)
    assert numbers in message
    assert list(watched.guards.told) == [sign]
    assert watched.add(**change) == []


def test_few_samples_are_looked_at_together_with_those_that_follow() -> None:
    watched = Watched()
    watched.add()
    assert watched.add(WINDOW // 2, ended=0.5) == []
    (message,) = watched.add(WINDOW // 2, ended=0.5)
    assert "50% of 64 samples" in message


def test_samples_that_are_cut_from_the_first_are_told_at_once() -> None:
    assert "cut" in Watched().add(ended=0.0)[0]


def test_what_is_saved_goes_on_as_what_was_not() -> None:
    watched, other = Watched(), Watched()
    watched.add()
    watched.add(ended=0.5)
    other.guards.load(json.loads(json.dumps(watched.guards.state())))
    other.counts, other.step = dict(watched.counts), watched.step
    assert other.guards.told == watched.guards.told
    change: Any = {"length": 40, "ended": 0.5}
    assert watched.add(**change) == other.add(**change) != []


def test_samples_are_counted_as_they_are_used(world: Path) -> None:
    rows = with_prompt(numbered_rows(world, "same"))[:2]
    rollouts = make_rollouts(world, "same", Written(Sample([5, 6, 5, 6, 5, 6], ended=False)))
    rollouts.take([rows], epoch=0, step=1)
    assert (rollouts.counts["ngrams"], rollouts.counts["repeated"]) == (6, 2)


def test_a_training_tells_of_samples_that_are_cut_and_reports_it(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rollouts = {"share": 1.0, "max_new_tokens": 2}
    with caplog.at_level(logging.WARNING, logger="dskd"):
        report = train_tiny(world, tmp_path / "cut", batch_size=16, steps=8, rollouts=rollouts)
    told = [record.getMessage() for record in caplog.records if "were cut before their end" in record.getMessage()]
    assert len(told) == 1
    assert told[0] in report.rollouts.warnings
    assert "%" in told[0]
    # Looking changes nothing.
    rare = train_tiny(world, tmp_path / "rare", batch_size=16, steps=8, rollouts=rollouts, logging_steps=8)
    assert "until step 8" in rare.rollouts.warnings[0]
    for name, value in saved_weights(tmp_path / "cut").items():
        assert (value == saved_weights(tmp_path / "rare")[name]).all()


CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture
def chatting(world: Path, tmp_path: Path) -> Path:
    """A model folder with a chat template whose turns do not end with the tokenizer's end of sequence."""
    folder = tmp_path / "chatting"
    shutil.copytree(world / "teacher", folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def _name_ends(folder: Path, ids: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))


def test_a_model_that_ends_its_turns_by_another_token_is_told_before_anything_is_trained(chatting: Path) -> None:
    tokenizer = load_tokenizer(chatting)
    end, turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    message = other_end(chatting, tokenizer, "teacher")
    assert message is not None
    assert f"its chat template ends a turn with '<|im_end|>' (id {turn}), and texts end with" in message
    assert f"(id {end}) here" in message
    _name_ends(chatting, [turn, end])
    assert other_end(chatting, tokenizer, "teacher") == message
    # A base model with the template of its chat sibling.
    _name_ends(chatting, end)
    assert other_end(chatting, tokenizer, "teacher") is None
    set_template(tokenizer, Template(kind="chat"))
    assert "its generation settings end a text with" in (other_end(chatting, tokenizer, "teacher") or "")
    _name_ends(chatting, [end, turn])
    assert other_end(chatting, tokenizer, "teacher") is None


def test_a_training_on_its_own_text_reports_the_ends_of_its_models(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "world"
    shutil.copytree(world, folder)
    tokenizer = load_tokenizer(folder / "teacher")
    other = next(k for k in range(len(tokenizer)) if k != tokenizer.eos_token_id)
    _name_ends(folder / "teacher", other)
    with caplog.at_level(logging.WARNING, logger="dskd"):
        report = train_tiny(folder, tmp_path / "run", steps=1, rollouts={"max_new_tokens": 4})
    (message,) = [text for text in report.rollouts.warnings if "end a text with" in text]
    assert "the teacher" in message
    assert message in caplog.text
    quiet = train_tiny(world, tmp_path / "quiet", steps=1, rollouts={"max_new_tokens": 4})
    assert not quiet.rollouts.warnings
