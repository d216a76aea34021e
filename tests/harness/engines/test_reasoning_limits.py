"""Limits of reasoning and answer, each its own: where they end a completion, and what follows reasoning that is closed at its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from harness.engines import create_engine
from harness.engines._completion_cache import CompletionCache
from harness.engines._limits import CompletionEnd
from harness.engines._reasoning import AnswerEnd
from harness.engines._types import Completion, GeneratedTokens, Sampling
from harness.engines.transformers import TransformersEngine
from helpers.reasoning_models import KINDS, LIMITS, SAID

PROMPTS = list(SAID)
ANSWER = 6


class SumEngine(TransformersEngine):
    """An engine that knows nothing of limits and stop strings: it generates the sum, or to the end of sequence."""

    def completion_end(self, prompt: Sequence[int], sampling: Sampling) -> CompletionEnd:
        return CompletionEnd(AnswerEnd(self.reader, prompt, ()), None)


@pytest.fixture(scope="module")
def engines(thinkers: dict[str, Path]) -> dict[str, TransformersEngine]:
    return {kind: TransformersEngine(folder, seed=3) for kind, folder in thinkers.items()}


@pytest.fixture(scope="module")
def free(engines: dict[str, TransformersEngine]) -> dict[str, list[list[int]]]:
    """The ids of each completion without any limit that it reaches."""
    return {kind: [each.ids for each in engine.complete(PROMPTS, Sampling(75))] for kind, engine in engines.items()}


def closed_at(engine: TransformersEngine, ids: list[int]) -> int | None:
    """After how many ids the closing marker is there, looked for one by one."""
    found = (n for n in range(1, len(ids) + 1) if "</think>" in engine.reader.decode(ids[:n]))
    return next(found, None)


def limited(limit: int, answer: int = ANSWER, **more: Any) -> Sampling:
    return Sampling(limit + answer, max_reasoning_tokens=limit, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_of_less_than_its_limit_of_exactly_it_and_of_more(
    kind: str, engines: dict[str, TransformersEngine], free: dict[str, list[list[int]]]
) -> None:
    engine = engines[kind]
    for number in (0, 2, 4):  # whose reasoning ends; the prompt of the second opens it
        ends = closed_at(engine, free[kind][number])
        assert ends is not None
        for limit in (ends + 3, ends, ends - 1, 2):
            found = engine.complete(PROMPTS, limited(limit))[number]
            is_over = ends <= limit
            assert found.ids == free[kind][number][: ends + ANSWER if is_over else limit]
            assert found.reasoning_ended is is_over
            assert found.reasoning_tokens == (ends if is_over else limit)
            assert found.generated_tokens - found.reasoning_tokens <= ANSWER
            assert bool(found.text) == is_over
            if not is_over:
                assert found.finish_reason == "length"


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_without_reasoning_has_the_answer_s_limit_alone(
    kind: str, engines: dict[str, TransformersEngine], free: dict[str, list[list[int]]]
) -> None:
    found = engines[kind].complete(PROMPTS, limited(40, answer=3))[1]
    assert found.ids == free[kind][1][:3]
    assert (found.reasoning, found.finish_reason) == (None, "length")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name, sampling in LIMITS.items() if not sampling.stop])
def test_an_engine_that_generates_the_sum_gives_the_same(
    name: str, kind: str, engines: dict[str, TransformersEngine], thinkers: dict[str, Path]
) -> None:
    foreign = SumEngine(thinkers[kind], seed=3)
    assert foreign.complete(PROMPTS, LIMITS[name]) == engines[kind].complete(PROMPTS, LIMITS[name])


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_with_stop_strings_but_for_what_they_cut_off(
    kind: str, engines: dict[str, TransformersEngine], thinkers: dict[str, Path]
) -> None:
    def parts(completions: list[Completion]) -> Any:
        return [(c.text, c.finish_reason, c.reasoning, c.reasoning_tokens, c.closing_tokens) for c in completions]

    foreign = SumEngine(thinkers[kind], seed=3)
    for sampling in (each for each in LIMITS.values() if each.stop):
        assert parts(foreign.complete(PROMPTS, sampling)) == parts(engines[kind].complete(PROMPTS, sampling))


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_closed_at_its_limit_is_answered_as_by_a_model_that_closed_it(
    kind: str, engines: dict[str, TransformersEngine], free: dict[str, list[list[int]]]
) -> None:
    engine, sampling, tokenizer = engines[kind], LIMITS["close"], engines[kind].tokenizer
    limit, cut = sampling.max_reasoning_tokens or 0, 0
    for prompt, own, found in zip(PROMPTS, free[kind], engine.complete(PROMPTS, sampling), strict=True):
        if not found.closing_tokens:
            assert found.ids == own[: len(found.ids)]
            continue
        cut += 1
        ends_a_line = engine.reader.decode(own[:limit]).endswith("\n")
        closing = tokenizer("</think>\n\n" if ends_a_line else "\n</think>\n\n", add_special_tokens=False)["input_ids"]
        begun = [*own[:limit], *closing]
        ids = [*encode_prompt(tokenizer, prompt), *begun]
        eos = tokenizer.eos_token_id
        settings: dict[str, Any] = {"eos_token_id": eos, "pad_token_id": eos, "max_new_tokens": 8}
        answer = engine.model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist()
        assert found.ids == [*begun, *answer]
        assert (found.reasoning_tokens, found.closing_tokens) == (limit, len(closing))
        assert found.generated_tokens == limit + len(answer)
        assert found.reasoning_ended
        assert found.reasoning is not None
        assert "</think>" not in found.reasoning + found.text
    assert cut >= 3


def test_both_engines_give_the_same_within_limits(engines: dict[str, TransformersEngine], vllm_reasoning: Any) -> None:
    for kind in KINDS:
        for name, theirs in vllm_reasoning[kind].items():
            if LIMITS[name].temperature:
                continue  # random numbers of their own
            ours = [asdict(completion) for completion in engines[kind].complete(PROMPTS, LIMITS[name])]
            assert theirs["completions"] == ours, (kind, name)
            assert theirs["finished"] == len(PROMPTS)
    assert len(vllm_reasoning["special"]) == len(LIMITS)


def test_vllm_s_drawn_completions_keep_to_the_limits(vllm_reasoning: Any) -> None:
    closed = 0
    for kind in KINDS:
        for found in vllm_reasoning[kind]["close, sampled"]["completions"]:
            answer = len(found["ids"]) - found["closing_tokens"] - found["reasoning_tokens"]
            # A model whose reasoning was closed for it may draw the closing marker once more: what is before that is reasoning, too.
            assert found["reasoning_tokens"] <= 9 or found["closing_tokens"] > 0
            assert answer <= 8
            assert answer + found["reasoning_tokens"] <= 9 + 8
            closed += found["closing_tokens"] > 0
    assert closed > 3


def test_drawn_completions_depend_on_no_other_of_the_batch(engines: dict[str, TransformersEngine]) -> None:
    sampling, seeds = LIMITS["close, sampled"], [11, 12, 13, 14, 15]
    engine = engines["special"]
    together = engine.complete(PROMPTS, sampling, seeds)
    assert sum(bool(each.closing_tokens) for each in together) > 1
    alone = [engine.complete([prompt], sampling, [seed])[0] for prompt, seed in zip(PROMPTS, seeds, strict=True)]
    assert together == alone
    # What stays below the limit is what it is under any: the same numbers are drawn.
    longer = engine.complete(PROMPTS, limited(40, answer=8, temperature=1.0), seeds)
    for short, long in zip(together, longer, strict=True):
        assert short.ids[: short.reasoning_tokens] == long.ids[: short.reasoning_tokens]


def test_a_killed_engine_resumes_between_reasoning_and_answers(
    thinkers: dict[str, Path], engines: dict[str, TransformersEngine], tmp_path: Path
) -> None:
    path, sampling = tmp_path / "answers.jsonl", LIMITS["close"]
    expected = engines["special"].complete(PROMPTS, sampling)

    def made(most: int) -> tuple[TransformersEngine, list[Sampling]]:
        """An engine that is killed before it generates more than so many blocks."""
        engine = TransformersEngine(thinkers["special"], seed=3, max_batch_size=2)
        engine.cache = CompletionCache(path)
        asked: list[Sampling] = []
        generate = engine._generate

        def until_killed(prompts: Any, sampling: Sampling, seeds: Any) -> list[GeneratedTokens]:
            if len(asked) == most:
                raise KeyboardInterrupt
            asked.append(sampling)
            return generate(prompts, sampling, seeds)

        engine._generate = until_killed  # type: ignore[method-assign]
        return engine, asked

    with pytest.raises(KeyboardInterrupt):
        made(3)[0].complete(PROMPTS, sampling)
    assert len(path.read_text().splitlines()) == 3
    again, asked = made(9)
    finished: list[int] = []
    again.on_finished = finished.append
    assert again.complete(PROMPTS, sampling) == expected
    assert asked[0].after_reasoning  # the second block's answers: its reasoning is kept
    assert len(asked) == 6 - 3
    assert sum(finished) == len(PROMPTS)


def test_a_context_without_room_for_both_limits(thinkers: dict[str, Path]) -> None:
    engine = create_engine("transformers", thinkers["special"], max_length=60)
    with pytest.raises(InputError, match=r"60 new tokens; fix: lower max_reasoning_tokens or max_new_tokens"):
        engine.complete(PROMPTS, limited(50, 10))
    with pytest.raises(InputError, match=r"no room"):
        engine.complete(PROMPTS, limited(50, 6, reasoning_end="close"))
    assert engine.complete(PROMPTS[:1], limited(40, 6, reasoning_end="close"))


def test_a_model_without_markers_has_one_limit(llama_folder: Path) -> None:
    engine = create_engine("transformers", llama_folder)
    given = engine.complete(["the fox", "12"], Sampling(7))
    assert engine.complete(["the fox", "12"], limited(20, 7, reasoning_end="close")) == given
