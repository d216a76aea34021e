"""Turns of conversations: for every chat template, what is trained is what a model is given and writes, to the token."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dskd.data.encoding import encode_prompt
from dskd.data.rows import label_spans
from dskd.data.turns import ConversationEncoder, TurnEncoder, supervised_turns
from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Template, set_template
from dskd.tokenization.vocabulary import Vocabulary
from helpers.chat_templates import CONVERSATIONS, USABLE, template_files
from helpers.paths import SHARED
from helpers.templated_tokenizers import with_template
from helpers.tiny_tokenizers import sentencepiece

TEMPLATES = template_files()
pytestmark = pytest.mark.real


@lru_cache
def tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    # Small ones, as every template gets a copy of each.
    return (
        sentencepiece() if name == "sentencepiece" else AutoTokenizer.from_pretrained(SHARED / "data/tokenizers" / name)
    )


def chat(name: str, template: str, reasoning: str) -> TurnEncoder:
    made = with_template(tokenizer(name), template)
    set_template(made, Template(kind="chat", reasoning=reasoning))
    return TurnEncoder(made, Vocabulary.from_tokenizer(made))


def text_of(side: TurnEncoder, ids: list[int]) -> str:
    return b"".join(side.vocabulary.token_bytes[k] for k in ids).decode()


def expected_text(side: TurnEncoder, answer: Message, reasoning: str) -> str:
    """What the assistant wrote, without the spaces that a template puts around it."""
    return answer.content.strip()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.parametrize("reasoning", ["cut", "train", pytest.param("keep", marks=pytest.mark.slow)])
def test_labels_are_what_the_assistant_wrote_and_its_end(path: Path, reasoning: str) -> None:
    name = f"{path.parent.name}/{path.name}"
    template = path.read_text(encoding="utf-8")
    if reasoning not in USABLE.get(name, ("cut", "train", "keep")):
        with pytest.raises(InputError, match="fix: "):
            chat("minimind", template, reasoning)
        return
    sides = [chat(name, template, reasoning) for name in ("minimind", "sentencepiece")]
    encoder = ConversationEncoder(sides, same_vocabulary=False, max_length=100_000)
    trained = 0
    for conversation in CONVERSATIONS.values():
        rows, left_out = encoder.rows(conversation)
        chosen = supervised_turns(conversation)
        spans = [span for row in rows for span in label_spans(row, "student")]
        assert len(spans) + len(left_out) == len(chosen)
        assert all(each.detail for each in left_out)
        if left_out:
            continue
        trained += 1
        turns = iter(chosen)
        for row in rows:
            own = [next(turns) for _ in label_spans(row, "student")]
            for side, which in zip(sides, ("student", "teacher"), strict=True):
                for turn, (first, last) in zip(own, label_spans(row, which), strict=True):
                    _check(side, row[f"{which}_ids"], first, last, conversation, turn, reasoning)
            _check_pairs(row)
    assert trained >= 2


def _check(
    side: TurnEncoder, ids: list[int], first: int, last: int, conversation: Conversation, turn: int, reasoning: str
) -> None:
    answer = conversation.messages[turn]
    before = Conversation(conversation.messages[:turn], conversation.tools)
    # What a model is given to write this turn, as every engine encodes it.
    given = encode_prompt(side.tokenizer, side.template.prompt(before))
    assert list(ids[: len(given)]) == given
    assert side.tokenizer.convert_ids_to_tokens(ids[last - 1]) in side.template.special_tokens
    labels = text_of(side, ids[first : last - 1]).strip()
    if reasoning == "cut":
        assert first == len(given)
    if answer.tool_calls:
        assert "weather" in labels
        assert "Oslo" in labels
    elif reasoning == "keep" or not answer.reasoning:
        assert labels.endswith(answer.content.strip())
        if reasoning != "train":
            assert labels == answer.content.strip()
    elif reasoning == "train":
        assert first == len(given)
        assert labels.endswith(answer.content.strip())
        assert labels.count(answer.reasoning.strip()) == 1
    else:
        assert labels == answer.content.strip()
    # The template's own row, wherever it renders the turn as it was written.
    whole = side.template.render(Conversation(conversation.messages[: turn + 1], conversation.tools))
    if whole is not None:
        own = side.tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert own[:last] == list(ids[:last])


def _check_pairs(row: dict[str, Any]) -> None:
    """Pairs are in order, the ends of all turns are pairs, and most of the two answers is paired."""
    for side in ("student", "teacher"):
        assert row[f"{side}_pairs"] == sorted(row[f"{side}_pairs"])
        total = sum(last - first for first, last in label_spans(row, side))
        assert len(row[f"{side}_groups"]) == total
        place = 0
        for first, last in label_spans(row, side):
            place += last - first
            assert place - 1 in row[f"{side}_pairs"]
    assert max(row["student_groups"]) == max(row["teacher_groups"])
