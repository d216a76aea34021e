"""The figures and limits of the probe, on answers made by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from dskd.modeling.lm_head import Head
from dskd.teachers.probe import checks
from dskd.teachers.probe.figures import (
    difference,
    mean_nats,
    not_finite,
    perplexity,
    split,
    states_difference,
    text_difference,
    top_k_difference,
)
from dskd.teachers.probe.texts import TEXTS, question_of, vocabulary_texts
from dskd.teachers.questions import Question
from dskd.teachers.rounding import computed_in
from dskd.tokenization.vocabulary import Vocabulary
from helpers.tiny_tokenizers import byte_level, sentencepiece


def _states(seed: int = 0, rows: int = 40, hidden: int = 16) -> torch.Tensor:
    return torch.randn(rows, hidden, generator=torch.Generator().manual_seed(seed))


def _question(ids: list[int]) -> Question:
    return Question(ids, torch.arange(len(ids) - 1).numpy())


def _top(logits: torch.Tensor, k: int) -> dict[str, torch.Tensor]:
    top = logits.log_softmax(-1).topk(k)
    return {"ids": top.indices.int(), "log_probabilities": top.values}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_a_server_computes_in_is_seen_in_its_numbers(dtype: str) -> None:
    given = _states().to(getattr(torch, dtype))
    assert computed_in(given.float()) == dtype
    assert computed_in(given) == dtype


def test_states_differ_by_a_share_of_their_norm() -> None:
    states = _states()
    assert states_difference(states, states) == 0
    assert states_difference(states * 1.5, states) == pytest.approx(0.5)
    assert states_difference(_states(1), states) == pytest.approx(math.sqrt(2), rel=0.1)


def test_top_k_differ_by_a_share_of_their_probability() -> None:
    logits = _states(rows=8, hidden=50)
    given = _top(logits, 5)
    assert top_k_difference(given, _top(logits, 9)) == pytest.approx(0, abs=1e-6)  # the reference keeps more
    disjoint = {**given, "ids": given["ids"] + 100}
    assert top_k_difference(given, disjoint) == pytest.approx(2)
    moved = {**given, "log_probabilities": given["log_probabilities"] + math.log(0.9)}
    assert top_k_difference(given, moved) == pytest.approx(0.1)


def test_texts_differ_by_nats() -> None:
    assert text_difference(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -2.0])) == pytest.approx(0.25)
    assert difference({"log_probabilities": torch.zeros(2)}, {"log_probabilities": torch.ones(2)}) == 1


def test_numbers_that_are_none_are_counted() -> None:
    hidden = _states()
    hidden[3, 4], hidden[5, 6] = math.nan, math.inf
    assert not_finite({"hidden": hidden}) == 2
    assert not_finite({"ids": torch.tensor([[1]]), "log_probabilities": torch.tensor([[-math.inf]])}) == 1
    no_token = {"ids": torch.tensor([[1, -1]]), "log_probabilities": torch.tensor([[-1.0, -math.inf]])}
    assert not_finite(no_token) == 0
    assert checks.probabilities("http://a", [no_token], 2).result == "passed"
    (check,) = [checks.finite("http://a", [{"hidden": hidden}], "float16")]
    assert check.result == "refused"
    assert check.found == "2 of 640 numbers are not finite in float16"
    assert "bfloat16" in check.fix


def test_answers_come_apart_by_question() -> None:
    questions = [_question([1, 2, 3]), _question([4, 5])]
    parts = split({"hidden": torch.arange(3.0)[:, None]}, questions)
    assert [part["hidden"].flatten().tolist() for part in parts] == [[0.0, 1.0], [2.0]]


def test_nats_of_a_head_are_the_cross_entropy_of_its_logits() -> None:
    states, weight = _states(rows=2), _states(7, rows=9)
    question = _question([1, 4, 6])
    head = Head(weight, None, 1.0, 0.0, 8)  # one row of padding
    scores = (states @ weight[:8].T).log_softmax(-1)
    expected = -(scores[0, 4] + scores[1, 6]) / 2
    assert mean_nats(head, [{"hidden": states}], [question]) == pytest.approx(expected.item(), rel=1e-5)
    answered = {"log_probabilities": torch.tensor([-1.0, -3.0])}
    assert mean_nats(None, [answered], [question]) == 2


@pytest.mark.parametrize(
    ("nats", "result"),
    [
        ({"plain text": math.log(400)}, "passed"),  # random weights
        ({"plain text": math.log(400) + 0.8}, "passed"),  # random weights of 4,096 numbers a token
        ({"plain text": math.log(400) + 1.4}, "refused"),
        ({"plain text": math.log(400) + 9}, "refused"),  # another model's head
        (
            {"plain text": math.log(400) + 9, "examples of the data": 2.0},
            "passed",
        ),  # a model for something else than prose
        ({"plain text": math.nan}, "refused"),
    ],
)
def test_text_has_to_be_likely_or_by_chance(nats: dict[str, float], result: str) -> None:
    check = checks.likely_text("http://a", nats, 400, 4096, settled=False)
    assert check.result == result
    assert "by chance 400" in check.found
    assert checks.likely_text("http://a", nats, 400, 4096, settled=True).result == "passed"


def test_a_perplexity_beyond_counting_is_shown_as_a_power() -> None:
    assert perplexity(math.log(1234)) == "1,234"
    assert perplexity(25.3) == "e^25"


@pytest.mark.parametrize(
    ("wire", "computed", "share", "result"),
    [
        ("float32", "float32", 5e-4, "passed"),
        ("float32", "float32", 5e-3, "refused"),
        ("float32", "bfloat16", 5e-2, "passed"),  # the server computes in it, which its numbers show
        ("float32", "bfloat16", 0.3, "refused"),
        ("bfloat16", "float32", 5e-2, "passed"),
        ("float16", "float16", 1e-2, "passed"),
        ("float16", "float16", 0.1, "refused"),
    ],
)
def test_the_limit_is_that_of_the_coarsest_dtype(wire: str, computed: str, share: float, result: str) -> None:
    expected = _states(rows=200, hidden=64)
    noise = _states(9, rows=200, hidden=64)
    given = (expected + share * noise * expected.norm() / noise.norm()).to(getattr(torch, computed)).float()
    given = given.to(getattr(torch, wire))
    compare = checks.Comparison("hidden_states", wire)
    check = compare.same("replicas", [("'a text'", {"hidden": given}, {"hidden": expected})], "serve one model")
    assert check.result == result
    assert check.value is not None
    assert check.limit is not None
    assert (check.value <= check.limit) == (result == "passed")
    assert f"{check.value:.2g}" in check.found
    assert f"{check.limit:g}" in check.found


def test_states_of_length_one_are_not_those_that_enter_a_head() -> None:
    states = _states()
    assert checks.raw_states("http://a", [{"hidden": states}]).result == "passed"
    normalised = torch.nn.functional.normalize(states, dim=-1).bfloat16()
    check = checks.raw_states("http://a", [{"hidden": normalised}])
    assert check.result == "refused"
    assert '"use_activation": false' in check.fix


def test_probabilities_of_more_than_one_are_refused() -> None:
    answer = _top(_states(rows=4, hidden=30), 5)
    assert checks.probabilities("http://a", [answer], 30).result == "passed"
    scaled = {**answer, "log_probabilities": torch.zeros(4, 5)}
    check = checks.probabilities("http://a", [scaled], 30)
    assert check.result == "refused"
    assert "5.0000" in check.found
    nowhere = {**answer, "ids": answer["ids"].clone()}
    nowhere["ids"][1] = -1
    refused = checks.probabilities("http://a", [nowhere], 100)
    assert refused.found == "none of the most probable tokens is one of the teacher's 100, at 1 positions"
    beyond = checks.probabilities("http://a", [answer], int(answer["ids"].max()))
    assert beyond.result == "refused"
    assert "is among the most probable" in beyond.found


@pytest.mark.parametrize("others", [sentencepiece(), byte_level(300), byte_level(end="<end>")])
def test_the_texts_tell_tokenizers_apart(others: object) -> None:
    own = byte_level()
    texts = [*TEXTS, *vocabulary_texts(Vocabulary.from_tokenizer(own))]
    first, second = (
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts] for tokenizer in (own, others)
    )
    assert first != second


def test_two_tokenizers_that_differ_in_one_merge_are_told_apart() -> None:
    own = byte_level()
    state = own.backend_tokenizer.to_str()
    vocabulary = Vocabulary.from_tokenizer(own)
    first, second = sorted(
        (k for k, token in enumerate(vocabulary.tokens) if token and len(token) > 4), key=lambda k: k
    )[:2]
    words = [own.convert_ids_to_tokens(k) for k in (first, second)]
    changed = json.loads(state)
    changed["model"]["vocab"][words[0]], changed["model"]["vocab"][words[1]] = second, first
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(changed)), eos_token="<|end|>")
    texts = [*TEXTS, *vocabulary_texts(vocabulary)]
    assert any(own(text)["input_ids"] != other(text)["input_ids"] for text in texts)


def test_a_text_is_cut_where_it_is_too_long_and_before_a_token_without_a_row() -> None:
    tokenizer = byte_level()
    whole = tokenizer(TEXTS[0])["input_ids"]
    question = question_of(tokenizer, TEXTS[0], 10, len(tokenizer))
    assert question is not None
    assert question.ids == whole[:10]
    assert question.positions.tolist() == list(range(9))
    largest = max(whole)
    cut = question_of(tokenizer, TEXTS[0], 500, largest)
    assert cut is not None
    assert cut.ids == whole[: whole.index(largest)]
    assert question_of(tokenizer, "a", 500, len(tokenizer)) is None
