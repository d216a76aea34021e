"""Reading what a server says of its prompts' tokens: what it says is kept, what is no answer is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dskd.teachers.engines.prompt_log_probabilities import (
    NothingOfPrompts,
    WrongAnswer,
    read_choices,
    text_log_probabilities,
    top_k,
)
from dskd.teachers.questions import Question

SIZE = 11  # tokens; the head has two rows more
QUESTIONS = [
    Question([3, 1, 4, 1, 5], np.array([1, 2, 3])),
    Question([2, 7], np.array([0])),
    Question([8, 2, 8, 1], np.array([0, 2])),
]
K = 4


def _distribution(number: int, position: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * number + position)
    return torch.randn(SIZE + 2, generator=generator).double().mul(2).log_softmax(-1)


def answer(k: int = K) -> Any:
    """The JSON of vLLM's answer: at each token first that token, then the k best, which may contain it."""
    choices = []
    for number, question in enumerate(QUESTIONS):
        entries: list[Any] = [None]
        for position, label in enumerate(question.ids[1:]):
            log_p = _distribution(number, position)
            told = [label, *log_p.topk(k).indices.tolist()]
            entries.append({str(t): {"logprob": log_p[t].item(), "rank": 1, "decoded_token": "x"} for t in told})
        choices.append({"index": number, "text": "x", "prompt_logprobs": entries})
    return json.loads(json.dumps({"model": "teacher", "choices": choices}))


def _expected() -> torch.Tensor:
    """The distributions at all positions that are asked about."""
    return torch.stack([_distribution(number, p) for number, q in enumerate(QUESTIONS) for p in q.positions.tolist()])


def test_the_k_best_tokens_at_each_position_are_read_and_a_label_beyond_them_is_left_out() -> None:
    found = top_k(read_choices(answer(), QUESTIONS), QUESTIONS, K, SIZE + 2)
    best = _expected().topk(K)
    assert found["ids"].dtype == torch.int32
    assert torch.equal(found["ids"].long(), best.indices)
    torch.testing.assert_close(found["log_probabilities"], best.values.float())
    labels = torch.tensor([label for question in QUESTIONS for label in question.labels])
    assert (
        0 < (best.indices == labels[:, None]).any(-1).sum() < len(labels)
    )  # some labels are among the k, some are not


def test_rows_of_the_head_that_are_no_tokens_leave_their_places_empty_at_the_end() -> None:
    found = top_k(read_choices(answer(), QUESTIONS), QUESTIONS, K, SIZE)
    best = _expected().topk(K)
    assert (best.indices >= SIZE).any()
    for row in range(len(best.indices)):
        real = [k for k in range(K) if best.indices[row, k] < SIZE]
        ids, log_p = found["ids"][row].tolist(), found["log_probabilities"][row]
        assert ids == [*best.indices[row, real].tolist(), *[-1] * (K - len(real))]
        torch.testing.assert_close(log_p[: len(real)], best.values[row, real].float())
        assert (log_p[len(real) :] == -torch.inf).all()


def test_a_server_may_give_fewer_tokens_than_it_was_asked_for() -> None:
    found = top_k(read_choices(answer(2), QUESTIONS), QUESTIONS, K, SIZE + 2)
    assert torch.equal(found["ids"][:, :2].long(), _expected().topk(2).indices)
    assert ((found["ids"] < 0) == (found["log_probabilities"] == -torch.inf)).all()
    assert (found["ids"][:, 3] == -1).all()


def test_of_the_text_the_labels_are_read() -> None:
    labels = torch.tensor([label for question in QUESTIONS for label in question.labels])
    expected = _expected().gather(-1, labels[:, None]).squeeze(-1).float()
    for k in (0, K):
        found = text_log_probabilities(read_choices(answer(k), QUESTIONS), QUESTIONS)
        torch.testing.assert_close(found["log_probabilities"], expected)


def test_choices_are_put_in_order_by_their_number() -> None:
    said = answer()
    said["choices"] = said["choices"][::-1]
    assert read_choices(said, QUESTIONS) == read_choices(answer(), QUESTIONS)


