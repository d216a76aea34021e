"""Log-likelihoods of continuations: of the tokens that lm-eval scores, with the values that it finds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from dskd.errors import InputError
from dskd.modeling.loading import load_model, load_tokenizer
from harness.engines import create_engine
from harness.engines._completion_cache import CompletionCache
from harness.engines._pairs import encode_pairs, fit_pair
from harness.engines.transformers import TransformersEngine
from helpers.scored_pairs import DIVIDED, PAIRS, TOO_LONG, pairs_of


@pytest.fixture(params=["llama_folder", "gpt2_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def hf_lm(folder: Path, **settings: Any) -> Any:
    """lm-eval's model of transformers."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = load_tokenizer(folder)
    return HFLM(pretrained=load_model(folder).eval(), tokenizer=tokenizer, batch_size=4, device="cpu", **settings)


def asked(pairs: list[tuple[str, str]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("loglikelihood", {}, pair, 0) for pair in pairs]


def test_values_and_greedy_choices_are_those_of_lm_eval(folder: Path) -> None:
    theirs_of = hf_lm(folder)
    engine = create_engine("transformers", folder, max_batch_size=5)
    # A tokenizer without a begin token gives lm-eval no token before a context of white space, and it fails.
    pairs = [pair for pair in pairs_of(engine) if pair[0].strip() or not pair[0] or theirs_of.tok_encode("")]
    theirs = theirs_of.loglikelihood(asked(pairs), disable_tqdm=True)
    ours = engine.loglikelihoods(pairs)
    assert [found.value for found in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
    assert [found.is_greedy for found in ours] == [is_greedy for _, is_greedy in theirs]
    assert [found.truncated for found in ours] == [pair == TOO_LONG for pair in pairs]
    assert {found.is_greedy for found in ours} == {True, False}


def test_an_end_that_the_tokenizer_adds_is_no_part_of_a_context(byte_level_folder: Path) -> None:
    plain, ending = load_tokenizer(byte_level_folder), load_tokenizer(byte_level_folder)
    end = (ending.eos_token, ending.eos_token_id)
    ending.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    assert ending("the dog")["input_ids"] == [*plain("the dog")["input_ids"], end[1]]
    pairs = [("the dog", " jumps over"), ("", "the fox")]
    assert encode_pairs(ending, pairs) == encode_pairs(plain, pairs)


def test_the_ids_are_those_of_lm_eval(folder: Path) -> None:
    theirs, tokenizer = hf_lm(folder), load_tokenizer(folder)
    check_ids(theirs, tokenizer, folder)


@pytest.mark.parametrize("name", ["gpt2", "minimind", "mistral", "phi-3-mini", "qwen1.5-1.8b"])
def test_the_ids_are_those_of_lm_eval_with_published_tokenizers(name: str, real_data: Path, gpt2_folder: Path) -> None:
    tokenizer = load_tokenizer(real_data / "tokenizers" / name)
    theirs = hf_lm(gpt2_folder)
    theirs.tokenizer = tokenizer
    check_ids(theirs, tokenizer, gpt2_folder)


def check_ids(theirs: Any, tokenizer: Any, folder: Path) -> None:
    found: dict[tuple[str, str], Any] = {}
    theirs._loglikelihood_tokens = lambda requests, **_: found.update({key: ids for key, *ids in requests})
    for pair in [*PAIRS, DIVIDED]:
        try:
            theirs.loglikelihood(asked([pair]), disable_tqdm=True)
        except (AssertionError, IndexError):
            found[pair] = [[], []]
    for pair, (context, continuation) in found.items():
        if context and continuation:
            (ours,) = encode_pairs(tokenizer, [pair])
            assert (list(ours.context), list(ours.continuation)) == (context, continuation), pair
        elif pair[0].strip() or not continuation:
            with pytest.raises(InputError, match="has no token of its own"):
                encode_pairs(tokenizer, [pair])
    assert sum(bool(continuation) for _, continuation in found.values()) > 12
    encoded = encode_pairs(tokenizer, [pair for pair in PAIRS if all(found[pair])])
    assert [list(each.continuation) for each in encoded] == [list(found[pair][1]) for pair in PAIRS if all(found[pair])]


@pytest.mark.parametrize("sizes", [(1, 64), (3, 7)])
def test_batches_and_order_change_nothing(folder: Path, sizes: tuple[int, int]) -> None:
    values = []
    for size in sizes:
        pairs = list(PAIRS)
        random.Random(size).shuffle(pairs)
        reports: list[int] = []
        engine = create_engine("transformers", folder, max_batch_size=size)
        engine.on_finished = reports.append
        found = dict(zip(pairs, engine.loglikelihoods(pairs), strict=True))
        values.append([found[pair].value for pair in PAIRS])
        assert sum(reports) == len(PAIRS)
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_the_head_is_applied_to_the_continuations_alone(folder: Path) -> None:
    engine = create_engine("transformers", folder)
    sizes = []
    engine.model.get_output_embeddings().register_forward_hook(lambda _, __, output: sizes.append(output.shape[1]))
    letters = [("Question: how many apples?\nAnswer:", f" {letter}") for letter in "ABCD"]
    tokens = [found.tokens for found in engine.loglikelihoods(letters)]
    assert tokens in ([1] * 4, [2] * 4)
    assert sizes == [1 if tokens[0] == 1 else 2]  # the same places for all four, of one text


def test_a_model_without_a_head_to_watch_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine("transformers", folder)
    expected = [found.value for found in engine.loglikelihoods(PAIRS)]
    monkeypatch.setattr(engine.model, "get_output_embeddings", lambda: None)
    assert [found.value for found in engine.loglikelihoods(PAIRS)] == pytest.approx(expected, abs=1e-4)


def test_a_killed_request_goes_on_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = create_engine("transformers", folder, max_batch_size=4).loglikelihoods(PAIRS)
    scored: list[int] = []
    score = TransformersEngine._loglikelihoods

    def fail_later(self: Any, pairs: Any) -> Any:
        if sum(scored) >= 8:
            raise KeyboardInterrupt
        scored.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(TransformersEngine, "_loglikelihoods", fail_later)
    engine = create_engine("transformers", folder, max_batch_size=4)
    engine.cache = CompletionCache(tmp_path / "answers.jsonl")
    with pytest.raises(KeyboardInterrupt):
        engine.loglikelihoods(PAIRS)
    scored.clear()
    monkeypatch.setattr(
        TransformersEngine, "_loglikelihoods", lambda self, pairs: scored.append(len(pairs)) or score(self, pairs)
    )
    engine.cache = CompletionCache(tmp_path / "answers.jsonl")
    reports: list[int] = []
    engine.on_finished = reports.append
    assert engine.loglikelihoods(PAIRS) == whole
    assert (sum(scored), sum(reports)) == (len(PAIRS) - 8, len(PAIRS))


def test_what_cannot_be_scored_is_one_line(gpt2_folder: Path) -> None:
    engine = create_engine("transformers", gpt2_folder)
    with pytest.raises(InputError, match=r"^continuation '' after 'the dog': has no token of its own .*; fix: leave"):
        engine.loglikelihoods([("the dog", "")])
    with pytest.raises(InputError, match="has no token of its own"):
        engine.loglikelihoods([("", "")])
    with pytest.raises(InputError, match=r"continuation of \d+ tokens: the model's context has room for 129"):
        engine.loglikelihoods([("the dog", " fox jumps over" * 60)])


def test_the_first_tokens_of_a_context_that_does_not_fit_are_dropped(gpt2_folder: Path) -> None:
    (pair,) = encode_pairs(load_tokenizer(gpt2_folder), [("the quick brown fox jumps", " over the")])
    room = len(pair.continuation) + 2
    fitted = fit_pair(pair, room)
    assert (list(fitted.context), fitted.continuation, fitted.truncated) == (
        list(pair.context)[-2:],
        pair.continuation,
        True,
    )
    assert fit_pair(pair, len(pair)) is pair
    assert fit_pair(pair, None) is pair


def test_an_engine_without_them_says_so(gpt2_folder: Path) -> None:
    class Plain(TransformersEngine):
        name = "plain"
        _loglikelihoods = TransformersEngine.__mro__[1]._loglikelihoods  # type: ignore[attr-defined]

    with pytest.raises(InputError, match=r"^engine plain: it computes no log-likelihoods; fix: use vllm or"):
        Plain(gpt2_folder, seed=0).loglikelihoods([("a", " b")])
