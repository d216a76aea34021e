"""Drawn answers: each by its own random numbers, whatever its batch; and no n-gram twice, as transformers itself does it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dskd.data.preparation import encode_prompt
from dskd.modeling.loading import load_model
from harness.engines._limits import LimitedTokens
from harness.engines._no_repeat_ngram import Following
from harness.engines._seeds import sample_seed, uniform_numbers
from harness.engines.base import Sampling, fit_prompt
from harness.engines.transformers import TransformersEngine
from helpers.engine_requests import complete, texts

DRAWN = {"temperature": 1.0, "top_p": 0.95, "top_k": 50}


@pytest.fixture(params=["llama_folder", "gpt2_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def answers(folder: Path, requests: list[Any], batch_size: int, seed: int = 3) -> list[str]:
    engine = TransformersEngine(folder, seed=seed, max_batch_size=batch_size)
    return texts(engine, requests)


def test_an_answer_is_the_same_in_any_batch_and_at_any_place(folder: Path, requests: Callable) -> None:
    asked = requests(stop=(), **DRAWN)
    alone = answers(folder, asked, 1)
    assert answers(folder, asked, 7) == alone
    order = random.Random(1).sample(range(len(asked)), len(asked))
    shuffled = answers(folder, [asked[n] for n in order], 7)
    assert [shuffled[order.index(n)] for n in range(len(asked))] == alone
    assert answers(folder, asked[4:6], 7) == alone[4:6]  # whoever else is asked
    other = answers(folder, asked, 7, seed=4)
    assert sum(one == two for one, two in zip(alone, other, strict=True)) <= 1


def test_top_k_draws_from_so_many_tokens_alone(gpt2_folder: Path, requests: Callable) -> None:
    settings = DRAWN | {"temperature": 5.0, "top_p": 1.0}
    greedy = answers(gpt2_folder, requests(stop=()), 7)
    assert answers(gpt2_folder, requests(stop=(), **settings | {"top_k": 1}), 7) == greedy
    assert answers(gpt2_folder, requests(stop=(), **settings | {"top_k": 2}), 7) != greedy


def test_no_n_gram_twice_as_transformers_does_it(folder: Path, requests: Callable) -> None:
    n = 2
    engine = TransformersEngine(folder, seed=3, max_batch_size=7)
    asked = requests(stop=(), no_repeat_ngram=n)
    completions = complete(engine, asked)
    model = load_model(folder).eval()
    eos = engine.tokenizer.eos_token_id
    for request, completion in zip(asked, completions, strict=True):
        ids, _ = fit_prompt(encode_prompt(engine.tokenizer, request.prompt), 128 - 24, engine.tokenizer.bos_token_id)
        alone = model.generate(
            torch.tensor([ids]),
            max_new_tokens=24,
            do_sample=False,
            no_repeat_ngram_size=n,
            eos_token_id=eos,
            pad_token_id=eos,
        )[0, len(ids) :].tolist()
        expected = engine._finish(ids, completion.prompt_truncated, _generated(alone, eos), Sampling(24))
        assert completion == expected
    assert completions != complete(engine, requests(stop=()))


def _generated(ids: Any, eos: Any) -> Any:
    return LimitedTokens(ids, ended=ids[-1] == eos)


@given(ids=st.lists(st.integers(0, 3), min_size=1, max_size=30), n=st.integers(1, 6))
def test_vllm_s_mask_is_that_of_transformers_at_every_step(ids: list[int], n: int) -> None:
    from transformers import NoRepeatNGramLogitsProcessor

    reference, following = NoRepeatNGramLogitsProcessor(n), Following(n)
    for end in range(1, len(ids) + 1):
        masked = reference(torch.tensor([ids[:end]]), torch.zeros(1, 4))[0].isinf()
        assert set(following.repeats(ids[:end])) == set(masked.nonzero().flatten().tolist())


def test_filler_before_a_prompt_repeats_nothing() -> None:
    # What a batch pads a row with on the left; transformers' processor sees it too, and masks the same.
    from transformers import NoRepeatNGramLogitsProcessor

    reference, filler = NoRepeatNGramLogitsProcessor(3), 9
    for text in ([1], [1, 2], [1, 2, 3, 1, 2], [5, 5, 5, 5]):
        plain = reference(torch.tensor([text]), torch.zeros(1, 10))
        assert torch.equal(reference(torch.tensor([[filler] * 6 + text]), torch.zeros(1, 10)), plain)


def test_seeds_and_numbers_are_pinned() -> None:
    # Other values would change every drawn answer: raise CODE_VERSIONS["evaluate"] and "answers" with them.
    assert sample_seed(10, "dolly/0", 0) == 4359376964470829280
    assert uniform_numbers([7], 2).tolist() == [[0.8720734548204873, 0.29536538151378355]]
    seeds = [sample_seed(seed, item, index) for seed in (1, 2) for item in ("a", "b") for index in (0, 1)]
    assert len(set(seeds)) == 8
    assert max(seeds) < 2**63
    short, long = uniform_numbers([7], 5), uniform_numbers([8, 7], 9)
    assert short[0].tolist() == long[1, :5].tolist()
