"""A real vLLM server of a teacher that writes text: log-probabilities are those of transformers, and so are the losses and trainings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dskd import methods
from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError
from dskd.losses.tokens import TokenBatch
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.build_cache import build_teacher_cache
from dskd.teachers.engines.served_log_probabilities import ServedLogProbabilities
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import ServedOptions, TeacherCacheOptions, TeacherSource
from dskd.teachers.questions import Question
from dskd.teachers.served import ServedTeacher, open_served_teacher
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training.distiller import Distiller
from dskd.training.run import TrainingOptions, train
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece
from helpers.vllm_servers import VllmServer, running

pytestmark = pytest.mark.slow  # a server takes a minute to start

TOKENS = len(byte_level())
MOST = TOKENS + 3  # log-probabilities a token that the server gives
PLAIN = {"append_space": False, "merge_by_space_prob": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher`, whose head has no padded rows; `same` and `cross`, students; data for each, and for the teacher alone."""
    folder = tmp_path_factory.mktemp("served")
    first, second = byte_level(), sentencepiece()
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    for name, tokenizer, more in (("teacher", first, 0), ("cross", second, 3)):
        torch.manual_seed(1)
        config = LlamaConfig(vocab_size=len(tokenizer) + more, initializer_range=0.15, **sizes)
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    torch.manual_seed(2)
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 128}
    ends = {"eos_token_id": first.eos_token_id, "bos_token_id": first.bos_token_id}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(first) + 2, **sizes, **ends)).save_pretrained(folder / "same")
    first.save_pretrained(folder / "same")
    rows = [{"prompt": line[:8], "output": line[8 : 20 + 3 * k]} for k, line in enumerate(LINES)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_dataset(folder / "train.jsonl", folder / "teacher-data", student=folder / "teacher")
    for name in ("same", "cross"):
        data = folder / f"{name}-data"
        prepare_dataset(folder / "train.jsonl", data, student=folder / name, teacher=folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def server(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    log = tmp_path_factory.mktemp("log") / "server.log"
    started = VllmServer(world / "teacher", log, pooling=False, arguments=["--max-logprobs", str(MOST)])
    with running(started):
        yield started


def options_of(server: VllmServer, **more: Any) -> ServedOptions:
    return ServedOptions(addresses=(server.url,), **more)


def source_of(world: Path, server: VllmServer, **more: Any) -> TeacherSource:
    return TeacherSource(folder=world / "teacher", served=options_of(server, **more))


def questions() -> list[Question]:
    """Texts of several lengths, asked about from somewhere on."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for length in (2, 5, 40, 200, 17, 90):
        ids = torch.randint(0, TOKENS, (length,), generator=generator).tolist()
        found.append(Question(ids, np.arange(length // 3, length - 1)))
    return found


def local(folder: Path, asked: list[Question]) -> torch.Tensor:
    """log softmax of transformers at all positions [positions, rows]."""
    model = load_model(folder, "float32")
    parts = []
    with torch.no_grad():
        for question in asked:
            parts.append(model(torch.tensor([question.ids])).logits[0, question.positions].float().log_softmax(-1))
    return torch.cat(parts)


def batch_of(world: Path, student: str, count: int = 6, **collator: Any) -> TokenBatch:
    rows = datasets.load_from_disk(str(world / f"{student}-data"))
    return Collator(**collator)([rows[k] for k in range(count)])


def opened(source: TeacherSource, tokenizer: Any) -> ServedTeacher:
    """The served teacher, probed."""
    whole = Vocabulary.from_tokenizer(tokenizer)
    return open_served_teacher(source, whole, tokenizer=tokenizer, dtype="float32", device="cpu", embedding=False)


def fetched(world: Path, server: VllmServer, batch: TokenBatch, **more: Any) -> TokenBatch:
    """The batch with what the served teacher gives."""
    teacher = opened(source_of(world, server, **more), load_tokenizer(world / "teacher"))
    try:
        teacher.request(batch)
        return teacher.fetch(batch)
    finally:
        teacher.close()


def computed_here(world: Path, batch: TokenBatch, kind: str, k: int = 0) -> TokenBatch:
    """The batch with the same outputs, from transformers."""
    live = LiveTeacher(load_model(world / "teacher", "float32"), len(byte_level()))
    side = live.fetch(batch).teacher
    log_p = live.head.logits(side.hidden).float().log_softmax(-1)
    if kind == "top_k":
        best = log_p.topk(k)
        outputs: dict[str, Any] = {"top_k_ids": best.indices, "top_k_log_probabilities": best.values}
    else:
        outputs = {"label_log_probabilities": log_p.gather(-1, side.labels[:, None]).squeeze(-1)}
    return replace(batch, teacher=replace(batch.teacher, **outputs))


def test_the_labels_log_probabilities_are_those_of_transformers(world: Path, server: VllmServer) -> None:
    asked = questions()
    labels = torch.tensor([label for question in asked for label in question.labels])
    expected = local(world / "teacher", asked).gather(-1, labels[:, None]).squeeze(-1)
    with ServedLogProbabilities(
        options_of(server, kind="text_log_probabilities", request_tokens=128), TOKENS
    ) as engine:
        first, second = engine.ask(asked), engine.ask(asked[::-1])
        torch.testing.assert_close(first.result()["log_probabilities"], expected, rtol=0, atol=1e-4)
        backwards = second.result()["log_probabilities"].split([len(question.positions) for question in asked[::-1]])
        torch.testing.assert_close(torch.cat(backwards[::-1]), expected, rtol=0, atol=1e-4)
        alone = engine.ask_at(server.url, asked)["log_probabilities"]
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-4)
        figures = engine.figures()
    assert figures["requests"] > 10  # of about 128 tokens each
    assert figures["bytes_received"] < 300 * 3 * sum(len(question.ids) for question in asked) + 20_000


@pytest.mark.parametrize("k", [1, 20, TOKENS])
def test_the_most_probable_tokens_are_the_top_k_of_transformers(world: Path, server: VllmServer, k: int) -> None:
    asked = questions()[:3]
    best = local(world / "teacher", asked).topk(k)
    with ServedLogProbabilities(options_of(server, kind="top_k", k=k), TOKENS) as engine:
        found = engine.ask(asked).result()
    torch.testing.assert_close(found["log_probabilities"], best.values, rtol=0, atol=1e-4)
    assert (
        found["ids"].long() == best.indices
    ).float().mean() > 0.99  # of two that are equal to rounding, either is first
    log_p = local(world / "teacher", asked).gather(-1, found["ids"].long())
    torch.testing.assert_close(log_p, best.values, rtol=0, atol=1e-4)


def test_more_than_the_server_allows_is_refused_before_anything_is_asked_with_both_figures(
    world: Path, server: VllmServer
) -> None:
    more = MOST + 1
    said = f"at most {MOST} log-probabilities a token, but k is {more}; fix: set k to {MOST} or less, or start it with --max-logprobs {more}"
    with pytest.raises(InputError, match=said):
        ServedLogProbabilities(options_of(server, kind="top_k", k=more))
    more = TOKENS + 1
    with pytest.raises(InputError, match=f"k: {more}, but the teacher has {TOKENS} tokens; fix: a smaller k"):
        ServedLogProbabilities(options_of(server, kind="top_k", k=more), TOKENS)
    assert server.answers()


@pytest.mark.parametrize("packing", [False, True])
def test_a_batch_gets_what_a_teacher_that_is_here_gives(world: Path, server: VllmServer, packing: bool) -> None:
    batch = batch_of(world, "cross", packing=packing)
    expected = computed_here(world, batch_of(world, "cross", packing=packing), "text_log_probabilities").teacher
    found = fetched(world, server, batch, kind="text_log_probabilities").teacher
    torch.testing.assert_close(found.label_log_probabilities, expected.label_log_probabilities, rtol=0, atol=1e-4)
    assert found.hidden is None
    assert found.requested is None


def losses(world: Path, student: str, name: str, options: dict[str, Any], batch: TokenBatch) -> dict[str, float]:
    """The loss and its terms of a student on a batch that has the teacher's outputs."""
    model = load_model(world / student, "float32")
    sides = [Vocabulary.from_tokenizer(load_tokenizer(world / side)) for side in ("teacher", student)]
    distiller = Distiller(
        model,
        methods.get(name)(options),
        student_size=sides[1].size,
        teacher=_NoHead(),
        shared=share_vocabulary(*sides),
    )
    loss, terms = distiller(batch)
    means = {key: (term.total / term.normalizer).item() for key, term in [*terms.items(), *distiller.metrics.items()]}
    return {"loss": loss.item(), **means}


class _NoHead:
    """What the student's part knows of a teacher that gives log-probabilities."""

    head = embedding = None


@pytest.mark.parametrize(
    ("name", "student", "options"),
    [
        ("kd", "same", {"temperature": 1.0}),
        ("gkd", "same", {}),
        ("distillm", "same", {}),
        ("uld", "cross", {}),
        ("strict-kd", "cross", {"outside": "one_outcome"}),
        ("alm", "cross", PLAIN),
    ],
)
def test_losses_are_those_from_the_same_outputs_of_transformers(
    world: Path, server: VllmServer, name: str, student: str, options: dict[str, Any]
) -> None:
    kind = "text_log_probabilities" if name == "alm" else "top_k"
    collated = {"by_position": methods.get(name)(options).requires.pairing == "position"}
    served = fetched(world, server, batch_of(world, student, **collated), kind=kind, k=12)
    here = computed_here(world, batch_of(world, student, **collated), kind, 12)
    found, expected = (losses(world, student, name, options, batch) for batch in (served, here))
    assert found == pytest.approx(expected, abs=1e-5)
    assert found["loss"] > 0.01
    if kind == "top_k":
        assert 0.01 < found["teacher_tail_mass"] < 0.99


def logged_losses(world: Path, output: Path, student: str, **given: Any) -> tuple[list[float], Any]:
    """The loss at each of three steps, and the report."""
    seen: list[float] = []
    options = {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, **given.pop("training", {})}
    report = train(
        data=world / f"{student}-data",
        student=world / student,
        options=TrainingOptions(**options),
        seed=5,
        output=output,
        progress=lambda said: seen.append(said["loss"]) if "loss" in said else None,
        **given,
    )
    assert len(seen) == 3
    return seen, report


@pytest.mark.parametrize(
    ("name", "student", "options", "kind"),
    [
        ("kd", "same", {"temperature": 1.0}, {"kind": "top_k", "k": 12}),
        ("alm", "cross", PLAIN, {"kind": "text_log_probabilities"}),
    ],
)
def test_a_training_with_the_server_is_the_one_with_a_cache_by_transformers_and_by_the_server(
    world: Path, server: VllmServer, tmp_path: Path, name: str, student: str, options: Any, kind: Any
) -> None:
    given: Any = {"method": name, "method_options": options}
    served = options_of(server, **kind)
    for where, more in (("transformers", {"engine": "transformers"}), ("server", {"served": served})):
        cache = TeacherCacheOptions(**kind)
        build_teacher_cache(world / "teacher", world / "teacher-data", tmp_path / where, options=cache, **more)
        given["teacher"] = world / "teacher"
        cached, _ = logged_losses(world, tmp_path / f"by-{where}", student, teacher_cache=tmp_path / where, **given)
        del given["teacher"]
        source = source_of(world, server, **kind)
        found, report = logged_losses(world, tmp_path / f"served-{where}", student, teacher_source=source, **given)
        assert found == pytest.approx(cached, abs=1e-5)
        assert report.teacher_examples == 12


@pytest.mark.parametrize("name", ["gkd", "distillm"])
def test_on_its_own_text_a_student_learns_from_top_k_as_from_the_teacher_itself(
    world: Path, server: VllmServer, tmp_path: Path, name: str
) -> None:
    """Of all tokens the most probable ones are everything, so that both trainings are one."""
    given: Any = {"method": name, "training": {"rollouts": {"share": 1.0, "max_new_tokens": 8}}}
    live, of_live = logged_losses(world, tmp_path / "live", "same", teacher=world / "teacher", **given)
    source = source_of(world, server, kind="top_k", k=TOKENS)
    found, report = logged_losses(world, tmp_path / "served", "same", teacher_source=source, **given)
    assert found == pytest.approx(live, abs=1e-4)
    assert report.rollouts.samples == of_live.rollouts.samples > 6
    assert report.teacher_examples == 12
    source = source_of(world, server, kind="top_k", k=20)
    fewer, report = logged_losses(world, tmp_path / "twenty", "same", teacher_source=source, **given)
    assert 0.01 < report.losses["teacher_tail_mass"] < 0.99
    assert 0 < fewer[0] < live[0]  # the same student on the same text, so a lower bound


def test_the_vocabulary_ends_with_the_teachers_head(world: Path, server: VllmServer, tmp_path: Path) -> None:
    """A tokenizer with an added token beyond the head, as Gemma 3's has."""
    tokenizer = load_tokenizer(world / "teacher")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    whole = Vocabulary.from_tokenizer(tokenizer)
    assert whole.size == TOKENS + 1
    source = source_of(world, server, kind="top_k", k=3)
    options: dict[str, Any] = {"tokenizer": tokenizer, "dtype": "float32", "device": "cpu", "embedding": False}
    teacher = open_served_teacher(source, whole, **options)
    teacher.close()
    assert teacher.vocabulary.size == TOKENS
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    source = source.model_copy(update={"folder": tmp_path / "tokenizer"})  # nothing says how large the head is
    with pytest.raises(InputError, match=r"vocabulary: the server's tokenizer cuts 1 of \d+ texts otherwise"):
        open_served_teacher(source, whole, **options)  # so that the token, which the server has not, counts
