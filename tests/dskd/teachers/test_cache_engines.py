"""Engines of a teacher cache: which one writes, what it is compared with, and what is kept of answers of each kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file

from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError, TrainingFailed
from dskd.modeling.loading import load_model
from dskd.teachers import build_cache, cache_engine, engine_comparison
from dskd.teachers.build_cache import TeacherCacheReport, build_teacher_cache, estimate_bytes
from dskd.teachers.cache_engine import choose_engine
from dskd.teachers.cached import CachedTextLogProbabilities, attach, open_teacher_cache
from dskd.teachers.engines.base import Answers, TeacherEngine
from dskd.teachers.engines.transformers import TransformersEngine
from dskd.teachers.engines.vllm import VllmCannotRun
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import ServedOptions, TeacherCacheOptions, TeacherOutputKind
from dskd.teachers.questions import Question
from helpers.llama_folders import change_weights, write_llama
from helpers.tiny_tokenizers import LINES, byte_level

SIZE = len(byte_level())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, its folder without layers, and data for it alone and for a student."""
    folder = tmp_path_factory.mktemp("cache-engines")
    rows = [{"prompt": f"{k} {line[:8]}", "output": line[8 : 20 + 3 * k]} for k, line in enumerate(LINES)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_llama(folder / "teacher", vocab_size=SIZE + 5, initializer_range=0.15)
    shutil.copytree(folder / "teacher", folder / "head")
    change_weights(folder / "head", lambda weights: {k: v for k, v in weights.items() if "layers" not in k})
    prepare_dataset(folder / "train.jsonl", folder / "teacher-data", student=folder / "teacher")
    prepare_dataset(folder / "train.jsonl", folder / "data", student=folder / "teacher", teacher=folder / "teacher")
    return folder


class Imitated(TeacherEngine):
    """What a server answers that runs the model in a folder, over all rows of its head; `change` is what is wrong with it."""

    def __init__(
        self,
        folder: Path,
        served: ServedOptions,
        change: Callable[[torch.Tensor], torch.Tensor] = lambda states: states,
    ) -> None:
        self.kind: TeacherOutputKind = served.kind
        self._own = TransformersEngine(load_model(folder), SIZE, device="cpu", batch_tokens=200)
        self._served, self._change = served, change

    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        hidden = self._change(self._own.ask(questions).result()["hidden"])
        log_p = self._own.head.logits(hidden, padded=True).log_softmax(-1)[:, :SIZE]
        future: Future[Answers] = Future()
        if self.kind == "hidden_states":
            future.set_result({"hidden": hidden.to(getattr(torch, self._served.dtype))})
        elif self.kind == "top_k":
            values, ids = log_p.topk(self._served.k)
            future.set_result({"ids": ids.int(), "log_probabilities": values})
        else:
            labels = torch.tensor([label for question in questions for label in question.labels])
            future.set_result({"log_probabilities": log_p.gather(-1, labels[:, None])[:, 0]})
        return future

    def close(self) -> None:
        self._own.close()


def _served(**options: Any) -> ServedOptions:
    return ServedOptions(addresses=("http://127.0.0.1:9",), **options)


def _build(world: Path, output: Path, teacher: str = "teacher", **changes: Any) -> TeacherCacheReport:
    settings = {"options": TeacherCacheOptions(), "shard_rows": 4, "batch_tokens": 64, **changes}
    return build_teacher_cache(world / teacher, world / "teacher-data", output, **settings)


@pytest.fixture
def server(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cache_engine, "open_probed_engine", lambda served, _: (Imitated(world / "teacher", served), None)
    )


def _stored(cache: Path, name: str) -> torch.Tensor:
    return torch.cat([load_file(file)[name] for file in sorted((cache / "shards").glob("*.safetensors"))])


def _batches(world: Path, cache: Path) -> tuple[Any, Any]:
    """A batch with what the cache and the live teacher give for it."""
    data = attach(datasets.load_from_disk(str(world / "data")), cache)
    batch = Collator()([data[k] for k in (3, 17, 5)])
    live = LiveTeacher(load_model(world / "teacher"), SIZE)
    return open_teacher_cache(cache, "cpu").fetch(batch), (live.fetch(batch), live.head)


@pytest.mark.parametrize(
    ("asked", "begun", "device", "chosen"),
    [
        ("auto", None, "cpu", "transformers"),
        ("auto", None, "cuda:1", "vllm"),
        ("vllm", None, "cpu", "vllm"),
        ("transformers", None, "cuda", "transformers"),
        ("auto", "vllm", "cpu", "vllm"),
        ("auto", "transformers", "cuda", "transformers"),
    ],
)
def test_vllm_is_chosen_on_a_gpu_and_a_begun_cache_keeps_its_engine(
    asked: Any, begun: str | None, device: str, chosen: str
) -> None:
    assert choose_engine(asked, False, begun, Path("cache"), device) == chosen


def test_transformers_takes_the_place_of_a_vllm_that_does_not_run_the_teacher_and_nobody_asked_for(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: Any, **__: Any) -> Any:
        raise VllmCannotRun("teacher: vLLM does not run it; fix: set engine to transformers")

    monkeypatch.setattr(cache_engine, "VllmEngine", cannot)
    with pytest.raises(InputError, match="vLLM does not run it"):
        _build(world, tmp_path / "asked", engine="vllm")
    assert not (tmp_path / "asked").exists()
    news: list[dict[str, Any]] = []
    monkeypatch.setattr(build_cache, "choose_engine", lambda *_: "vllm")  # as on a GPU
    report = _build(world, tmp_path / "cache", progress=news.append)
    assert (report.engine, report.comparison) == ("transformers", None)
    assert {"engine": "transformers", "instead_of": "vllm", "reason": news[2]["reason"]} == news[2]


@pytest.mark.usefixtures("server")
def test_states_of_a_server_are_kept_as_they_came_with_the_head_of_a_folder_without_layers(
    world: Path, tmp_path: Path
) -> None:
    news: list[dict[str, Any]] = []
    report = _build(world, tmp_path / "cache", "head", served=_served(), progress=news.append)
    _build(world, tmp_path / "own", engine="transformers")
    assert torch.equal(_stored(tmp_path / "cache", "hidden"), _stored(tmp_path / "own", "hidden").bfloat16())
    for name in ("head.safetensors", "rows.safetensors"):
        assert (tmp_path / "cache" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()
    assert (report.engine, report.comparison.rows) == ("served", 0)
    assert "weights of LlamaForCausalLM are missing" in report.comparison.not_compared
    assert any("not compared with transformers" in one.get("comparison", "") for one in news)
    estimate = estimate_bytes(
        world / "head", world / "teacher-data", TeacherCacheOptions(), dtype="float32", served=_served()
    )
    assert abs(report.bytes - estimate) < 5 * 1024


@pytest.mark.usefixtures("server")
def test_a_server_of_a_model_that_is_here_is_compared_with_it(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _build(world, tmp_path / "cache", served=_served(dtype="float32")).comparison
    assert (found.rows, found.largest_difference < 1e-6, found.equal_predictions) == (8, True, 1.0)
    other = write_llama(tmp_path / "other", seed=1, vocab_size=SIZE + 5, initializer_range=0.15)
    for options in ({"kind": "hidden_states"}, {"kind": "top_k", "k": 9}, {"kind": "text_log_probabilities"}):
        monkeypatch.setattr(cache_engine, "open_probed_engine", lambda served, _: (Imitated(other, served), None))
        with pytest.raises(
            InputError, match=r"served gives something else than transformers: 8 rows, .* of the"
        ) as caught:
            _build(world, tmp_path / "wrong", served=_served(**options), options=TeacherCacheOptions(**options))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "wrong").exists()


@pytest.mark.usefixtures("server")
def test_log_probabilities_of_a_server_are_kept_as_they_came_with_padded_rows_in_their_softmax(
    world: Path, tmp_path: Path
) -> None:
    """Those made of states are larger by -log(1 - probability of the padded rows)."""
    _build(world, tmp_path / "states")
    weight = load_file(tmp_path / "states" / "head.safetensors")["weight"]
    padded = (_stored(tmp_path / "states", "hidden") @ weight.T).softmax(-1)[:, SIZE:].sum(-1)
    assert float(padded.max()) > 0.01
    for options in ({"kind": "top_k", "k": 9}, {"kind": "text_log_probabilities"}):
        name, chosen = options["kind"], TeacherCacheOptions(**options)
        report = _build(world, tmp_path / name, served=_served(**options), options=chosen)
        assert 1e-4 < report.comparison.largest_difference < 0.1
        assert not (tmp_path / name / "head.safetensors").exists()
        _build(world, tmp_path / f"{name}-own", options=chosen)
        one, other = (_stored(tmp_path / each, "log_probabilities") for each in (name, f"{name}-own"))
        assert one.dtype == other.dtype == torch.float32
        expected = other + torch.log1p(-padded).reshape(-1, *[1] * (other.dim() - 1))
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("server")
def test_of_a_server_of_log_probabilities_the_tokenizer_suffices(world: Path, tmp_path: Path) -> None:
    byte_level().save_pretrained(world / "tokenizer")
    options = {"kind": "top_k", "k": 9}
    report = _build(
        world, tmp_path / "a", "tokenizer", served=_served(**options), options=TeacherCacheOptions(**options)
    )
    assert "no config.json" in report.comparison.not_compared
    cached = open_teacher_cache(tmp_path / "a", "cpu")
    assert cached.size == SIZE


@pytest.mark.usefixtures("server")
def test_a_tokenizer_may_lie_elsewhere_and_further_shards_make_no_other_teacher(world: Path, tmp_path: Path) -> None:
    head, tokenizer = tmp_path / "head", tmp_path / "tokenizer"
    head.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(world / "head" / name, head)
    byte_level().save_pretrained(tokenizer)
    _build(world, tmp_path / "cache", head, served=_served(), tokenizer=tokenizer)
    (head / "layers.safetensors").write_bytes((world / "teacher" / "model.safetensors").read_bytes())
    assert _build(world, tmp_path / "cache", head, served=_served(), tokenizer=tokenizer).built_rows == 0


def test_text_log_probabilities_are_those_of_the_live_teacher(world: Path, tmp_path: Path) -> None:
    options = TeacherCacheOptions(kind="text_log_probabilities")
    report = _build(world, tmp_path / "cache", options=options)
    estimate = estimate_bytes(world / "teacher", world / "teacher-data", options, dtype="float32")
    assert abs(report.bytes - estimate) < 5 * 1024
    found, (live, head) = _batches(world, tmp_path / "cache")
    expected = head.logits(live.teacher.hidden).double().log_softmax(-1).gather(-1, live.teacher.labels[:, None])[:, 0]
    torch.testing.assert_close(found.teacher.label_log_probabilities.double(), expected, rtol=1e-5, atol=1e-6)
    cached = open_teacher_cache(tmp_path / "cache", "cpu")
    assert isinstance(cached, CachedTextLogProbabilities)
    assert cached.head is None


@pytest.mark.parametrize(
    ("served", "kept", "refused"),
    [
        ({"kind": "top_k", "k": 9}, {}, "kind: the served teacher gives top_k, of which no hidden_states can be made"),
        (
            {"kind": "top_k", "k": 9},
            {"kind": "top_k"},
            "k: 64, but the served teacher gives 9; fix: set k and served.k",
        ),
        (
            {"kind": "top_k", "k": 9},
            {"kind": "top_k", "k": 9, "temperature": 2.0},
            "temperature: 2.0, but servers give log-probabilities at 1; fix: set temperature to 1",
        ),
    ],
)
def test_what_cannot_be_made_of_a_servers_answers_is_refused(
    world: Path, tmp_path: Path, served: dict[str, Any], kept: dict[str, Any], refused: str
) -> None:
    with pytest.raises(InputError, match=refused):
        _build(world, tmp_path / "cache", served=_served(**served), options=TeacherCacheOptions(**kept))


@pytest.mark.usefixtures("server")
def test_a_served_cache_and_one_of_the_model_itself_are_two(world: Path, tmp_path: Path) -> None:
    _build(world, tmp_path / "cache", served=_served())
    _build(world, tmp_path / "cache", served=ServedOptions(addresses=("http://127.0.0.1:10",)))  # another address
    for served in (None, _served(dtype="float16")):
        with pytest.raises(InputError, match="holds a teacher cache with another served; fix: give another folder"):
            _build(world, tmp_path / "cache", served=served)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["head.safetensors", "rows.safetensors"])
def test_what_stands_beside_the_shards_is_written_again_without_a_server(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _build(world, tmp_path / "cache", "head", served=_served())
    shutil.copytree(tmp_path / "cache", tmp_path / "whole")
    (tmp_path / "cache" / name).write_bytes(b"damaged")

    def nobody(*_: Any) -> Any:
        raise TrainingFailed("the server was asked")

    monkeypatch.setattr(cache_engine, "open_probed_engine", nobody)
    report = _build(world, tmp_path / "cache", "head", served=_served())
    assert (report.engine, report.built_rows, report.probe) == ("served", 0, None)
    for file in filter(Path.is_file, (tmp_path / "whole").rglob("*")):
        assert (tmp_path / "cache" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()
    (tmp_path / "cache" / "shards" / "00000.safetensors").unlink()
    with pytest.raises(TrainingFailed, match="the server was asked"):
        _build(world, tmp_path / "cache", "head", served=_served())


@pytest.mark.parametrize(
    ("wrong", "refused"),
    [
        (lambda states: states.index_fill(0, torch.tensor([0]), torch.nan), "hidden states that are not finite"),
        (lambda states: states[:-1], r"hidden of shape \[\d+, 32\] for \d+ positions and a hidden size of 32"),
    ],
)
def test_a_wrong_answer_ends_the_build_in_one_line_and_what_is_written_stays(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable, refused: str
) -> None:
    asked = 0

    def change(states: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return wrong(states) if asked == 9 else states

    monkeypatch.setattr(
        cache_engine, "open_probed_engine", lambda served, _: (Imitated(world / "teacher", served, change), None)
    )
    with pytest.raises(TrainingFailed, match=refused) as caught:
        _build(world, tmp_path / "cache", served=_served())
    assert "\n" not in str(caught.value)
    assert _build(world, tmp_path / "cache", served=_served()).reused_rows > 0


def test_a_machine_without_room_for_the_teacher_is_no_reason_not_to_write(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cache_engine, "open_probed_engine", lambda served, _: (Imitated(world / "teacher", served), None)
    )
    room = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(engine_comparison, "psutil", room)
    report = _build(world, tmp_path / "cache", served=_served())
    assert report.comparison.not_compared == "it needs 0.0 GB, and 0.0 GB are free here"
    assert json.loads((tmp_path / "cache" / "signal.json").read_text())["comparison"] == report.comparison.model_dump()
