"""Which share of the labels a teacher's terms teach: one metric for all methods, counted here from the batch alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd import methods
from dskd.training.lesson import DISTILLED_SHARE, Lesson
from helpers import method_cases
from helpers.training_runs import logged, train_tiny

TOKENS = 37


def _pairs(batch: Any) -> int:
    return len(batch.student.pairs)


def _grouped(batch: Any) -> int:
    """Tokens in groups that have a token of the teacher."""
    others = set(batch.teacher.groups.tolist()) - {-1}
    return sum(number in others for number in batch.student.groups.tolist())


def _grouped_without_ends(batch: Any) -> int:
    return _grouped(batch) - len(batch.student.sizes)


def _mapped(batch: Any) -> int:
    """Pairs whose teacher's token of most probability is 5 to 44: those that the student has, too (method_cases)."""
    logits = batch.teacher.head.logits(batch.teacher.hidden[batch.teacher.pairs])
    return sum(5 <= k < 45 for k in logits.argmax(-1).tolist())


def _sampled(batch: Any) -> int:
    """Those that the student wrote."""
    return int(batch.student.sampled.sum())


def _sampled_in_groups(batch: Any) -> int:
    others = set(batch.teacher.groups.tolist()) - {-1}
    pairs = zip(batch.student.groups.tolist(), batch.student.sampled.tolist(), strict=True)
    return sum(number in others and sampled for number, sampled in pairs)


COUNTED = {
    **dict.fromkeys(["opd", "iw-opd", "g-opd", "opd-top-k", "opd-student-top-k", "opd-full"], _sampled),
    "opd-chunks": _sampled_in_groups,
    **dict.fromkeys(["kd", "gkd", "distillm", "dskd-v1", "dskd-v2", "minillm"], _pairs),
    **dict.fromkeys(["mined", "strict-kd", "uld", "multilevel-ot"], _pairs),
    **dict.fromkeys(["alm", "simct", "x-token"], _grouped),
    **dict.fromkeys(["dskd-v1-cma", "dskd-v1-cma-ga"], lambda batch: TOKENS),
    "gold": _grouped_without_ends,
    "dskd-v2-eta": _mapped,
}


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("name", methods.METHODS)
def test_the_share_is_that_of_the_labels_that_are_taught(name: str, chunked: bool) -> None:
    method = methods.get(name)()
    batch, *_ = method_cases.case(method, tokens=TOKENS)
    method.prepare = lambda *given: None  # it is already
    lesson = Lesson(method, None, None, batch.student.head, chunked=chunked, chunk_tokens=10)
    lesson.loss(batch, None)
    if not method.requires.teacher:
        assert DISTILLED_SHARE not in batch.metrics
        return
    term = batch.metrics[DISTILLED_SHARE]
    assert term.normalizer == TOKENS
    assert 0 < term.total <= TOKENS
    if name in COUNTED:
        assert term.total == COUNTED[name](batch)


@pytest.mark.parametrize(("name", "least", "most"), [("kd", 1.0, 1.0), ("gold", 0.5, 0.999), ("sft", None, None)])
def test_a_training_logs_and_reports_it(world: Path, tmp_path: Path, name: str, least: Any, most: Any) -> None:
    report = train_tiny(world, tmp_path, name, steps=3)
    shares = [entry.get(DISTILLED_SHARE) for entry in logged(tmp_path)]
    if least is None:
        assert report.distilled_share is None
        assert shares == [None] * 3
    else:
        assert report.distilled_share == pytest.approx(sum(shares) / 3)
        assert least <= report.distilled_share <= most
        assert report.losses[DISTILLED_SHARE] == shares[-1]
