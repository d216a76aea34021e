"""The defects of published code, one at a time: each changes what it should and nothing else."""

from __future__ import annotations

import json
from typing import Any

import datasets
import pytest
import torch

from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError
from dskd.losses.chunked import chunked_loss
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training.own_pairs import with_own_pairs
from dskd.upstream.defects import CODE_BASES, DEFECTS
from dskd.upstream.methods import DualSpaceV2ExactTokenAlignment
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece
from helpers.token_batches import changed, token_batch

SPACES = ("teacher_to_student_cross_entropy", "student_space", "teacher_space")
SHARES = ("aligned_share", "mapped_share")


@pytest.fixture(scope="module")
def collated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Any]:
    """(batches of a byte-level teacher and a SentencePiece student by pairing, their tokenizers)."""
    folder = tmp_path_factory.mktemp("parity")
    tokenizers = {"teacher": byte_level(), "student": sentencepiece()}
    for side, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(folder / side)
    rows = [{"prompt": line[:8], "output": line[8:]} for line in LINES[:5]]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_dataset(folder / "train.jsonl", folder / "data", student=folder / "student", teacher=folder / "teacher")
    data = datasets.load_from_disk(str(folder / "data"))
    spelt = DualSpaceV2ExactTokenAlignment({"upstream_parity": "dskdv2"})
    spelt.use_tokenizers(tokenizers["student"], tokenizers["teacher"])
    batches = {kind: Collator()(list(rows)) for kind, rows in (("bytes", data), ("own", with_own_pairs(data, spelt)))}
    return batches, tokenizers


def _case(
    collated: tuple[dict[str, torch.Tensor], Any], parity: list[str] | str, *, pairing: str | None = None
) -> tuple[DualSpaceV2ExactTokenAlignment, Any, Head]:
    """(method, batch, student's head) where most predictions are the label; `pairing` overrides the method's own.

    The heads of shared tokens are alike up to a linear map, as of trained models, so that the projected teacher often agrees.
    """
    batches, tokenizers = collated
    teacher, student = (Vocabulary.from_tokenizer(tokenizers[side]) for side in ("teacher", "student"))
    shared = share_vocabulary(teacher, student)
    method = DualSpaceV2ExactTokenAlignment({"upstream_parity": parity})
    method.use_tokenizers(tokenizers["student"], tokenizers["teacher"])
    collated = batches[pairing or method.requires.pairing]
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(side.size, n, generator=generator) for side, n in ((student, 24), (teacher, 32))]
    weights[0][shared.student_ids] = weights[1][shared.teacher_ids] @ torch.randn(32, 24, generator=generator) / 32**0.5
    given = {}
    for side, vocabulary, weight in zip(("student", "teacher"), (student, teacher), weights, strict=True):
        hidden = weight.shape[1]
        labels = getattr(collated, side).labels
        noise = torch.randn(len(labels), hidden, generator=generator)
        given[f"{side}_head"] = Head(weight.requires_grad_(side == "student"), None, 1.0, 0.0, vocabulary.size)
        given[f"{side}_hidden"] = (weight.detach()[labels] + 0.9 * noise).requires_grad_(side == "student")
        given[f"{side}_labels"] = labels
    given |= {f"{side}_pairs": getattr(collated, side).pairs for side in ("teacher", "student")}
    method.prepare(given["student_head"], given["teacher_head"], shared)
    return method, token_batch(**given), given["student_head"]


def _step(method: DualSpaceV2ExactTokenAlignment, batch: Any, head: Head, *, moved: bool = False) -> dict[str, float]:
    """{term: mean} of one step of one micro-batch, after the head has moved where asked."""
    if moved:
        factors = torch.linspace(0.7, 1.3, head.size)[:, None]
        head.weight.data.mul_(factors)
    method.on_step_begin(head)
    terms = method.terms(changed(batch))
    return {name: (term.total / term.normalizer).item() for name, term in terms.items()}


def _differing(first: dict[str, float], second: dict[str, float]) -> set[Any]:
    return {name for name in first if first[name] != pytest.approx(second[name], rel=1e-6)}


@pytest.mark.parametrize(
    ("defect", "moved", "changed"),
    [
        ("string_alignment", False, {*SPACES, *SHARES, "agreement"}),
        ("dskdv2_token_lookup", False, {*SPACES, "agreement", "mapped_share"}),
        ("kdflow_token_lookup", False, {*SPACES, "agreement", "mapped_share"}),
        ("micro_batch_means", True, set()),  # of the only micro-batch of a step
        ("stale_head", False, set()),  # at the start
        ("stale_head", True, {*SPACES, "agreement"}),
    ],
)
def test_a_defect_changes_these_terms_and_no_others(
    collated: tuple[dict[str, torch.Tensor], Any], defect: str, moved: bool, changed: set[Any]
) -> None:
    plain = _step(*_case(collated, "none"), moved=moved)
    assert _differing(_step(*_case(collated, [defect]), moved=moved), plain) == changed


def test_string_alignment_changes_the_pairs_alone(collated: tuple[dict[str, torch.Tensor], Any]) -> None:
    method, batch, head = _case(collated, ["string_alignment"])
    assert (method.requires.pairing, method.requires.chunkable) == ("own", True)
    assert 0 < len(batch.student.pairs) < len(_case(collated, "none")[1].student.pairs)
    plain = _case(collated, "none", pairing="own")
    assert _step(method, batch, head, moved=True) == _step(*plain, moved=True)


