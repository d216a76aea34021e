"""What a vLLM server says of the tokens of its prompts (`prompt_logprobs`), read strictly: ids are compared, never spellings.

For a prompt of n tokens it has n entries. The first is null, that of token i the log-probabilities, given all tokens before it, of
this token and of the k most probable ones, by their ids. So the output at position i of a question stands at entry i + 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dskd.teachers.engines.base import Answers
from dskd.teachers.questions import Question

_ABOVE_ONE = 1e-3  # what rounding adds to a sum of probabilities


class WrongAnswer(Exception):
    """An answer that is not one to what was asked; its text says how."""


def read_choices(answer: Any, questions: Sequence[Question]) -> list[list[Any]]:
    """The entries of each question's prompt, in their order.

    Args:
        answer: The JSON of /v1/completions.
        questions: What was asked, one a prompt.

    Raises:
        LookupError: Where the server does not know `prompt_logprobs`.
        WrongAnswer: Where there are not as many as were asked for.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise WrongAnswer("has no list of choices")
    if len(choices) != len(questions):
        raise WrongAnswer(f"has {len(choices)} choices for {len(questions)} prompts")
    by_index = {choice.get("index"): choice for choice in choices}
    if sorted(by_index, key=str) != sorted(range(len(questions)), key=str):
        raise WrongAnswer(f"does not number its choices from 0 to {len(questions) - 1}")
    found = []
    for number, question in enumerate(questions):
        entries = by_index[number].get("prompt_logprobs")
        if entries is None:
            raise LookupError
        if not isinstance(entries, list) or len(entries) != len(question.ids):
            count = len(entries) if isinstance(entries, list) else "no list of"
            raise WrongAnswer(f"has {count} entries for a prompt of {len(question.ids)} tokens")
        found.append(entries)
    return found


def text_log_probabilities(entries: Sequence[list[Any]], questions: Sequence[Question]) -> Answers:
    """Of the labels, as `Answers` has them. Raises WrongAnswer for what is no log-probability."""
    values = [
        _number(_entry(of_prompt, position, label), label, position)
        for of_prompt, question in zip(entries, questions, strict=True)
        for position, label in zip(question.positions.tolist(), question.labels, strict=True)
    ]
    return {"log_probabilities": torch.tensor(values, dtype=torch.float32)}


def top_k(entries: Sequence[list[Any]], questions: Sequence[Question], k: int, size: int | None) -> Answers:
    """The k most probable tokens, as `Answers` has them.

    Where the server's head has rows that are no tokens, and these are among its k, fewer remain; places beyond them have the id -1 and
    minus infinity. The label that comes along is left out where it is not one of the k.

    Args:
        entries, questions: Of each prompt.
        k: How many were asked for.
        size: Ids from here on are no tokens; None for none.

    Raises:
        WrongAnswer: For what is no distribution over tokens.
    """
    count = sum(len(question.positions) for question in questions)
    ids = np.full((count, k), -1, dtype=np.int32)
    log_p = np.full((count, k), -np.inf, dtype=np.float32)
    row = 0
    for of_prompt, question in zip(entries, questions, strict=True):
        for position, label in zip(question.positions.tolist(), question.labels, strict=True):
            entry = _entry(of_prompt, position, label)
            known = {_id(spelled, position): entry[spelled] for spelled in entry}
            # The label last, so that of equal ones it is the one too many.
            order = [token for token in known if token != label] + [label]
            best = sorted(((_number(known, token, position), token) for token in order), key=lambda pair: -pair[0])[:k]
            if (total := sum(math.exp(value) for value, _ in best)) > 1 + _ABOVE_ONE:
                raise WrongAnswer(
                    f"has probabilities that add up to {total:.4g} at token {position + 1}, so they are none "
                    "(the server's --logprobs-mode)"
                )
            real = best if size is None else [(value, token) for value, token in best if token < size]
            if real:
                log_p[row, : len(real)], ids[row, : len(real)] = zip(*real, strict=True)
            row += 1
    return {"ids": torch.from_numpy(ids), "log_probabilities": torch.from_numpy(log_p)}


def _entry(entries: list[Any], position: int, label: int) -> dict[Any, Any]:
    """What stands at the token after a position, which has to be this label."""
    entry = entries[position + 1]
    if not isinstance(entry, dict) or not entry:
        raise WrongAnswer(f"has nothing at token {position + 1}")
    if str(label) not in entry:
        raise WrongAnswer(f"does not have id {label} at token {position + 1}, so it is about another text")
    return entry


def _id(spelled: Any, position: int) -> int:
    if re.fullmatch("0|[1-9][0-9]{0,8}", str(spelled)):
        return int(spelled)
    raise WrongAnswer(f"has {spelled!r} for an id at token {position + 1}")


def _number(entry: dict[Any, Any], token: int, position: int) -> float:
    """The log-probability of a token in an entry, whose keys are ids or their spellings."""
    said = entry.get(token, entry.get(str(token)))
    value = said.get("logprob") if isinstance(said, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongAnswer(f"has no number for id {token} at token {position + 1}")
    if not math.isfinite(value):
        raise WrongAnswer(f"has {value} for id {token} at token {position + 1}")
    if value > _ABOVE_ONE:
        raise WrongAnswer(
            f"has {value:.4g} for id {token} at token {position + 1}, which is no log-probability (the server's --logprobs-mode)"
        )
    return float(value)
