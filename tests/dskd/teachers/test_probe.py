"""The probe finds out whether what is behind an address is the teacher: each fault is planted, and refused in one line with its figures."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dskd.errors import InputError, TrainingFailed
from dskd.modeling.head_alone import read_head
from dskd.modeling.loading import load_tokenizer
from dskd.teachers.engines.served import open_served_engine
from dskd.teachers.options import ServedOptions, TeacherSource
from dskd.teachers.probe import ExpectedTeacher, Probe, ProbeReport, write_reason, write_reference
from dskd.teachers.probe.texts import PLAIN
from dskd.teachers.questions import Question
from dskd.teachers.served import open_served_teacher
from dskd.tokenization.vocabulary import Vocabulary
from helpers.llama_folders import write_llama
from helpers.pooling_server import PoolingServer, described, gone, status
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece
from helpers.trained_llama import write_trained_llama


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher`; `other`, of the same shape and tokenizer, as trained; `wide`; `random` weights; references of both trained ones."""
    folder, texts = tmp_path_factory.mktemp("models"), [*LINES[:5], *PLAIN]
    for seed, name in enumerate(("teacher", "other")):
        write_trained_llama(folder / name, texts, seed=seed)
        write_reference(folder / name, folder / f"{name}.safetensors")
    write_llama(folder / "wide", hidden_size=48)
    write_llama(folder / "random", seed=5)
    return folder


@pytest.fixture
def server(models: Path) -> Iterator[PoolingServer]:
    with PoolingServer(models / "teacher") as server:
        yield server


def probe(
    *servers: PoolingServer,
    folder: Path,
    head: Path | None = None,
    tokenizer: Any = None,
    expected: dict[str, Any] | None = None,
    **options: Any,
) -> ProbeReport:
    """Probe servers as those of the teacher in a folder."""
    loaded = load_tokenizer(folder)
    vocabulary = Vocabulary.from_tokenizer(loaded)
    read, _ = read_head(head or folder, vocabulary, dtype="float32", device="cpu")
    given = {"dtype": "float32", "timeout": 20.0, "patience": 0.0, **options}
    served = ServedOptions(addresses=tuple(server.url for server in servers), **given)
    with open_served_engine(served) as engine:
        teacher = ExpectedTeacher("models/teacher", tokenizer or loaded, vocabulary, read, **(expected or {}))
        return Probe(engine, served, teacher).run()


def refused(report: ProbeReport) -> str:
    """The line that a training ends with."""
    with pytest.raises(InputError) as error:
        report.require("models/teacher")
    line = str(error.value)
    assert "\n" not in line
    assert line.count("; fix: ") == 1
    return line


