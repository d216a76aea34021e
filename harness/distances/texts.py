"""The texts of one task on which a model is compared with its teacher: its own answers, and the reference answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dskd.distances import Text
from harness.tasks.loglikelihood_task import LogLikelihoodTask
from harness.tasks.task import Task

NOTHING_GENERATED = "the task is scored by log-likelihoods: nothing is generated"
REASONS = "the model reasons before its answer, and the whole text is not kept"
PROMPT_CUT = "the prompt was cut"


@dataclass
class Texts:
    """Texts to compare, with the item that each belongs to.

    Attributes:
        ids: [texts], of the item.
        texts: [texts].
        left_out: By reason, how many are not among these.
        reason: Why there are none at all.
    """

    ids: list[str] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    reason: str | None = None


def own_answers(
    task: Task, samples: Mapping[str, Sequence[Mapping[str, Any]]], limit: int | None, teacher: Any
) -> Texts:
    """What the model wrote.

    Args:
        task: Of the samples.
        samples: By item, as the evaluation kept them.
        limit: So many documents were asked.
        teacher: The teacher's tokenizer, which writes its prompts; None without a teacher.
    """
    if isinstance(task, LogLikelihoodTask):
        return Texts(reason=NOTHING_GENERATED)
    found = Texts()
    prompts = {} if teacher is None else {doc["id"]: task.render_prompt(doc, teacher) for doc in task.docs(limit)}
    for identifier, rows in samples.items():
        for sample in rows:
            if sample.get("reasoning") is not None:
                return Texts(reason=REASONS)
            if sample.get("prompt_truncated"):
                found.left_out[PROMPT_CUT] += 1
                continue
            ended = sample.get("finish_reason") != "length"
            asked = sample["prompt"], prompts.get(identifier, "")
            found.ids.append(identifier)
            found.texts.append(Text(*asked, sample["output"], ended))
    return found


def reference_answers(task: Task, limit: int | None, student: Any, teacher: Any) -> Texts:
    """The answers of the task's data. student, teacher: tokenizers, the teacher's None without one."""
    if isinstance(task, LogLikelihoodTask):
        return Texts(reason=NOTHING_GENERATED)
    found = Texts()
    for doc in task.docs(limit):
        asked = task.render_prompt(doc, student), "" if teacher is None else task.render_prompt(doc, teacher)
        found.ids.append(doc["id"])
        found.texts.append(Text(*asked, task.reference(doc)))
    return found


def lengths(
    task: Task, samples: Mapping[str, Sequence[Mapping[str, Any]]], limit: int | None
) -> list[tuple[str, float, float, float]]:
    """(item, bytes of the answer, bytes of the reference, whether a limit of tokens cut the answer off) of each answer."""
    if isinstance(task, LogLikelihoodTask):
        return []
    references = {doc["id"]: _bytes(task.reference(doc)) for doc in task.docs(limit)}
    return [
        (identifier, _bytes(sample["output"]), references[identifier], float(sample.get("finish_reason") == "length"))
        for identifier, rows in samples.items()
        for sample in rows
    ]


def _bytes(text: str) -> float:
    return float(len(text.encode("utf-8", "surrogatepass")))
