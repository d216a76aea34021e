"""What a vLLM server says of the tokens of its prompts (`prompt_logprobs`), read strictly: ids are compared, never spellings.

For a prompt of n tokens it has n entries. The first is null, that of token i the log-probabilities, given all tokens before it, of
this token and of the k most probable ones, by their ids. So the output at position i of a question stands at entry i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dskd.teachers.engines.base import Answers
from dskd.teachers.questions import Question

_ABOVE_ONE = 1e-3  # what rounding adds to a sum of probabilities


class NothingOfPrompts(Exception):
    """An answer of a server that does not know `prompt_logprobs`."""


class WrongAnswer(Exception):
    """An answer that is not one to what was asked; its text says how."""


def read_choices(answer: Any, questions: Sequence[Question]) -> list[list[Any]]:
    """The entries of each question's prompt, in their order.

    Args:
        answer: The JSON of /v1/completions.
        questions: What was asked, one a prompt.

    Raises:
        NothingOfPrompts: Where the server does not know `prompt_logprobs`.
        WrongAnswer: Where there are not as many as were asked for.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise WrongAnswer("has no list of choices")
    if len(choices) != len(questions):
        raise WrongAnswer(f"has {len(choices)} choices for {len(questions)} prompts")
    # Of another type, what stands there may not even be a key.
    by_index = {choice["index"]: choice for choice in choices if type(choice.get("index")) is int}
    if sorted(by_index, key=str) != sorted(range(len(questions)), key=str):
        raise WrongAnswer(f"does not number its choices from 0 to {len(questions) - 1}")
    found = []
    for number, question in enumerate(questions):
        entries = by_index[number].get("prompt_logprobs")
        if entries is None:
            raise NothingOfPrompts
        if not isinstance(entries, list) or len(entries) != len(question.ids):
            count = len(entries) if isinstance(entries, list) else "no list of"
            raise WrongAnswer(f"has {count} entries for a prompt of {len(question.ids)} tokens")
        found.append(entries)
    return found


def text_log_probabilities(entries: Sequence[list[Any]], questions: Sequence[Question]) -> Answers:
    """Of the labels, as `Answers` has them. Raises WrongAnswer for what is no log-probability."""
    places, labels, found = _asked_about(entries, questions)
    values = _log_probabilities([entry[str(label)] for entry, label in zip(found, labels, strict=True)], labels, places)
    return {"log_probabilities": torch.from_numpy(values.astype(np.float32))}


def top_k(entries: Sequence[list[Any]], questions: Sequence[Question], k: int, size: int | None) -> Answers:
    """The k most probable tokens, as `Answers` has them.

    Where the server's head has rows that are no tokens, and these are among its k, fewer remain. The label, which comes along, is left
    out where it is not one of the k.

    Args:
        entries, questions: Of each prompt.
        k: How many were asked for.
        size: Ids from here on are no tokens; None for none.

    Raises:
        WrongAnswer: For what is no distribution over tokens.
    """
    places, labels, found = _asked_about(entries, questions)
    counts = np.array([len(entry) for entry in found], dtype=np.int64)
    spelled = [token for entry in found for token in entry]
    each_place = np.repeat(places, counts)
    tokens = _ids(spelled, each_place)
    values = _log_probabilities([said for entry in found for said in entry.values()], spelled, each_place)
    if (counts > k + 1).any():
        first = int((counts > k + 1).argmax())
        raise WrongAnswer(
            f"has {counts[first]:,} tokens at token {places[first]}, where {k} and the label were asked for"
        )

    row = np.repeat(np.arange(len(counts)), counts)
    column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = len(counts), max(k, int(counts.max(initial=0)))
    ids, log_p = np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf)
    ids[row, column], log_p[row, column] = tokens, values
    # Of equal ones the label is the one too many.
    best = np.lexsort((ids == np.array(labels, dtype=np.int64)[:, None], -log_p))[:, :k]
    ids, log_p = np.take_along_axis(ids, best, 1), np.take_along_axis(log_p, best, 1)
    _require_probabilities(log_p, places)
    if size is not None:
        absent = ids >= size
        ids, log_p = np.where(absent, -1, ids), np.where(absent, -np.inf, log_p)
        last = np.argsort(absent, axis=1, kind="stable")
        ids, log_p = np.take_along_axis(ids, last, 1), np.take_along_axis(log_p, last, 1)
    return {
        "ids": torch.from_numpy(ids.astype(np.int32)),
        "log_probabilities": torch.from_numpy(log_p.astype(np.float32)),
    }


def _asked_about(
    entries: Sequence[list[Any]], questions: Sequence[Question]
) -> tuple[np.ndarray, list[int], list[dict[str, Any]]]:
    """(where in its prompt each label stands, the labels, what is said there), one question after the other."""
    places, labels, found = [], [], []
    for of_prompt, question in zip(entries, questions, strict=True):
        for position, label in zip(question.positions.tolist(), question.labels, strict=True):
            entry = of_prompt[position + 1]
            if not isinstance(entry, dict) or not entry:
                raise WrongAnswer(f"has nothing at token {position + 1}")
            if str(label) not in entry:
                raise WrongAnswer(f"does not have id {label} at token {position + 1}, so it is about another text")
            places.append(position + 1)
            labels.append(label)
            found.append(entry)
    return np.array(places, dtype=np.int64), labels, found


def _ids(spelled: list[str], places: np.ndarray) -> np.ndarray:
    """Ids from the keys of JSON objects, which are strings."""
    for number, token in enumerate(spelled):
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and (token[0] != "0" or token == "0")):
            raise WrongAnswer(f"has {token!r} for an id at token {places[number]}")
    return np.array(list(map(int, spelled)), dtype=np.int64)


def _log_probabilities(said: list[Any], tokens: Sequence[Any], places: np.ndarray) -> np.ndarray:
    """The numbers of these parts of an answer, each about one token, as float64."""
    values = []
    for number, part in enumerate(said):
        value = part.get("logprob") if isinstance(part, dict) else None
        if type(value) not in (float, int):
            raise WrongAnswer(f"has no number for id {tokens[number]} at token {places[number]}")
        values.append(value)
    try:
        found = np.array(values, dtype=np.float64)
    except OverflowError:
        raise WrongAnswer("has a whole number beyond all log-probabilities") from None
    wrong = ~np.isfinite(found) | (found > _ABOVE_ONE)
    if wrong.any():
        first = int(wrong.argmax())
        what = f"has {found[first]:.4g} for id {tokens[first]} at token {places[first]}"
        if np.isfinite(found[first]):
            what += ", which is no log-probability (the server's --logprobs-mode)"
        raise WrongAnswer(what)
    return found


def _require_probabilities(log_p: np.ndarray, places: np.ndarray) -> None:
    """WrongAnswer where those of one place [places, k] add up to more than 1."""
    totals = np.exp(log_p).sum(1)
    if (wrong := totals > 1 + _ABOVE_ONE).any():
        first = int(wrong.argmax())
        raise WrongAnswer(
            f"has probabilities that add up to {totals[first]:.4g} at token {places[first]}, so they are none "
            "(the server's --logprobs-mode)"
        )
