"""The functions that a task.yaml names to lm-eval: its documents and scores, as `harness.tasks.task` has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness import tasks
from harness.metrics.sample import SampleScore

if TYPE_CHECKING:
    import datasets


def score_outputs_of(
    task: tasks.Task, outputs: Sequence[Sequence[str]], docs: Sequence[tasks.Doc]
) -> list[list[SampleScore]]:
    """The scores of all outputs of each document, in one go."""
    flat = [(doc, output) for doc, outputs_of_doc in zip(docs, outputs, strict=True) for output in outputs_of_doc]
    scores = iter(task.score_many([doc for doc, _ in flat], [output for _, output in flat], allow_code_execution=True))
    return [[next(scores) for _ in outputs_of_doc] for outputs_of_doc in outputs]


def loaded(task: tasks.Task) -> dict[str, Any]:
    """A task as lm-eval's TaskManager gives it."""
    from lm_eval.tasks import TaskManager

    if task.name.startswith(tasks.LM_EVAL):
        from harness.tasks.lm_eval_task import LmEvalTask

        assert isinstance(task, LmEvalTask)
        return {"tasks": {task.name: task.for_lm_eval()}, "groups": {}, "group_map": {}}
    # Only our folder: indexing lm-eval's own tasks takes ten seconds and more.
    manager = TaskManager(include_path=str(tasks.tasks_folder()), include_defaults=False)
    return dict(manager.load([task.name]))


def hooks(name: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the functions `dataset`, `score_outputs` and `process_results` of a task, for its scoring.py to export."""

    def dataset(**_: Any) -> dict[str, datasets.Dataset]:
        """`custom_dataset`: lm-eval hands over the task's metadata, which changes nothing here."""
        import datasets

        return {"test": datasets.Dataset.from_list(tasks.load(name).docs())}

    def score_outputs(outputs: Sequence[Sequence[str]], docs: Sequence[tasks.Doc]) -> list[list[SampleScore]]:
        """The filter: all outputs of each document to their scores, in one go.

        lm-eval has refused a task marked `unsafe_code` before it comes here, unless its user confirmed.
        """
        return score_outputs_of(tasks.load(name), outputs, docs)

    def process_results(_: tasks.Doc, results: Sequence[Sequence[SampleScore]]) -> dict[str, float]:
        """The mean of each metric over the outputs of one document that could be scored."""
        means = {}
        for metric in tasks.load(name).metrics:
            values = [value for score in results[0] if (value := score.scores[metric.name]) is not None]
            if values:
                means[metric.name] = fmean(values)
        return means

    return dataset, score_outputs, process_results
