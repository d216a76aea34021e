"""ALM against a reference in loops and against tokenkit's own values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers import golden
from helpers.grouped_tokens import case, double, gradients, loss
from helpers.token_batches import changed, token_batch

PLAIN = {"append_space": False, "merge_by_space_prob": False}


def prepared(batch: Any, shared: SharedVocabulary, **options: Any) -> Any:
    method = methods.get("alm")(options)
    method.prepare(batch.student.head, batch.teacher.head, shared)
    return method


def _divergence(b: torch.Tensor, a: torch.Tensor, name: str, temperature: float) -> torch.Tensor:
    """Of two probabilities, in probability space."""
    if name == "abs":
        return abs(b - a)
    if name == "binary_kl_temp_limit":
        return b - a + b * torch.log((a - 1e-6) / (b - 1e-6))
    p, q = torch.exp(b / temperature - 1e-6), torch.exp(a / temperature - 1e-6)
    return {
        "binary_ce": lambda: -p * torch.log(q) - (1 - p) * torch.log(1 - q),
        "reverse_binary_kl": lambda: q * torch.log(q / p) + (1 - q) * torch.log((1 - q) / (1 - p)),
        "abs_exp": lambda: abs(p - q),
    }[name]()


def _chunks(batch: Any, o: Any, white: dict[str, list[int]]) -> list[list[torch.Tensor]]:
    """The log probabilities of every chunk, a pair of teacher's and student's, one token at a time."""
    sides = []
    for name in ("teacher", "student"):
        head, hidden = getattr(batch, name).head, getattr(batch, name).hidden
        sides.append(
            (
                torch.softmax(double(head).logits(hidden.double()), -1),
                getattr(batch, name).labels.tolist(),
                getattr(batch, name).groups.tolist(),
                {int(end) for end in getattr(batch, name).sizes.cumsum(0) - 1},
                white[name],
            )
        )
    chunks = []
    running = [0.0, 0.0]
    for group in range(1 + max(sides[0][2])):
        after, sizes = [], []
        for k, (probabilities, labels, groups, ends, white_ids) in enumerate(sides):
            tokens = [t for t, number in enumerate(groups) if number == group]
            sizes.append(len(tokens))
            running[k] = running[k] + sum(torch.log(probabilities[t][labels[t]]) for t in tokens)
            last = tokens[-1]
            following = torch.ones((), dtype=torch.double)
            if last not in ends:
                following = sum(probabilities[last + 1][v] for v in white_ids)
            after.append(following)
        if o.merge_by_space_prob and after[0] <= o.space_probability:
            continue
        if not o.strict_pairs or sizes == [1, 1]:
            chunks.append([r + (torch.log(a) if o.append_space else 0.0) for r, a in zip(running, after, strict=True)])
        running = [0.0, 0.0]
    return chunks


def _white(shared: SharedVocabulary) -> dict[str, list[int]]:
    """Ids of tokens that begin with white space or are special."""
    return {
        side: [k for k, token in enumerate(tokens) if token is None or token[:1].isspace()]
        for side, tokens in (("teacher", shared.teacher_tokens), ("student", shared.student_tokens))
    }


def reference(batch: Any, shared: SharedVocabulary, method: Any) -> torch.Tensor:
    o = method.options
    chunks = _chunks(batch, o, _white(shared))
    values = [_divergence(b, a, o.binary_divergence, o.binarization_temperature) for b, a in chunks]
    rows = double(batch.student.head).logits(batch.student.hidden.double(), padded=True)
    entropy = torch.nn.functional.cross_entropy(rows, batch.student.labels)
    return (1 - o.kd_rate) * entropy + o.kd_rate * sum(values) / len(values)


@pytest.mark.reference("alm")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"space_probability": 0.4},
        {"append_space": False, "space_probability": 0.4},
        {"merge_by_space_prob": False},
        {"merge_by_space_prob": False, "strict_pairs": True},
        {**PLAIN, "binarization_temperature": 1.0},
        {**PLAIN, "binary_divergence": "reverse_binary_kl", "binarization_temperature": 10.0},
        {"binary_divergence": "binary_kl_temp_limit", "kd_rate": 1.0},
        {**PLAIN, "binary_divergence": "abs"},
        {"binary_divergence": "abs_exp", "binarization_temperature": 5.0},
    ],
    ids=str,
)
def test_loss_and_gradients_equal_a_reference_in_loops(options: dict[str, Any]) -> None:
    batch, shared = case()
    method = prepared(batch, shared, **options)
    ours, slow = loss(method, batch), reference(batch, shared, method)
    torch.testing.assert_close(ours.double(), slow, rtol=2e-5, atol=1e-6)
    for found, expected in zip(gradients(ours, batch), gradients(slow, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"strict_pairs": True}, {"binary_divergence": "abs_exp"}], ids=str)
def test_log_probabilities_of_the_text_give_the_loss_of_hidden_states_and_are_all_that_is_read(options: Any) -> None:
    batch, shared = case()
    method = prepared(batch, shared, **PLAIN, **options)
    expected = loss(method, batch)
    of_labels = batch.teacher.head.logits(batch.teacher.hidden).log_softmax(-1)
    of_labels = of_labels.gather(-1, batch.teacher.labels.unsqueeze(-1)).squeeze(-1)
    text = changed(batch, teacher_head=None, teacher_hidden=None, teacher_label_log_probabilities=of_labels)
    from_text = methods.get("alm")({**PLAIN, **options})
    from_text.prepare(batch.student.head, None, shared)
    found = loss(from_text, text)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(gradients(found, text), gradients(expected, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert from_text.counts(text) == method.counts(batch)


def test_it_learns_from_the_text_alone_only_where_no_option_asks_what_may_follow() -> None:
    kinds = {
        (append, merge): methods.get("alm")({"append_space": append, "merge_by_space_prob": merge}).requires
        for append in (True, False)
        for merge in (True, False)
    }
    for asked, requires in kinds.items():
        assert ("text_log_probabilities" in requires.teacher_outputs) == (not any(asked))
        assert ("text_log_probabilities" in requires.outputs_with_options) == any(asked)
        assert requires.teacher_outputs[0] == "hidden_states"


def test_chunks_are_merged_where_the_teacher_expects_no_space() -> None:
    batch, shared = case()
    counts = [
        prepared(batch, shared, space_probability=threshold).counts(batch)["likelihood_matching"].item()
        for threshold in (1e-9, 0.4, 0.999)
    ]
    # Each group by itself, something between, and each example as a whole.
    assert counts[0] == 8 > counts[1] > counts[2] == 3


@pytest.mark.parametrize("options", [{}, {"space_probability": 0.4}, PLAIN], ids=str)
def test_a_batch_split_into_examples_adds_up_to_itself(options: dict[str, Any]) -> None:
    whole, shared = case()
    method = prepared(whole, shared, **options)
    totals, terms = method.counts(whole), method.terms(whole)
    parts = [method.terms(case(examples=[k])[0]) for k in (2, 0, 1)]
    for name, term in terms.items():
        assert term.normalizer == totals[name]
        assert sum(part[name].normalizer for part in parts) == term.normalizer, name
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total, rtol=1e-5, atol=1e-6)


DIVERGENCES = [
    {**mode, "binary_divergence": name, "kd_rate": 1.0}
    for name in ("binary_ce", "reverse_binary_kl", "binary_kl_temp_limit", "abs", "abs_exp")
    for mode in (PLAIN, {})
]


@pytest.mark.parametrize("options", DIVERGENCES, ids=str)
def test_a_teacher_that_is_the_student_teaches_nothing(options: dict[str, Any]) -> None:
    batch, shared = case(same=True)
    method = prepared(batch, shared, **options)
    for gradient in gradients(loss(method, batch), batch):
        assert gradient.abs().max() < 1e-6
    if options["binary_divergence"] != "binary_ce":  # that one has the entropy of two outcomes
        assert abs(loss(method, batch).item()) < 1e-6


@pytest.mark.parametrize("options", DIVERGENCES, ids=str)
def test_a_teacher_one_token_off_is_noticed(options: dict[str, Any]) -> None:
    batch, shared = case(same=True)
    method = prepared(batch, shared, **options)
    shifted = changed(batch, teacher_hidden=batch.teacher.hidden.roll(1, 0))
    assert gradients(loss(method, shifted), batch)[0].abs().max() > 1e-4


def test_a_batch_without_a_group_has_no_distillation() -> None:
    batch, shared = case(examples=[2])
    batch = changed(batch, student_groups=torch.tensor([-1]), teacher_groups=torch.tensor([-1]))
    for options in ({}, PLAIN):
        term = prepared(batch, shared, **options).terms(batch)["likelihood_matching"]
        assert (term.normalizer, term.total) == (0, 0)
        assert gradients(term.total, batch)[0].abs().max() == 0


def test_chunks_of_probability_one_and_almost_none_have_finite_gradients() -> None:
    from dskd.methods.alm import binary_divergence

    log_p = torch.tensor([0.0, -1e4, 0.0, -1e4])
    for name in ("binary_ce", "reverse_binary_kl", "binary_kl_temp_limit", "abs_exp"):
        log_q = torch.tensor([0.0, 0.0, -1e4, -1e4]).requires_grad_()
        values = binary_divergence(log_p, log_q, name, 100.0)
        (gradient,) = torch.autograd.grad(values.sum(), log_q)
        assert values.isfinite().all(), name
        assert gradient.isfinite().all(), name


def test_a_vocabulary_of_unknown_bytes_is_an_error_that_says_what_to_do() -> None:
    batch, shared = case()
    unknown = replace(shared, student_tokens=None)
    with pytest.raises(InputError, match="append_space"):
        prepared(batch, unknown)
    prepared(batch, unknown, **PLAIN)
    with pytest.raises(InputError, match="white space"):
        prepared(batch, replace(shared, student_tokens=(b"a",) * len(shared.student_tokens)))


def test_strict_pairs_cannot_be_merged() -> None:
    with pytest.raises(InputError, match="merge_by_space_prob"):
        methods.get("alm")({"strict_pairs": True})


# Of the published cases one weighs chunks by their tokens, which is not here.
GOLDEN = [c for c in golden.cases("tokenkit_alm") if c["parameters"]["numerator"] == "chunk_count"]


@pytest.mark.parametrize("golden_case", GOLDEN, ids=lambda c: c["name"])
def test_the_published_values(golden_case: dict[str, Any]) -> None:
    given, parameters = golden.tensors(golden_case), golden_case["parameters"]
    examples, sides = len(golden_case["student_groups"]), {}
    for side in ("student", "teacher"):
        logits, ids, mask = (given[f"in/{name}"] for name in (f"{side}_logits", f"{side}_ids", f"loss_mask_{side}"))
        # A label for every row: the last row's has no group, but a chunk before it sees what may follow.
        labels = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], 1)
        numbers = torch.full_like(labels, -1)
        sides[side] = logits, labels, numbers
        for k in range(examples):
            for number, tokens in enumerate(golden_case[f"{side}_groups"][k]):
                kept = [token - 1 for token in tokens if mask[k, token]]
                numbers[k, kept] = number
    # A chunk of which the loss mask leaves nothing on a side does not count; the others are numbered on through the batch.
    first = 0
    for k in range(examples):
        both = [set(sides[side][2][k].tolist()) - {-1} for side in sides]
        known = sorted(both[0] & both[1])
        for _, _, numbers in sides.values():
            for t, number in enumerate(numbers[k].tolist()):
                numbers[k, t] = first + known.index(number) if number in known else -1
        first += len(known)

    def head(size: int) -> Head:
        return Head(torch.eye(size), None, 1.0, 0.0, size)

    student, teacher = sides["student"], sides["teacher"]
    leaf = student[0].clone().requires_grad_()
    batch = token_batch(
        head(leaf.shape[-1]),
        leaf.flatten(0, 1),
        student[1].flatten(),
        head(teacher[0].shape[-1]),
        teacher[0].flatten(0, 1),
        teacher[1].flatten(),
        student_sizes=torch.full((examples,), leaf.shape[1]),
        teacher_sizes=torch.full((examples,), teacher[0].shape[1]),
        student_groups=student[2].flatten(),
        teacher_groups=teacher[2].flatten(),
    )
    masks = [given[f"in/space_mask_{side}"].bool().tolist() for side in ("teacher", "student")]
    tokens = [tuple(b" " if white else b"a" for white in mask) for mask in masks]
    nothing = np.zeros(0, dtype=np.int64)
    method = prepared(
        batch,
        SharedVocabulary(nothing, nothing, nothing, False, *tokens),
        kd_rate=1.0,
        append_space="append_space" in parameters["alm_mode"],
        merge_by_space_prob=False,
        binary_divergence=parameters["alm_diff_fn"],
        binarization_temperature=parameters["binarization_temp"],
    )
    value = loss(method, batch)
    assert value.item() == pytest.approx(golden_case["terms"]["loss"], rel=1e-5)
    (gradient,) = torch.autograd.grad(value, leaf)
    theirs = given["grad/student_logits"]
    assert (gradient - theirs).norm() <= 1e-5 * theirs.norm()
    assert method.counts(batch)["likelihood_matching"] == first