def test_of_tokens_that_are_equally_probable_the_label_is_the_one_too_many() -> None:
    question = Question([0, 5], np.array([0]))
    entry = {str(token): {"logprob": -1.5} for token in (5, 3, 9)}
    found = top_k([[None, entry]], [question], 2, None)
    assert found["ids"].tolist() == [[3, 9]]


def test_an_answer_about_no_position_has_no_rows() -> None:
    assert top_k([], [], 3, None)["ids"].shape == (0, 3)
    assert text_log_probabilities([], [])["log_probabilities"].shape == (0,)


def _change(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(said: Any) -> None:
        for key in path[:-1]:
            said = said[key]
        if to is ...:
            del said[path[-1]]
        else:
            said[path[-1]] = to

    return change


def _rename(number: int, place: int, old: str, new: str) -> Callable[[Any], None]:
    def change(said: Any) -> None:
        entry = said["choices"][number]["prompt_logprobs"][place]
        entry[new] = entry.pop(old)

    return change


ENTRY = ("choices", 0, "prompt_logprobs", 3)  # of a label of the first question
LABEL = (*ENTRY, "1")
WRONG = [
    (_change("choices", to=...), "has no list of choices"),
    (_change("choices", to={"0": 1}), "has no list of choices"),
    (_change("choices", 2, to=...), "has 2 choices for 3 prompts"),
    (_change("choices", 2, "index", to=1), "does not number its choices from 0 to 2"),
    (_change("choices", 2, "index", to=None), "does not number its choices from 0 to 2"),
    (_change("choices", 0, "prompt_logprobs", 4, to=...), "has 4 entries for a prompt of 5 tokens"),
    (_change("choices", 0, "prompt_logprobs", to="none"), "has no list of entries for a prompt of 5 tokens"),
    (_change(*ENTRY, to=None), "has nothing at token 3"),
    (_change(*ENTRY, to={}), "has nothing at token 3"),
    (_change(*ENTRY, to=[1.0]), "has nothing at token 3"),
    (_rename(0, 3, "1", "0"), "does not have id 1 at token 3, so it is about another text"),
    (_change(*LABEL, to=None), "has no number for id 1 at token 3"),
    (_change(*LABEL, to=-2.0), "has no number for id 1 at token 3"),
    (_change(*LABEL, "logprob", to="-2.0"), "has no number for id 1 at token 3"),
    (_change(*LABEL, "logprob", to=True), "has no number for id 1 at token 3"),
    (_change(*LABEL, "logprob", to=None), "has no number for id 1 at token 3"),
    (_change(*LABEL, "logprob", to=float("nan")), "has nan for id 1 at token 3"),
    (_change(*LABEL, "logprob", to=float("-inf")), "has -inf for id 1 at token 3"),
    (_change(*LABEL, "logprob", to=7.25), "has 7.25 for id 1 at token 3, which is no log-probability"),
]
OF_TOP_K = [
    *(
        (_change(*ENTRY, spelled, to={"logprob": -30.0}), f"has '{spelled}' for an id at token 3")
        for spelled in ("-1", "two", "01", " 2", "1.0", "٣", "9999999999", "")
    ),
    (_change(*ENTRY, "6", to={"logprob": -0.01}), "has probabilities that add up to 1."),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_answer_to_the_question_is_refused(change: Callable[[Any], None], said: str) -> None:
    for read, k in ((text_log_probabilities, 0), (lambda *given: top_k(*given, K, SIZE), K)):
        wrong = answer(k)
        change(wrong)
        with pytest.raises(WrongAnswer, match=f"^{said}"):
            read(read_choices(wrong, QUESTIONS), QUESTIONS)


@pytest.mark.parametrize(("change", "said"), OF_TOP_K, ids=lambda value: value if isinstance(value, str) else "")
def test_ids_and_sums_of_probabilities_are_checked(change: Callable[[Any], None], said: str) -> None:
    given = answer()
    change(given)
    with pytest.raises(WrongAnswer, match=f"^{said}"):
        top_k(read_choices(given, QUESTIONS), QUESTIONS, K, SIZE)


def test_a_server_that_says_nothing_of_its_prompts_is_told_from_one_that_says_something_wrong() -> None:
    said = answer()
    for choice in said["choices"]:
        choice["prompt_logprobs"] = None
    with pytest.raises(NothingOfPrompts):
        read_choices(said, QUESTIONS)
