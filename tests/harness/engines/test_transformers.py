"""The transformers engine, against one prompt at a time and no padding."""

import pytest
import torch

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from dskd.modeling.loading import load_model
from harness.engines import create_engine
from harness.engines.base import cut_at_stop, decode_completion


@pytest.fixture(params=["llama_folder", "gpt2_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def engine(folder):
    return create_engine("transformers", folder, seed=3, max_batch_size=5)


def greedy(model, ids, eos, limit):
    """The greedy continuation by the definition: a whole forward pass for each token."""
    new = []
    while len(new) < limit and (not new or new[-1] != eos):
        with torch.inference_mode():
            new.append(int(model(torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
    return new


def test_padded_batches_give_what_each_prompt_gives_alone(engine, folder, requests):
    texts = engine.generate_until(requests(stop=()))
    model = load_model(folder).eval()
    for request, text, generation in zip(requests(), texts, engine.generations, strict=True):
        ids = encode_prompt(engine.tokenizer, request.args[0])
        assert generation.prompt_truncated == (len(ids) > 128 - 24)
        if not generation.prompt_truncated:
            new = greedy(model, ids, engine.tokenizer.eos_token_id, 24)
            assert text == decode_completion(engine.tokenizer, ids, new)
            assert generation.generated_tokens == len(new)
            assert generation.prompt_tokens == len(ids)


def test_stop_strings_cut_what_would_have_been_written_and_save_tokens(engine, requests):
    stop = requests()[0].args[1]["until"]
    free = engine.generate_until(requests(stop=()))
    unstopped = engine.generations
    stopped = engine.generate_until(requests())
    assert stopped == [cut_at_stop(text, stop)[0] for text in free]
    hits = [cut_at_stop(text, stop)[1] for text in free]
    assert any(hits)
    assert not all(hits)
    for hit, before, after in zip(hits, unstopped, engine.generations, strict=True):
        if hit:
            assert after.finish_reason == "stop"
            assert after.generated_tokens <= before.generated_tokens
        else:
            assert after == before
    assert sum(each.generated_tokens for each in engine.generations) < sum(each.generated_tokens for each in unstopped)


def test_a_stop_string_in_the_prompt_ends_nothing(engine, requests):
    free = engine.generate_until(requests(stop=()))
    word = "quick"
    assert not any(word in text for text in free)
    assert any(word in request.args[0] for request in requests())
    assert engine.generate_until(requests(stop=[word])) == free


def test_the_end_of_sequence_is_a_stop_and_no_text(engine, requests):
    (request, *_) = requests(stop=())
    ids = encode_prompt(engine.tokenizer, request.args[0])
    new = engine._generate([ids], engine_sampling(24), [0])[0].ids
    engine.eos_token_ids = [new[5]]
    first = new.index(new[5]) + 1
    engine.generate_until([request])
    (generation,) = engine.generations
    assert (generation.finish_reason, generation.generated_tokens) == ("stop", first)


def engine_sampling(limit):
    from harness.engines.base import Sampling

    return Sampling(limit)


def test_requests_are_answered_in_order_and_counted(engine, requests):
    counts = []
    engine.on_finished = counts.append
    there, back = requests(stop=()), requests(stop=())[::-1]
    assert engine.generate_until(there) == engine.generate_until(back)[::-1]
    assert sum(counts) == 2 * len(there)
    assert max(counts) <= 5  # the size of a batch


def test_requests_with_different_settings_may_stand_in_one_call(engine, requests):
    mixed = [
        long if n % 2 else short
        for n, (long, short) in enumerate(zip(requests(), requests(max_gen_toks=3), strict=True))
    ]
    texts = engine.generate_until(mixed)
    assert texts[1::2] == engine.generate_until(requests()[1::2])
    assert texts[::2] == engine.generate_until(requests(max_gen_toks=3)[::2])


def test_sampling_is_random_and_repeats_with_its_seed(engine, requests):
    settings = {"do_sample": True, "temperature": 1.5, "top_p": 0.99}
    first = engine.generate_until(requests(stop=(), **settings))
    assert first == engine.generate_until(requests(stop=(), **settings))
    assert first != engine.generate_until(requests(stop=()))
    engine.seed = 4
    assert first != engine.generate_until(requests(stop=(), **settings))


def test_a_folder_s_own_generation_settings_do_not_count(folder, tmp_path, requests):
    import json
    import shutil

    copy = shutil.copytree(folder, tmp_path / "model")
    settings = json.loads((copy / "generation_config.json").read_text())
    settings |= {"repetition_penalty": 5.0, "do_sample": True, "max_new_tokens": 2, "no_repeat_ngram_size": 1}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    expected = create_engine("transformers", folder).generate_until(requests())
    assert create_engine("transformers", copy).generate_until(requests()) == expected


def test_no_room_for_a_prompt_is_an_error_with_the_fix(engine, requests):
    with pytest.raises(
        InputError, match=r"config.json: a context of 128 tokens has no room .* 128 new tokens; fix: lower"
    ):
        engine.generate_until(requests(max_gen_toks=128))


def test_an_empty_prompt_is_answered_from_the_start_of_a_text(engine, folder):
    from lm_eval.api.instance import Instance

    (text,) = engine.generate_until([Instance("generate_until", {}, ("", {"max_gen_toks": 9}), 0, ("t", 0, 1))])
    tokenizer = engine.tokenizer
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    new = greedy(load_model(folder).eval(), [start], tokenizer.eos_token_id, 9)
    assert text == decode_completion(tokenizer, [start], new)