@pytest.mark.parametrize("defect", ["dskdv2_token_lookup", "kdflow_token_lookup"])
def test_a_look_up_by_spelling_changes_targets_alone(
    collated: tuple[dict[str, torch.Tensor], Any], defect: str
) -> None:
    """On pairs whose prediction it knows as bytes do, every term is the same."""
    method, batch, head = _case(collated, [defect])
    plain, whole, other_head = _case(collated, "none")
    assert (method.requires.pairing, method.requires.chunkable) == ("bytes", True)
    predictions = batch.teacher.head.logits(batch.teacher.hidden[batch.teacher.pairs]).argmax(-1)
    alike = method.student_id_of[predictions] == plain.student_id_of[predictions]
    assert 0 < alike.sum() < len(alike)
    parts = [
        changed(one, teacher_pairs=one.teacher.pairs[alike], student_pairs=one.student.pairs[alike])
        for one in (batch, whole)
    ]
    assert _step(method, parts[0], head, moved=True) == _step(plain, parts[1], other_head, moved=True)


def test_the_two_look_ups_differ_in_what_is_unknown(collated: tuple[dict[str, torch.Tensor], Any]) -> None:
    unknown = collated[1]["student"].unk_token_id
    published, kdflow = (_case(collated, [f"{code}_token_lookup"])[0].student_id_of for code in ("dskdv2", "kdflow"))
    assert (published == unknown).any()
    assert not (kdflow == unknown).any()
    known = (published != unknown) & (published >= 0)
    assert torch.equal(published[known], kdflow[known])
    assert (kdflow >= 0).sum() > known.sum()  # "Ġa" is "▁a"
    assert (kdflow < 0).any()


def test_micro_batch_means_change_the_denominators_alone(collated: tuple[dict[str, torch.Tensor], Any]) -> None:
    """Of two micro-batches each counts the same, however many pairs it has."""
    method, batch, _ = _case(collated, ["micro_batch_means"])
    plain = _case(collated, "none")[0]
    assert (method.requires.pairing, method.requires.chunkable) == ("bytes", False)
    total = len(batch.student.labels)
    parts = [batch.part(0, total // 4), batch.part(total // 4, total)]
    ours, theirs = ([one.terms(part) for part in parts] for one in (plain, method))
    for name in ours[0]:
        means = [part[name].total / part[name].normalizer for part in ours]
        whole = sum(part[name].total for part in ours) / sum(part[name].normalizer for part in ours)
        found = sum(part[name].total for part in theirs) / sum(part[name].normalizer for part in theirs)
        torch.testing.assert_close(found, sum(means) / 2 if name in SPACES else whole)
        if name in SPACES:
            assert abs(found - whole) > 1e-4


def test_a_stale_head_leaves_pairs_and_denominators_alone(collated: tuple[dict[str, torch.Tensor], Any]) -> None:
    method, batch, head = _case(collated, ["stale_head"])
    assert (method.requires.pairing, method.requires.chunkable) == ("bytes", True)
    start = method.projectors.student_to_teacher.clone()
    before = _step(method, batch, head)
    after = _step(method, batch, head, moved=True)
    assert torch.equal(method.projectors.student_to_teacher, start)
    # Neither the projected teacher nor the student in the teacher's space sees that the head moved.
    for name in ("teacher_to_student_cross_entropy", "teacher_space", "agreement"):
        assert after[name] == before[name]
    assert after["cross_entropy"] != before["cross_entropy"]
    assert after["student_space"] != before["student_space"]  # the student's own side of it is live


@pytest.mark.parametrize("defect", [name for name in DEFECTS if name != "micro_batch_means"])
def test_a_defect_is_the_same_fused(collated: tuple[dict[str, torch.Tensor], Any], defect: str) -> None:
    found = []
    for chunk_tokens in (None, 7):
        method, batch, head = _case(collated, [defect])
        _step(method, batch, head, moved=True)
        if chunk_tokens is None:
            terms = method.terms(batch)
            loss = method.objective({name: term.total / term.normalizer for name, term in terms.items()})
        else:
            loss, _ = chunked_loss(method, batch, None, list(method.projectors.parameters()), chunk_tokens)
        trained = [batch.student.hidden, head.weight, method.projectors.teacher_to_student]
        found.append([loss, *torch.autograd.grad(loss, trained)])
    for unfused, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, unfused, rtol=1e-4, atol=1e-6)


def test_a_code_base_is_the_sum_of_its_defects(collated: tuple[dict[str, torch.Tensor], Any]) -> None:
    for name, defects in CODE_BASES.items():
        written = DualSpaceV2ExactTokenAlignment({"upstream_parity": list(reversed(defects))})
        assert written.options == DualSpaceV2ExactTokenAlignment({"upstream_parity": name}).options
        assert written.options.upstream_parity == name
    assert {defect for defects in CODE_BASES.values() for defect in defects} == set(DEFECTS)


def test_one_setting_has_one_spelling() -> None:
    options = [
        DualSpaceV2ExactTokenAlignment({"upstream_parity": parity}).options.model_dump()["upstream_parity"]
        for parity in (["stale_head", "string_alignment"], "string_alignment, stale_head")
    ]
    assert options == [("string_alignment", "stale_head")] * 2


@pytest.mark.parametrize(
    ("parity", "message"),
    [
        ("stale_heads", "no defect 'stale_heads'; did you mean 'stale_head'"),
        (["kdflow", "stale_head"], "'kdflow' is a sum of defects"),
        (["dskdv2_token_lookup", "kdflow_token_lookup"], "two look-ups"),
        (True, "is True; fix: a code base"),
        ([1], "a list of string_alignment"),
    ],
)
def test_what_is_no_defect_is_an_error_that_says_what_is(parity: Any, message: str) -> None:
    with pytest.raises(InputError, match=r"methods.dskd-v2-eta.upstream_parity: .*" + message):
        DualSpaceV2ExactTokenAlignment({"upstream_parity": parity})
