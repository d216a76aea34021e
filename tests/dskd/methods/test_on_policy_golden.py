"""The estimators of on-policy distillation against the numbers that their authors' and the frameworks' own code gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dskd import losses, methods
from helpers import golden
from helpers.method_cases import with_statistics
from helpers.on_policy_cases import batch_of, label_log_probabilities, losses_of


def _cases(kind: str) -> Any:
    return pytest.mark.parametrize("case", golden.cases(kind), ids=lambda case: case["name"])


def _check(method: Any, batch: Any, leaf: Tensor, values: dict[str, Tensor], loss: float) -> None:
    for found, gradient in losses_of(method, batch, leaf):
        torch.testing.assert_close(found, torch.tensor(loss), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, values["grad/student_logits"], rtol=1e-5, atol=1e-6)


def _log_ratio(values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """(log q with gradient, log p, the leaf), both [rows, tokens]."""
    leaf = values["in/student_logits"].clone().requires_grad_()
    return label_log_probabilities(leaf, values), label_log_probabilities(values["in/teacher_logits"], values), leaf


@_cases("trl_iw_opd")
def test_iw_opd_as_in_trl(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    options = {"gamma": case["gamma"], "normaliser": "all", "form": "log_likelihood"}
    method = methods.get("iw-opd")({**options, "temperature": case["temperature"]})
    batch, leaf = batch_of(values, written=case["rollout_logprobs"])
    if case["num_items"] is None:
        _check(method, batch, leaf, values, case["terms"]["loss"])
    batch = with_statistics(method, batch)
    term = method.terms(batch)["policy_gradient"]
    loss = term.total / (case["num_items"] or term.normalizer)
    torch.testing.assert_close(loss.detach(), torch.tensor(case["terms"]["loss"]), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(gradient, values["grad/student_logits"], rtol=1e-5, atol=1e-6)
    weights = batch.student.per_token_statistics[:, 1]
    for name, found in (("mean", weights.mean()), ("min", weights.min()), ("max", weights.max())):
        assert found.item() == pytest.approx(case["terms"][f"{name}_weight"], rel=1e-5)


@_cases("verl_estimator")
def test_estimators_of_a_token(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    log_q, log_p, leaf = _log_ratio(values)
    found = losses.estimate(case["estimator"], log_q - log_p)
    torch.testing.assert_close(found.detach(), values["value"], rtol=1e-5, atol=1e-6)
    kept = values["in/mask"] > 0
    mean = found[kept].mean()
    torch.testing.assert_close(mean.detach(), torch.tensor(case["terms"]["token_mean"]), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(mean, leaf)
    torch.testing.assert_close(gradient, values["grad/student_logits"], rtol=1e-5, atol=1e-6)
    if case["estimator"] != "k1":  # whose gradient is zero on average, so the method refuses it
        method = methods.get("opd")({"form": "differentiated", "estimator": case["estimator"]})
        _check(method, *batch_of(values), values, case["terms"]["token_mean"])


@_cases("verl_loss")
def test_the_losses_that_verl_makes_of_them(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    log_q, log_p, leaf = _log_ratio(values)
    value = losses.estimate(case["loss_mode"], log_q - log_p)
    if case["clamp"] is not None:
        value = value.clamp(-case["clamp"], case["clamp"])
    if case["policy_gradient"]:
        old, advantage = values["in/rollout_logprobs"], -value.detach()
        value, _ = losses.clipped_surrogate(log_q, old, advantage, case["clip"], case["dual_clip"])
    mask = values["in/mask"]
    sums = (value * mask).sum(-1)
    loss = {
        "token-mean": sums.sum() / mask.sum(),
        "seq-mean-token-sum": sums.mean(),
        "seq-mean-token-mean": (sums / mask.sum(-1)).mean(),
    }[case["aggregation"]]
    torch.testing.assert_close(loss.detach(), torch.tensor(case["terms"]["loss"]), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(gradient, values["grad/student_logits"], rtol=1e-5, atol=1e-6)


@_cases("verl_forward_kl_topk")
def test_forward_divergence_on_the_teachers_top_k(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    options = {"top_k": case["top_k"], "divergence": "forward_kl", "remainder": "none", "loss_limit": case["clamp"]}
    method = methods.get("opd-top-k")({**options, "log_probability_floor": case["log_prob_min_clamp"]})
    _check(method, *batch_of(values), values, case["terms"]["loss"])


@_cases("opd_sampled")
def test_advantages_of_sampled_tokens(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    method = methods.get("opd")({"discount": case.get("gamma", 0.0)})
    batch, _ = batch_of(values, written=True)
    batch = with_statistics(method, batch)
    found = method.advantages(batch, batch.student.written_log_probabilities)
    # Frameworks add it, times a coefficient, to the advantage of a reward, which a method of distillation alone has not.
    found = case["base_advantage"] + case["coefficient"] * found
    expected = values["advantages"]
    expected = expected[values["in/mask"] > 0] if expected.dim() == 2 else expected
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@_cases("student_topk")
def test_candidates_of_the_student(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    support = {"only_stu": "student", "only_tch": "teacher"}.get(case["strategy"], case["strategy"])
    weights = {"student_p": "student", "teacher_p": "teacher", "none": "uniform"}[case["weights"]]
    method = methods.get("opd-student-top-k")({"top_k": case["top_k"], "support": support, "weights": weights})
    _check(method, *batch_of(values), values, case["terms"]["loss"])


@_cases("teacher_topk")
def test_the_teachers_top_k(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    options: dict[str, Any] = {"top_k": case["top_k"], "support": case["support"]}
    options["remainder"] = "renormalised" if case["renormalised"] else "none"
    if case["tail"] and case["renormalised"]:
        options["support"] = "teacher_and_sampled"
    elif case["tail"]:
        options["remainder"] = "sampled_tail"
    if case["clip_log_ratio"]:
        options["clip_log_ratio"] = 5.0
    if case["entropy_share"]:
        options["entropy_share"] = case["entropy_share"]
    method = methods.get("opd-top-k")(options)
    method.masked_ids = tuple(case["special_tokens"])
    batch, leaf = batch_of(values)
    _check(method, batch, leaf, values, case["terms"]["loss"])
    # What is counted before the forward is what is kept in it.
    assert method.counts(batch)["distillation"] == method.counts(with_statistics(method, batch))["distillation"]


@_cases("g_opd")
def test_the_scaled_preference_of_the_teacher_over_a_reference(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    method = methods.get("g-opd")({"reward_scale": case["reward_scale"]})
    batch, leaf = batch_of(values, written=case["old"] == "rollout_logprobs")
    log_q = label_log_probabilities(values["in/student_logits"], values)[values["in/mask"] > 0]
    expected = values["advantages"][values["in/mask"] > 0]
    torch.testing.assert_close(method.advantages(batch, log_q), expected, rtol=1e-5, atol=1e-6)
    _check(method, batch, leaf, values, case["terms"]["loss"])


@_cases("trl_topk")
def test_generalised_divergence_on_the_most_probable_tokens(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    support = {0.0: "teacher", 1.0: "student"}.get(case["beta"], "union")
    options = {"top_k": case["top_k"], "support": support, "divergence": "js_divergence", "js_beta": case["beta"]}
    if case["top_k"] == 1 and not case["tail"] and support != "union":
        assert case["terms"]["loss"] == 0
        assert values["grad/student_logits"].abs().max() == 0
        with pytest.raises(methods.base.InputError, match="no gradient; fix: remainder: one_outcome"):
            methods.get("opd-top-k")(options)
        return
    method = methods.get("opd-top-k")({**options, "remainder": "one_outcome" if case["tail"] else "renormalised"})
    _check(method, *batch_of(values), values, case["terms"]["loss"])


@_cases("trl_top1")
def test_generalised_divergence_on_one_token_and_the_rest(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    kinds = {"sampled": ("sampled", "teacher_and_sampled"), "argmax": ("student", "union")}[case["mode"]]
    options = {"top_k": 1, "divergence": "js_divergence", "js_beta": case["beta"], "remainder": "one_outcome"}
    method = methods.get("opd-top-k")({**options, "support": kinds[case["beta"] < 1]})
    _check(method, *batch_of(values), values, case["terms"]["loss"])


@_cases("trl_distillation_jsd")
def test_generalised_divergence_on_the_whole_vocabulary(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    options = {"divergence": "js_divergence", "js_beta": case["beta"], "temperature": case["temperature"]}
    method = methods.get("opd-full")(options)
    _check(method, *batch_of(values), values, case["terms"]["loss"])


@_cases("miles_topk")
def test_candidates_folded_into_one_number_are_recorded_as_a_warning(case: dict[str, Any]) -> None:
    """It depends on the prefix alone, so as the advantage of a sampled token its expected gradient is zero: no method here."""
    values = golden.tensors(case)
    kept = values["in/mask"] > 0
    log_q, log_p = (values[f"in/{side}_logits"][kept].log_softmax(-1) for side in ("student", "teacher"))
    expected = []
    for q, p in zip(log_q, log_p, strict=True):
        own, other = (set(side.topk(case["top_k"]).indices.tolist()) for side in (q, p))
        support = {
            "only-student": own,
            "only-teacher": other,
            "intersection": own & other,
            "union": own | other,
            "xor": own ^ other,
        }[case["strategy"]]
        ids = sorted(support)
        weights = {"student_p": q, "teacher_p": p, "none": torch.zeros_like(q)}[case["weights"]][ids].exp()
        if case["strategy"] != "xor":
            weights = weights / weights.sum().clamp_min(1e-30)
        expected.append((weights * (q - p)[ids]).sum())
    torch.testing.assert_close(torch.stack(expected), values["value"], rtol=1e-5, atol=1e-6)
    # Σ_y q(y) K ∇ log q(y) = K ∇ Σ_y q(y) = 0.
    z = values["in/student_logits"][kept].double().requires_grad_()
    scores = z.log_softmax(-1)
    (gradient,) = torch.autograd.grad(
        (scores.exp().detach() * values["value"].double().unsqueeze(-1) * scores).sum(), z
    )
    assert gradient.abs().max() < 1e-12
