"""Whether a model ends its turns by the token that ends texts in the training; found before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.chat_template import ChatTemplate


def other_end(folder: Path, tokenizer: Any, side: str) -> str | None:
    """A warning where a model folder says that this model ends a turn by another token than the tokenizer's end of sequence.

    Texts of the data and of the student end by that end of sequence. A model that ends its turns otherwise gives it a small probability
    wherever a text ends, whatever the text.

    Args:
        folder: Of the model.
        tokenizer: As the data was prepared with, its template set.
        side: `teacher` or `student`.
    """
    end, named, turn = tokenizer.eos_token_id, _named_ends(folder), _end_of_turn(tokenizer)
    # A base model may have the template of its chat sibling; its generation settings then name its own end alone.
    if turn is not None and turn != end and (not named or turn in named):
        how, others = "its chat template ends a turn with", [turn]
    elif named and end not in named:
        how, others = "its generation settings end a text with", sorted(named)
    else:
        return None
    by, here = (", ".join(_token(tokenizer, token) for token in ids) for ids in (others, [end]))
    return (
        f"rollouts: the {side} {folder}: {how} {by}, and texts end with {here} here, so what it thinks of an end says little; "
        "fix: give both models template: chat, or a tokenizer whose end of sequence is that token"
    )


def _named_ends(folder: Path) -> set[int]:
    """The ids that end a text by the generation settings in a model folder; none where there are no such settings."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return set()
    ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    return {ids} if isinstance(ids, int) else set(ids or ())


def _end_of_turn(tokenizer: Any) -> int | None:
    """The token that ends a turn by the tokenizer's chat template; None without a template that can be used."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        return ChatTemplate(tokenizer).end
    except InputError:  # a template that nobody asked for
        return None


def _token(tokenizer: Any, token: int) -> str:
    return f"{tokenizer.convert_ids_to_tokens(token)!r} (id {token})"
