"""MinED against loops in float64, its map of vocabularies, and where the loss must be zero and must not."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dskd.errors import InputError
from dskd.losses.chunked import chunked_loss
from dskd.methods import get
from dskd.methods.mined import stand_ins
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary
from helpers.tiny_tokenizers import byte_level, sentencepiece
from helpers.token_batches import assert_learns_nothing_from_itself_unless_shifted, token_batch

TEACHER_TOKENS = (b"cat", b" cat", b"dogs", b"dogma", b"<end>", b"walk", b"xylophone", b"walkers", None)
STUDENT_TOKENS = (b" cat", b"cats", b"dog", b"walk", None, b"walked", b"rain", b"catch", b"dogm")
END = (4, 4)  # the ids of the ends of sequence
TEMPERATURE = 1.3


def _vocabulary(tokens: tuple[Any, ...], end: int) -> Vocabulary:
    listed = tuple(None if k == end else token for k, token in enumerate(tokens))
    return Vocabulary(listed, frozenset({end}), {end: b"</s>"}, frozenset(), {"eos": end})


def _shared() -> SharedVocabulary:
    return share_vocabulary(_vocabulary(TEACHER_TOKENS, END[0]), _vocabulary(STUDENT_TOKENS, END[1]))


def test_a_twin_stands_for_its_twin_and_the_nearest_for_a_token_without_one() -> None:
    # " cat" and "walk" have twins, and the ends have each other. "cat" is one edit from " cat", which is first in the vocabulary,
    # but that has a twin already. "dogs" is one edit from "dog", "dogma" from "dogm"; "walkers" is two from "walked".
    assert stand_ins(_shared(), 9, 2).tolist() == [1, -1, 2, 5, 4, 7, -1, -1, 3]
    assert stand_ins(_shared(), 9, 1).tolist() == [1, -1, 2, 5, 4, -1, -1, -1, 3]
    assert stand_ins(_shared(), 9, 0).tolist() == [1, -1, -1, 5, 4, -1, -1, -1, -1]


def test_of_several_the_nearest_stands_in_and_the_first_among_equals() -> None:
    teacher = _vocabulary((b"singed", b"singers", b"singes", b"</s>"), 3)
    student = _vocabulary((b"singer", b"</s>"), 1)
    assert stand_ins(share_vocabulary(teacher, student), 2, 2).tolist() == [0, 3]
    teacher = _vocabulary((b"dinger!", b"singers", b"singes", b"</s>"), 3)
    assert stand_ins(share_vocabulary(teacher, student), 2, 2).tolist() == [1, 3]


def test_real_tokenizers_keep_every_twin_and_use_no_token_twice() -> None:
    teacher, student = Vocabulary.from_tokenizer(byte_level()), Vocabulary.from_tokenizer(sentencepiece())
    shared = share_vocabulary(teacher, student)
    mapped = stand_ins(shared, student.size, 2)
    np.testing.assert_array_equal(mapped[shared.student_ids], shared.teacher_ids)
    used = mapped[mapped >= 0].tolist()
    assert len(used) == len(set(used)) > len(shared)
    for k in set(range(student.size)) - set(shared.student_ids.tolist()):
        assert mapped[k] < 0 or shared.student_id_of[mapped[k]] < 0


def test_vocabularies_with_nothing_in_common_are_refused() -> None:
    shared = SharedVocabulary(*[np.zeros(0, np.int64)] * 2, np.full(6, -1), same=False)
    head = Head(torch.zeros(6, 2), None, 1.0, 0.0, 6)
    with pytest.raises(InputError, match="no token of the teacher stands for"):
        get("mined")().prepare(head, head, shared)


def _case(
    options: dict[str, Any], pairs: tuple[Any, ...] = ((0, 2, 3, 6), (1, 2, 4, 5))
) -> tuple[Any, Any, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(6)
    random = partial(torch.randn, generator=generator)
    size, teacher_size = len(STUDENT_TOKENS), len(TEACHER_TOKENS)
    student_head = Head(random(size + 2, 5).requires_grad_(), random(size + 2).requires_grad_(), 0.8, 0.0, size)
    batch = token_batch(
        student_head,
        random(6, 5).requires_grad_(),
        torch.randint(0, size, (6,), generator=generator),
        Head(random(teacher_size + 1, 7), None, 1.0, 3.0, teacher_size),
        random(7, 7),
        torch.randint(0, teacher_size, (7,), generator=generator),
        *(torch.tensor(side, dtype=torch.long) for side in pairs),
    )
    method = get("mined")({"kd_rate": 0.3, "temperature": TEMPERATURE, **options})
    method.prepare(student_head, batch.teacher.head, _shared())
    return method, batch, [batch.student.hidden, student_head.weight, student_head.bias]


def _mean_objective(method: Any, batch: Any) -> torch.Tensor:
    return method.objective({name: term.total / term.normalizer for name, term in method.terms(batch).items()})


def _log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    weights = torch.exp(logits / temperature)
    return torch.log(weights / weights.sum())


def _slow_loss(batch: Any, mapped: list[int], unpaired: str) -> torch.Tensor:
    """One token at a time, in float64."""
    head, teacher_head = batch.student.head, batch.teacher.head
    partner = dict(zip(batch.student.pairs.tolist(), batch.teacher.pairs.tolist(), strict=True))
    cross_entropy, distillation, count = 0.0, torch.zeros((), dtype=torch.float64), 0
    for i, hidden in enumerate(batch.student.hidden.double()):
        padded = (head.weight.double() @ hidden + head.bias.double()) * head.scale
        label = batch.student.labels[i].item()
        cross_entropy = cross_entropy - _log_softmax(padded, 1.0)[label]
        log_q = _log_softmax(padded[: head.size], TEMPERATURE)
        if i in partner:
            logits = teacher_head.weight[: teacher_head.size].double() @ batch.teacher.hidden[partner[i]].double()
            weights = torch.exp(torch.tanh(logits / teacher_head.softcap) * teacher_head.softcap / TEMPERATURE)
            chosen = [(k, weights[t]) for k, t in enumerate(mapped) if t >= 0]
            total = sum(weight for _, weight in chosen)
            for k, weight in chosen:
                distillation = distillation + weight / total * (torch.log(weight / total) - log_q[k])
        elif unpaired == "label":
            distillation = distillation - log_q[label]
        count += i in partner or unpaired == "label"
    return 0.7 * cross_entropy / len(batch.student.labels) + 0.3 * distillation / count


@pytest.mark.reference("mined")
@pytest.mark.parametrize("most_edits", [0, 2])
@pytest.mark.parametrize("unpaired", ["label", "left_out"])
def test_loss_and_every_gradient_equal_a_slow_reference(unpaired: str, most_edits: int) -> None:
    method, batch, leaves = _case({"unpaired": unpaired, "most_edits": most_edits})
    expected = _slow_loss(batch, stand_ins(_shared(), 9, most_edits).tolist(), unpaired)
    loss = _mean_objective(method, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, slow in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, slow.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unpaired", ["label", "left_out"])
@pytest.mark.parametrize("chunk_tokens", [1, 2, 1000])
def test_parts_of_a_batch_add_up_to_the_whole(unpaired: str, chunk_tokens: int) -> None:
    method, batch, leaves = _case({"unpaired": unpaired})
    expected = _mean_objective(method, batch)
    loss, terms = chunked_loss(method, batch, None, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    assert (terms["aligned_share"].total / terms["aligned_share"].normalizer).item() == pytest.approx(4 / 6)
    for ours, whole in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def test_without_a_pair_the_target_is_the_label() -> None:
    method, batch, _ = _case({}, pairs=((), ()))
    logits = batch.student.head.logits(batch.student.hidden) / TEMPERATURE
    expected = torch.nn.functional.cross_entropy(logits, batch.student.labels, reduction="sum")
    torch.testing.assert_close(method.terms(batch)["distillation"].total, expected)


def test_a_label_that_the_student_wrote_is_no_target() -> None:
    method, batch, _ = _case({})
    every = method.terms(batch)["distillation"]
    # Token 0 has no partner and loses its target; token 1 has one, whose distribution stays the target.
    batch.student.sampled = torch.tensor([True, True, False, False, False, False])
    some = method.terms(batch)["distillation"]
    logits = batch.student.head.logits(batch.student.hidden[:1]) / TEMPERATURE
    lost = torch.nn.functional.cross_entropy(logits, batch.student.labels[:1])
    torch.testing.assert_close(every.total - some.total, lost)
    assert some.normalizer == every.normalizer


def test_a_student_that_is_its_teacher_learns_nothing_unless_tokens_are_shifted() -> None:
    ids = np.arange(29)
    shared = SharedVocabulary(ids, ids, ids, same=True)
    assert_learns_nothing_from_itself_unless_shifted(get("mined")({"unpaired": "left_out"}), shared)
