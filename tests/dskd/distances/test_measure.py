"""Distances of two models on texts, against loops in float64, from every place where a teacher can be."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd import distances
from dskd.data.dataset_folder import DatasetFolder
from dskd.data.prepared_part import table_of
from dskd.distances import Measured, Text
from dskd.errors import InputError, Stopped
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.build_cache import build_teacher_cache
from dskd.teachers.options import ServedOptions, TeacherCacheOptions, TeacherSource
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from helpers.completions_server import CompletionsServer
from helpers.pooling_server import PoolingServer
from helpers.tiny_tokenizers import LINES

K = 10
TEXTS = [Text(line[:8], line[:8], line[8 : 20 + 3 * k], ended=k % 3 > 0) for k, line in enumerate(LINES[:8])]


def reference(world: Path, student: str, text: Text) -> dict[str, tuple[float, float]]:
    """The numbers of one text, in loops over tokens and vocabularies, in float64."""
    sides = {}
    for name, prompt in (("teacher", text.teacher_prompt), (student, text.student_prompt)):
        tokenizer, model = load_tokenizer(world / name), load_model(world / name).double()
        vocabulary = Vocabulary.from_tokenizer(tokenizer)
        found = distances.encode_text(tokenizer, vocabulary, prompt, text.response, ended=text.ended)
        assert not isinstance(found, str)
        with torch.no_grad():
            logits = model(torch.tensor([found.ids])).logits[0, :, : vocabulary.size]
        rows = logits[found.prompt_length - 1 : -1].log_softmax(-1).tolist()
        sides[name] = found, vocabulary, rows
    (theirs, teacher, p), (ours, own, q) = sides["teacher"], sides[student]
    shared = share_vocabulary(teacher, own)
    pairs = [(i, i) for i in range(len(q))] if shared.same else by_bytes(theirs, ours)
    names = [(int(a), int(b)) for a, b in zip(shared.teacher_ids, shared.student_ids, strict=True)]
    totals = dict.fromkeys(("kl_teacher_student", "kl_student_teacher", "top_k_overlap", "overlap_advantage"), 0.0)
    overlapping = 0
    for i, j in pairs:
        log_p, log_q = [p[i][a] for a, _ in names], [q[j][b] for _, b in names]
        if not shared.same:
            log_p, log_q = renormalised(log_p), renormalised(log_q)
        for a, b in zip(log_p, log_q, strict=True):
            totals["kl_teacher_student"] += math.exp(a) * (a - b)
            totals["kl_student_teacher"] += math.exp(b) * (b - a)
        both = best(log_p) & best(log_q)
        totals["top_k_overlap"] += len(both) / K
        totals["overlap_advantage"] += sum(-math.exp(log_p[v]) * (log_p[v] - log_q[v]) for v in both)
        overlapping += len(both)
    counts = {name: float(len(pairs)) for name in totals} | {"overlap_advantage": float(overlapping)}
    found = {name: (total, counts[name]) for name, total in totals.items()}
    likelihood = likelihood_of(ours, q) - likelihood_of(theirs, p)
    return found | {
        "student_entropy": (entropy(q), float(len(q))),
        "teacher_entropy": (entropy(p), float(len(p))),
        "log_likelihood_difference": (likelihood, float(len(text.response.encode()))),
        "aligned_share": (float(len(pairs)), float(len(q))),
    }


def by_bytes(theirs: Any, ours: Any) -> list[tuple[int, int]]:
    places = {tuple(span): i for i, span in enumerate(theirs.spans.tolist())}
    pairs = [(places[tuple(span)], j) for j, span in enumerate(ours.spans.tolist()) if tuple(span) in places]
    return [*pairs, (len(theirs.spans), len(ours.spans))] if ours.ended else pairs


def renormalised(values: Sequence[float]) -> list[float]:
    whole = math.log(math.fsum(map(math.exp, values)))
    return [value - whole for value in values]


def best(values: Sequence[float]) -> set[int]:
    return set(sorted(range(len(values)), key=lambda v: -values[v])[:K])


def entropy(rows: Sequence[Sequence[float]]) -> float:
    return -sum(math.exp(value) * value for row in rows for value in row)


def likelihood_of(side: Any, rows: Sequence[Sequence[float]]) -> float:
    """Of the tokens of the response, its end left out."""
    labels = side.ids[side.prompt_length :][: len(side.spans)]
    return sum(rows[t][label] for t, label in enumerate(labels))


def assert_close(found: Measured, expected: Sequence[dict[str, tuple[float, float]]], names: set[str]) -> None:
    for item, other in zip(found.items, expected, strict=True):
        assert item is not None
        for name in names:
            assert item[name][0] == pytest.approx(other[name][0], rel=1e-4, abs=2e-5), name
            assert item[name][1] == other[name][1], name


@pytest.fixture(scope="module")
def expected(world: Path) -> dict[str, list[dict[str, tuple[float, float]]]]:
    return {student: [reference(world, student, text) for text in TEXTS] for student in ("same", "cross")}


@pytest.mark.parametrize("student", ["same", "cross"])
def test_they_are_what_loops_over_the_vocabulary_give(world: Path, expected: Any, student: str) -> None:
    found = distances.measure(TEXTS, world / student, TeacherSource(folder=world / "teacher"))
    assert (found.outputs, found.unknown, found.left_out) == ("hidden_states", {}, {})
    assert found.space == ("vocabulary" if student == "same" else "shared_vocabulary")
    assert_close(found, expected[student], set(expected[student][0]))
    values = [pair for item in found.items if item is not None for pair in item.values()]
    assert all(math.isfinite(number) for pair in values for number in pair)


def test_a_teacher_is_at_no_distance_from_itself(world: Path) -> None:
    found = distances.measure(TEXTS, world / "teacher", TeacherSource(folder=world / "teacher"))
    for item in found.items:
        assert item is not None
        assert item["kl_teacher_student"][0] == item["kl_student_teacher"][0] == item["overlap_advantage"][0] == 0.0
        assert item["top_k_overlap"][0] == pytest.approx(item["top_k_overlap"][1])
        assert item["student_entropy"] == item["teacher_entropy"]
        assert item["log_likelihood_difference"][0] == 0.0


def test_batches_chunks_and_other_texts_change_nothing(
    world: Path, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dskd.distances.tokens.LOGITS_AT_ONCE", 1200)  # three tokens
    source = TeacherSource(folder=world / "teacher")
    alone = distances.measure(TEXTS, world / "cross", source, batch_tokens=1)
    assert_close(alone, expected["cross"], set(expected["cross"][0]))
    turned = distances.measure(TEXTS[::-1], world / "cross", source, batch_tokens=64)
    assert_close(turned, expected["cross"][::-1], set(expected["cross"][0]))


def test_the_student_alone_has_its_entropy(world: Path, expected: Any) -> None:
    found = distances.measure(TEXTS, world / "cross", None)
    assert_close(found, expected["cross"], {"student_entropy"})
    assert set(found.unknown) >= {"kl_teacher_student", "teacher_entropy", "log_likelihood_difference"}


def cache_of(world: Path, folder: Path, **options: Any) -> Path:
    """A cache of the teacher on the texts."""
    tokenizer = load_tokenizer(world / "teacher")
    vocabulary, rows = Vocabulary.from_tokenizer(tokenizer), []
    for text in TEXTS:
        encoded = distances.encode_text(tokenizer, vocabulary, text.teacher_prompt, text.response, ended=text.ended)
        assert not isinstance(encoded, str)
        rows.append({"student_ids": encoded.ids, "student_prompt_length": encoded.prompt_length})
    with DatasetFolder(folder / "data") as dataset:
        dataset.write(table_of(rows))
        dataset.finish("texts")
    longest = max(len(row["student_ids"]) for row in rows)
    report = {"student_vocabulary": vocabulary.fingerprint, "longest_student": longest}
    (folder / "data" / "report.json").write_text(json.dumps(report))
    asked = TeacherCacheOptions(**options)
    build_teacher_cache(world / "teacher", folder / "data", folder / "cache", options=asked)
    return folder / "cache"


LIKELIHOODS = {"log_likelihood_difference", "student_entropy", "aligned_share"}


@pytest.mark.parametrize("student", ["same", "cross"])
def test_a_cache_gives_the_same(world: Path, tmp_path: Path, expected: Any, student: str) -> None:
    source = TeacherSource(folder=world / "teacher", cache=cache_of(world, tmp_path))
    assert_close(distances.measure(TEXTS, world / student, source), expected[student], set(expected[student][0]))
    other = [*TEXTS[:-1], Text("The", "The", " of")]
    with pytest.raises(InputError, match="1 of 8 rows are not in the cache"):
        distances.measure(other, world / student, source)


def test_the_most_probable_tokens_alone_give_lower_bounds_and_the_overlap(
    world: Path, tmp_path: Path, expected: Any
) -> None:
    size = len(load_tokenizer(world / "teacher"))
    few = cache_of(world, tmp_path / "few", kind="top_k", k=12)
    every = cache_of(world, tmp_path / "all", kind="top_k", k=size)
    exact = {"kl_teacher_student", "kl_student_teacher", "top_k_overlap", "overlap_advantage", "student_entropy"}
    whole = distances.measure(TEXTS, world / "same", TeacherSource(folder=world / "teacher", cache=every))
    assert_close(whole, expected["same"], exact)
    found = distances.measure(TEXTS, world / "same", TeacherSource(folder=world / "teacher", cache=few))
    assert_close(found, expected["same"], {"top_k_overlap", "overlap_advantage", "student_entropy"})
    assert found.unknown.keys() == {"teacher_entropy", "log_likelihood_difference"}
    for item, other in zip(found.items, expected["same"], strict=True):
        assert item is not None
        for name in ("kl_teacher_student", "kl_student_teacher"):
            assert 0.0 < item[name][0] < other[name][0]
    two = distances.measure(TEXTS, world / "cross", TeacherSource(folder=world / "teacher", cache=few))
    assert two.unknown.keys() == {"teacher_entropy", "log_likelihood_difference", "top_k_overlap", "overlap_advantage"}
    assert all(item is not None and item["kl_teacher_student"][0] > 0 for item in two.items)


def test_the_log_probability_of_the_text_gives_the_difference_of_likelihoods(
    world: Path, tmp_path: Path, expected: Any
) -> None:
    cache = cache_of(world, tmp_path, kind="text_log_probabilities")
    found = distances.measure(TEXTS, world / "cross", TeacherSource(folder=world / "teacher", cache=cache))
    assert_close(found, expected["cross"], LIKELIHOODS)
    assert "kl_teacher_student" in found.unknown
    assert "kl_teacher_student" not in (found.items[0] or {})


def test_probabilities_at_another_temperature_are_refused(world: Path, tmp_path: Path) -> None:
    cache = cache_of(world, tmp_path, kind="top_k", k=12, temperature=2.0)
    with pytest.raises(InputError, match="at temperature 2, and distances are those at 1; fix: "):
        distances.measure(TEXTS, world / "same", TeacherSource(folder=world / "teacher", cache=cache))


def test_a_served_teacher_gives_the_same(world: Path, expected: Any) -> None:
    with PoolingServer(world / "teacher") as server:
        served = ServedOptions(addresses=(server.url,), dtype="float32")
        source = TeacherSource(folder=world / "teacher", served=served)
        found = distances.measure(TEXTS, world / "cross", source)
    assert_close(found, expected["cross"], set(expected["cross"][0]))


@pytest.mark.parametrize(("kind", "k"), [("text_log_probabilities", 20), ("top_k", 12), ("top_k", 5)])
def test_a_server_of_completions_gives_what_it_can(world: Path, expected: Any, kind: str, k: int) -> None:
    with CompletionsServer(world / "teacher") as server:
        served = ServedOptions.model_validate({"addresses": [server.url], "kind": kind, "k": k, "model": "teacher"})
        found = distances.measure(TEXTS, world / "same", TeacherSource(folder=world / "teacher", served=served))
    if kind == "text_log_probabilities":
        assert_close(found, expected["same"], LIKELIHOODS)
    elif k < K:
        assert found.unknown["top_k_overlap"] == "the teacher gives 5 tokens, fewer than 10"
    else:
        assert_close(found, expected["same"], {"top_k_overlap", "overlap_advantage", "student_entropy"})
        assert found.unknown.keys() == {"teacher_entropy", "log_likelihood_difference"}


@pytest.mark.parametrize("torn", [False, True])
def test_what_was_stopped_goes_on_and_ends_the_same(world: Path, tmp_path: Path, torn: bool) -> None:
    source, log = TeacherSource(folder=world / "teacher"), tmp_path / "log.jsonl"
    whole = distances.measure(TEXTS, world / "cross", source, batch_tokens=64)

    def stop(done: int, total: int) -> None:
        if done >= 3:
            raise Stopped(where="here")

    with pytest.raises(Stopped):
        distances.measure(TEXTS, world / "cross", source, batch_tokens=64, log=log, progress=stop)
    kept = log.read_text()
    assert 2 < len(kept.splitlines()) < len(TEXTS)
    if torn:
        log.write_text(kept[:-20])
    steps: list[int] = []
    again = distances.measure(
        TEXTS, world / "cross", source, batch_tokens=64, log=log, progress=lambda done, _: steps.append(done)
    )
    assert steps[0] > 1
    assert again == whole
    done = distances.measure(TEXTS, world / "cross", source, batch_tokens=64, log=log, progress=stop)
    assert done == whole
    other = distances.measure(TEXTS[:4], world / "cross", source, log=log)  # other texts than those in the file
    assert [item is None for item in other.items] == [False] * 4


def test_texts_that_cannot_be_compared_are_left_out_and_said(world: Path) -> None:
    long = "The quick brown fox. " * 40
    end = load_tokenizer(world / "cross").eos_token
    texts = [Text("a", "a", ""), Text("a", "a", long), Text("a", "a", f" b{end}"), Text("a", "a", " the river")]
    found = distances.measure(texts, world / "same", TeacherSource(folder=world / "teacher"))
    assert found.left_out[0] == "no text"
    assert found.left_out[1] == "longer than a model's positions"
    assert [item is None for item in found.items][:2] == [True, True]
    assert found.items[3] is not None
    own = load_tokenizer(world / "same").eos_token
    found = distances.measure([Text("a", "a", f" b{own}"), texts[3]], world / "same", None)
    assert found.left_out == {0: "spells a special token"}
