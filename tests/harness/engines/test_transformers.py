"""The transformers engine, against one prompt at a time and no padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from dskd.modeling.loading import load_model
from harness.engines import create_engine
from harness.engines._decoding import cut_at_stop, decode_completion
from harness.engines.base import Sampling
from helpers.engine_requests import complete, texts


@pytest.fixture(params=["llama_folder", "gpt2_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def engine(folder: Path) -> Any:
    return create_engine("transformers", folder, seed=3, max_batch_size=5)


def greedy(model: Any, ids: list[int], eos: int, limit: int) -> list[int]:
    """The greedy continuation by the definition: a whole forward pass for each token."""
    new = []
    while len(new) < limit and (not new or new[-1] != eos):
        with torch.inference_mode():
            new.append(int(model(torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
    return new


def test_padded_batches_give_what_each_prompt_gives_alone(engine: Any, folder: Path, requests: Callable) -> None:
    completions = complete(engine, requests(stop=()))
    model = load_model(folder).eval()
    for request, completion in zip(requests(), completions, strict=True):
        ids = encode_prompt(engine.tokenizer, request.prompt)
        assert completion.prompt_truncated == (len(ids) > 128 - 24)
        if not completion.prompt_truncated:
            new = greedy(model, ids, engine.tokenizer.eos_token_id, 24)
            assert completion.text == decode_completion(engine.tokenizer, ids, new)
            assert completion.ids == new
            assert completion.prompt_ids == ids


def test_stop_strings_cut_what_would_have_been_written_and_save_tokens(engine: Any, requests: Callable) -> None:
    stop = requests()[0].sampling.stop
    free = complete(engine, requests(stop=()))
    stopped = complete(engine, requests())
    assert [each.text for each in stopped] == [cut_at_stop(each.text, stop)[0] for each in free]
    hits = [cut_at_stop(each.text, stop)[1] for each in free]
    assert any(hits)
    assert not all(hits)
    for hit, before, after in zip(hits, free, stopped, strict=True):
        if hit:
            assert after.finish_reason == "stop"
            assert len(after.ids) <= len(before.ids)
        else:
            assert after == before
    assert sum(len(each.ids) for each in stopped) < sum(len(each.ids) for each in free)


def test_a_stop_string_in_the_prompt_ends_nothing(engine: Any, requests: Callable) -> None:
    free = texts(engine, requests(stop=()))
    word = "quick"
    assert not any(word in text for text in free)
    assert any(word in request.prompt for request in requests())
    assert texts(engine, requests(stop=[word])) == free


def test_the_end_of_sequence_is_a_stop_and_no_text(engine: Any, requests: Callable) -> None:
    (request, *_) = requests(stop=())
    ids = encode_prompt(engine.tokenizer, request.prompt)
    new = engine._generate([ids], Sampling(24), [0])[0].ids
    engine.eos_token_ids = [new[5]]
    first = new.index(new[5]) + 1
    (completion,) = complete(engine, [request])
    assert (completion.finish_reason, len(completion.ids)) == ("stop", first)


def test_requests_are_answered_in_order_and_counted(engine: Any, requests: Callable) -> None:
    counts = []
    engine.on_finished = counts.append
    there, back = requests(stop=()), requests(stop=())[::-1]
    assert texts(engine, there) == texts(engine, back)[::-1]
    assert sum(counts) == 2 * len(there)
    assert max(counts) <= 5  # the size of a batch


def test_sampling_is_random_and_repeats_with_its_seed(engine: Any, requests: Callable) -> None:
    settings = {"temperature": 1.5, "top_p": 0.99}
    first = texts(engine, requests(stop=(), **settings))
    assert first == texts(engine, requests(stop=(), **settings))
    assert first != texts(engine, requests(stop=()))
    engine.seed = 4
    assert first != texts(engine, requests(stop=(), **settings))


def test_a_folder_s_own_generation_settings_do_not_count(folder: Path, tmp_path: Path, requests: Callable) -> None:
    import json
    import shutil

    copy = shutil.copytree(folder, tmp_path / "model")
    settings = json.loads((copy / "generation_config.json").read_text())
    settings |= {"repetition_penalty": 5.0, "do_sample": True, "max_new_tokens": 2, "no_repeat_ngram_size": 1}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    expected = texts(create_engine("transformers", folder), requests())
    assert texts(create_engine("transformers", copy), requests()) == expected


def test_no_room_for_a_prompt_is_an_error_with_the_fix(engine: Any, requests: Callable) -> None:
    with pytest.raises(
        InputError, match=r"config.json: a context of 128 tokens has no room .* 128 new tokens; fix: lower"
    ):
        texts(engine, requests(max_new_tokens=128))


def test_an_empty_prompt_is_answered_from_the_start_of_a_text(engine: Any, folder: Path) -> None:
    (completion,) = engine.complete([""], Sampling(9))
    tokenizer = engine.tokenizer
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    new = greedy(load_model(folder).eval(), [start], tokenizer.eos_token_id, 9)
    assert completion.text == decode_completion(tokenizer, [start], new)