def result(report: ProbeReport, name: str) -> str:
    (check,) = {(check.name, check.result) for check in report.checks if check.name == name}
    return check[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_teacher_itself_passes(server: PoolingServer, models: Path, dtype: str) -> None:
    examples = (Question(list(range(5, 30)), np.arange(3, 24)),)
    report = probe(
        server,
        folder=models / "teacher",
        dtype=dtype,
        reference=models / "teacher.safetensors",
        expected={"longest": 256, "examples": examples},
    )
    report.require("models/teacher")
    assert [(check.name, check.result) for check in report.checks] == [
        ("name", "passed"),
        ("length", "passed"),
        ("vocabulary", "passed"),
        ("finite numbers", "passed"),
        ("hidden size", "passed"),
        ("raw states", "passed"),
        ("the same again", "passed"),
        ("replicas", "not checked"),
        ("head", "passed"),
        ("local copy", "passed"),
        ("likely text", "passed"),
    ]
    assert report.versions == {server.url: "0.32.0"}
    assert report.model == "teacher"
    assert "examples of the data" in report.checks[-1].found
    copy = report.checks[-2]
    assert copy.value is not None
    assert copy.limit is not None
    assert copy.value < 0.02 * copy.limit or (dtype == "float32" and copy.value < 1e-6)


def test_random_weights_are_a_teacher(models: Path) -> None:
    with PoolingServer(models / "random") as server:
        report = probe(server, folder=models / "random")
    report.require("models/random")
    check = report.checks[-1]
    assert check.name == "likely text"
    assert check.value == pytest.approx(math.log(392), abs=0.1)


def test_another_checkpoint_is_told_from_the_local_copy(server: PoolingServer, models: Path) -> None:
    """Served and local teacher disagree: the first loss of a training would be another."""
    server.serve(models / "other")
    line = refused(probe(server, folder=models / "teacher", reference=models / "teacher.safetensors"))
    found = re.search(r"local copy: ([\d.]+) of the norm apart, and the limit in float32 is 0.001 \('", line)
    assert line.startswith(server.url)
    assert found is not None
    assert float(found[1]) > 0.5


def test_another_checkpoint_behind_the_name_is_told_from_the_head_alone(server: PoolingServer, models: Path) -> None:
    server.serve(models / "other")
    line = refused(probe(server, folder=models / "teacher"))
    assert re.search(
        r"likely text: perplexity \S+ of plain text; by chance 392, so head and states are not of one model", line
    )


def _permuted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    rows = torch.randperm(len(tensors["lm_head.weight"]), generator=torch.Generator().manual_seed(0))
    return {**tensors, "lm_head.weight": tensors["lm_head.weight"][rows]}


def test_a_head_with_its_rows_in_another_order_is_refused(server: PoolingServer, models: Path, tmp_path: Path) -> None:
    other = tmp_path / "permuted"
    write_llama(other)
    save_file(
        _permuted(load_file(models / "teacher" / "model.safetensors")), other / "model.safetensors", {"format": "pt"}
    )
    assert "likely text: perplexity" in refused(probe(server, folder=models / "teacher", head=other))
    line = refused(probe(server, folder=models / "teacher", head=other, reference=models / "teacher.safetensors"))
    assert re.search(
        r"models/teacher: head: log-probabilities of the texts are [\d.]+ nats from the local copy's, and the limit is 0.05",
        line,
    )


def test_another_hidden_size_is_refused(server: PoolingServer, models: Path) -> None:
    server.serve(models / "wide")
    line = refused(probe(server, folder=models / "teacher"))
    assert "hidden size: the server's states have 48 numbers a token, and the teacher's head takes 32" in line


@pytest.mark.parametrize(
    "other",
    [sentencepiece(), byte_level(300), byte_level(end="<end>")],
    ids=["another kind", "fewer merges", "another end"],
)
def test_the_students_tokenizer_behind_the_address_is_refused(server: PoolingServer, models: Path, other: Any) -> None:
    """A teacher that is given the student's token ids."""
    server.tokenizer = other
    line = refused(probe(server, folder=models / "teacher"))
    assert re.search(
        r"vocabulary: the server's tokenizer cuts \d+ of 17 texts otherwise than the teacher's: '.*' into \[\d", line
    )
    assert server.requests == []  # nothing was asked by ids that may mean something else


def test_a_server_without_tokenize_is_recorded_as_not_checked(server: PoolingServer, models: Path) -> None:
    server.tokenizer = None
    report = probe(server, folder=models / "teacher")
    report.require("models/teacher")
    check = next(check for check in report.checks if check.name == "vocabulary")
    assert check.result == "not checked"
    assert "/tokenize" in check.found
    assert "404" in check.found


def _nan(states: list[Tensor]) -> list[Tensor]:
    states[0][0, 0] = torch.nan
    return states


def _overflown(states: list[Tensor]) -> list[Tensor]:
    return [state * 1e5 for state in states]


@pytest.mark.parametrize(
    ("dtype", "change", "said"),
    [("float32", _nan, r"not finite in float32"), ("float16", _overflown, r"not finite in float16.*fix: .*bfloat16")],
)
def test_numbers_that_are_not_finite_are_refused(
    server: PoolingServer, models: Path, dtype: str, change: Callable[[list[Tensor]], list[Tensor]], said: str
) -> None:
    server.change = change
    assert re.search(said, refused(probe(server, folder=models / "teacher", dtype=dtype)))


def test_normalised_states_are_refused(server: PoolingServer, models: Path) -> None:
    """What a server gives without `use_activation: false`: a teacher that seems to know nothing."""
    server.change = lambda states: [torch.nn.functional.normalize(state, dim=-1) for state in states]
    line = refused(probe(server, folder=models / "teacher"))
    assert "raw states: all" in line
    assert '"use_activation": false' in line


def test_wrong_shapes_are_refused(server: PoolingServer, models: Path) -> None:
    server.faults[0] = described(lambda items: [{**item, "shape": [1, 2]} for item in items])
    line = refused(probe(server, folder=models / "teacher"))
    assert line.startswith(f"{server.url}: answers: ")


def _rounded(states: list[Tensor]) -> list[Tensor]:
    return [state + 0.3 * state.norm() / math.sqrt(state.numel()) * torch.randn_like(state) for state in states]


def test_replicas_that_differ_are_refused_with_both_figures(server: PoolingServer, models: Path) -> None:
    with PoolingServer(models / "other") as second:
        line = refused(probe(server, second, folder=models / "teacher"))
    assert line.startswith("models/teacher: replicas: ")
    assert re.search(
        rf"[\d.]+ of the norm apart, and the limit in float32 is 0.001 \({server.url} and {second.url}, '", line
    )


def test_equal_replicas_pass(server: PoolingServer, models: Path) -> None:
    with PoolingServer(models / "teacher") as second:
        report = probe(server, second, folder=models / "teacher")
        report.require("models/teacher")
        assert set(report.versions) == {server.url, second.url}
        assert second.requests
    assert result(report, "replicas") == "passed"


def test_a_server_that_answers_otherwise_beside_other_texts_is_refused(server: PoolingServer, models: Path) -> None:
    server.change = lambda states: _rounded(states) if len(server.requests) > 11 else states
    line = refused(probe(server, folder=models / "teacher"))
    assert re.search(r"the same again: [\d.]+ of the norm apart, and the limit in float32 is 0.001", line)


def test_a_replica_that_is_away_is_recorded_and_the_others_are_probed(server: PoolingServer, models: Path) -> None:
    with PoolingServer(models / "teacher") as second:
        second.down = True
        report = probe(server, second, folder=models / "teacher")
    report.require("models/teacher")
    away = report.checks[-1] if report.checks[-1].name == "reachable" else report.checks[3]
    assert (away.name, away.result, away.address) == ("reachable", "not checked", second.url)
    assert list(report.versions) == [server.url]


def test_no_server_at_all_ends_the_probe(server: PoolingServer, models: Path) -> None:
    server.down = True
    with pytest.raises(TrainingFailed, match=server.url):
        probe(server, folder=models / "teacher", model="teacher")


@pytest.mark.parametrize("number", [0, 5, 13])
@pytest.mark.parametrize("fault", [status(503), gone])
def test_a_fault_that_passes_while_a_teacher_is_probed_is_waited_out(
    server: PoolingServer, models: Path, fault: Any, number: int
) -> None:
    server.faults[number] = fault
    report = probe(server, folder=models / "teacher", model="teacher", patience=20.0)
    report.require("models/teacher")
    assert list(report.versions) == [server.url]


def test_a_server_that_is_healthy_and_never_answers_the_probe_is_given_up_after_patience(
    server: PoolingServer, models: Path
) -> None:
    server.faults = {number: status(503) for number in range(1000)}
    begin = time.monotonic()
    with pytest.raises(TrainingFailed, match=r"a server went away while it was probed: status 503 .*; fix: start"):
        probe(server, folder=models / "teacher", model="teacher", patience=1.0)
    assert 0.9 < time.monotonic() - begin < 10


def test_a_name_that_is_not_there_is_refused(server: PoolingServer, models: Path) -> None:
    line = refused(probe(server, folder=models / "teacher", model="qwen"))
    assert f"{server.url}: name: has no model 'qwen', only teacher" in line


def test_examples_that_are_too_long_for_the_server_are_refused(server: PoolingServer, models: Path) -> None:
    server.max_model_len = 60
    report = probe(server, folder=models / "teacher", expected={"longest": 61})
    assert "length: takes texts of at most 60 tokens, and the longest example has 61" in refused(report)
    probe(server, folder=models / "teacher", expected={"longest": 60}).require("models/teacher")
    assert max(len(text) for request in server.requests for text in request["input"]) < 60


def test_a_reference_of_other_texts_and_a_file_that_is_none_are_refused(
    server: PoolingServer, models: Path, tmp_path: Path
) -> None:
    other = write_llama(tmp_path / "other", tokenizer=byte_level(300))
    write_reference(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="made of other texts"):
        probe(server, folder=models / "teacher", reference=tmp_path / "other.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"none\.safetensors: no answers of a local copy"):
        probe(server, folder=models / "teacher", reference=tmp_path / "none.safetensors")


def test_why_there_is_no_local_copy_stands_in_the_report(server: PoolingServer, models: Path, tmp_path: Path) -> None:
    write_reason(tmp_path / "reference.safetensors", "the folder has the head alone")
    report = probe(server, folder=models / "teacher", reference=tmp_path / "reference.safetensors")
    check = next(check for check in report.checks if check.name == "local copy")
    assert (check.result, check.found) == ("not checked", "the folder has the head alone")


def test_a_reference_of_longer_texts_is_compared_as_far_as_the_server_reads(
    server: PoolingServer, models: Path
) -> None:
    server.max_model_len = 20
    report = probe(server, folder=models / "teacher", reference=models / "teacher.safetensors")
    assert result(report, "local copy") == "passed"


class _Opened:
    """A teacher as a training opens it."""

    def __init__(self, server: PoolingServer, folder: Path) -> None:
        served = ServedOptions(addresses=(server.url,), dtype="float32", timeout=20.0, patience=30.0)
        tokenizer = load_tokenizer(folder)
        self.teacher = open_served_teacher(
            TeacherSource(folder=folder, served=served),
            Vocabulary.from_tokenizer(tokenizer),
            tokenizer=tokenizer,
            dtype="float32",
            device="cpu",
            embedding=False,
        )
        self.engine: Any = self.teacher._engine

    def ask(self) -> Any:
        return self.engine.ask([Question([5, 6, 7, 8], np.arange(3))])


@pytest.mark.parametrize("name", ["teacher", "other"])
def test_an_address_that_was_away_is_probed_again_before_it_is_used(
    server: PoolingServer, models: Path, name: str
) -> None:
    """Another checkpoint behind the name after a restart."""
    opened = _Opened(server, models / "teacher")
    assert opened.teacher.probe is not None
    assert {check["result"] for check in opened.teacher.probe["checks"]} <= {"passed", "not checked"}
    try:
        before = opened.ask().result()["hidden"]
        server.down = True
        answer = opened.ask()
        server.serve(models / name)
        asked = len(server.requests)
        server.down = False
        if name == "teacher":
            torch.testing.assert_close(answer.result()["hidden"], before)
            assert len(server.requests) > asked + 11  # the texts of the probe
        else:
            with pytest.raises(
                TrainingFailed, match=r"the same as before: [\d.]+ of the norm apart.*the last checkpoint stays"
            ):
                answer.result()
    finally:
        opened.teacher.close()


def test_a_refused_teacher_leaves_no_connection(server: PoolingServer, models: Path) -> None:
    server.serve(models / "wide")
    with pytest.raises(InputError, match="hidden size"):
        _Opened(server, models / "teacher")


def test_the_record_of_a_probe_holds_no_key(
    server: PoolingServer, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSKD_TEACHER_API_KEY", "sk-secret")
    report = probe(server, folder=models / "teacher")
    assert "sk-secret" not in report.model_dump_json()
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-secret"}
