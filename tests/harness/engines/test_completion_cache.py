"""Answers that were written before an evaluation was killed are not asked for again, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.engines._completion_cache import CompletionCache, block_key
from harness.engines._types import GeneratedTokens, Sampling
from harness.engines.transformers import TransformersEngine
from helpers.engine_requests import complete


class Interrupted(Exception):
    pass


def engine(folder: Path, store: CompletionCache | None) -> TransformersEngine:
    made = TransformersEngine(folder, seed=3, max_batch_size=2, max_length=None)
    made.cache = store
    return made


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}])
def test_an_interrupted_engine_goes_on_with_the_same_answers(
    llama_folder: Path, requests: Callable, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = engine(llama_folder, None)
    expected = complete(whole, requests(**settings))
    path = tmp_path / "folder" / "answers.jsonl"
    first = engine(llama_folder, CompletionCache(path))
    done = 0

    def stop_after_two_blocks(count: int) -> None:
        nonlocal done
        done += count
        if done == 6:  # the third block is answered and not yet kept
            raise Interrupted

    first.on_finished = stop_after_two_blocks
    with pytest.raises(Interrupted):
        complete(first, requests(**settings))
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"block": "torn')
    again = engine(llama_folder, CompletionCache(path))
    asked: list[int] = []
    generate = again._generate
    again._generate = lambda *arguments: (asked.append(1), generate(*arguments))[1]  # type: ignore[method-assign]
    finished: list[int] = []
    again.on_finished = finished.append
    assert complete(again, requests(**settings)) == expected
    assert len(asked) == -(-len(expected) // 2) - 2
    assert sum(finished) == len(expected)
    assert all(line.startswith('{"block"') and line.endswith("}") for line in path.read_text().splitlines())


def test_other_questions_settings_and_seeds_are_other_blocks(tmp_path: Path) -> None:
    greedy = Sampling(max_new_tokens=4)
    keys = [
        block_key([[1, 2]], greedy, [0]),
        block_key([[1, 3]], greedy, [0]),
        block_key([[1], [2]], greedy, [0, 1]),
        block_key([[1, 2]], Sampling(max_new_tokens=5), [0]),
        block_key([[1, 2]], greedy, [1]),
    ]
    assert len(set(keys)) == len(keys)
    store = CompletionCache(tmp_path / "answers.jsonl")
    store.put(keys[0], [GeneratedTokens([5, 6], ended=True)])
    read = CompletionCache(store.path)
    assert read.get(keys[0], GeneratedTokens) == [GeneratedTokens([5, 6], ended=True)]
    assert read.get(keys[1], GeneratedTokens) is None
    read.remove()
    read.remove()
    assert CompletionCache(store.path).get(keys[0], GeneratedTokens) is None
