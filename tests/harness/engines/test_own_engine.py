"""The engine that docs/engines.md builds: found as the others are, and answering as they do."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness.engines
from harness.engines import create_engine
from helpers.engine_requests import complete
from helpers.paths import ROOT
from helpers.reasoning_models import LIMITS, SAID
from helpers.scored_pairs import PAIRS, pairs_of

PAGE = ROOT / "docs" / "engines.md"


@pytest.fixture(params=["llama_folder", "gpt2_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def _stepwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder with the page's file, as if it lay beside the other engines."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "stepwise.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(harness.engines, "__path__", [*harness.engines.__path__, str(tmp_path)])
    yield
    sys.modules.pop("harness.engines.stepwise", None)


SAMPLED = {"temperature": 0.9, "top_p": 0.9, "top_k": 20}


@pytest.mark.usefixtures("_stepwise")
@pytest.mark.parametrize("settings", [{}, SAMPLED, {"no_repeat_ngram": 2}], ids=["greedy", "sampled", "n-gram"])
def test_it_answers_as_transformers_does(folder: Path, requests: Callable, settings: dict[str, Any]) -> None:
    assert "stepwise" in harness.engines.names()
    asked = requests(**settings)
    found = {}
    for name in ("stepwise", "transformers"):
        engine = create_engine(name, folder, seed=3)
        assert engine.name == name
        found[name] = complete(engine, asked)
        engine.close()
    assert found["stepwise"] == found["transformers"]
    assert sum(completion.finish_reason == "stop" for completion in found["stepwise"]) > 2


@pytest.mark.usefixtures("_stepwise")
@pytest.mark.parametrize("name", ["cut, stopped", "close", "close, sampled", "close, no n-gram twice"])
def test_it_keeps_to_limits_of_reasoning_as_transformers_does(thinkers: dict[str, Path], name: str) -> None:
    found = []
    for engine_name in ("stepwise", "transformers"):
        engine = create_engine(engine_name, thinkers["text"], seed=3)
        found.append(engine.complete(list(SAID), LIMITS[name]))
        engine.close()
    assert found[0] == found[1]


@pytest.mark.usefixtures("_stepwise")
def test_it_finds_the_log_likelihoods_that_transformers_finds(folder: Path) -> None:
    stepwise, other = (create_engine(name, folder) for name in ("stepwise", "transformers"))
    pairs = pairs_of(other)[:-1]  # the last is longer than the models' context
    ours, theirs = stepwise.loglikelihoods(pairs), other.loglikelihoods(pairs)
    assert len(pairs) > len(PAIRS)
    assert [found.value for found in ours] == pytest.approx([found.value for found in theirs], abs=1e-4)
    assert [found.is_greedy for found in ours] == [found.is_greedy for found in theirs]
