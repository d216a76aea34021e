"""Our tasks for people who run lm-eval: their documents and prompts, scored by `Task.score_many`.

    python -m harness.tasks.lm_eval_export FOLDER
    lm_eval --include_path FOLDER --tasks gsm8k ...

writes a yaml file for each task, which names functions of this module. The scoring is the task's one filter, "harness", and
sees all outputs at once, so that generated programs run side by side. A logged sample has the `SampleScore` of each repeat in
`filtered_resps`. Tasks that run generated code are marked `unsafe_code`: lm-eval refuses them without
`confirm_run_unsafe_code`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import yaml

from harness.metrics.sample import SampleScore
from harness.tasks.loglikelihood_task import LogLikelihoodTask
from harness.tasks.registry import load, names
from harness.tasks.task import Doc, Task

if TYPE_CHECKING:
    import datasets

_SEPARATOR = "__of__"


def write_lm_eval_tasks(folder: Path) -> Path:
    """Write NAME.yaml for each task into a folder, which lm-eval takes as `include_path`; returns the folder.

    Tasks scored by log-likelihoods are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names():
        if isinstance(task := load(name), LogLikelihoodTask):
            continue
        text = yaml.dump(_config(task), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def _config(task: Task) -> dict[str, Any]:
    """lm-eval's settings of a task."""

    def function(what: str) -> _Function:
        return _Function(f"{__name__}.{what}{_SEPARATOR}{task.name}")

    return {
        "task": task.name,
        "custom_dataset": function("dataset"),
        "test_split": "test",
        "output_type": "generate_until",
        "unsafe_code": task.runs_code,
        "doc_to_text": function("prompt"),
        "doc_to_target": function("reference"),
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {"until": list(task.stop), "max_gen_toks": task.max_new_tokens, "do_sample": False},
        "filter_list": [
            {"name": "harness", "filter": [{"function": "custom", "filter_fn": function("score_outputs")}]}
        ],
        "process_results": function("process_results"),
        "metric_list": [
            {"metric": metric.name, "aggregation": "mean", "higher_is_better": metric.higher_is_better}
            for metric in task.metrics
        ],
        "metadata": {"version": task.version},
    }


class LmEvalFunctions:
    """The functions of one task that lm-eval calls."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.prompt = task.prompt
        self.reference = task.reference

    def dataset(self, **_: Any) -> dict[str, datasets.Dataset]:
        """`custom_dataset`: lm-eval hands over the task's metadata, which changes nothing here."""
        import datasets

        return {"test": datasets.Dataset.from_list(self.task.docs())}

    def score_outputs(self, outputs: Sequence[Sequence[str]], docs: Sequence[Doc]) -> list[list[SampleScore]]:
        """The filter: the scores of all outputs of each document, in one go.

        lm-eval has refused a task marked `unsafe_code` before it comes here, unless its user confirmed.
        """
        repeated = [doc for doc, of_doc in zip(docs, outputs, strict=True) for _ in of_doc]
        scores = iter(self.task.score_many(repeated, list(chain(*outputs)), allow_code_execution=True))
        return [[next(scores) for _ in of_doc] for of_doc in outputs]

    def process_results(self, _: Doc, results: Sequence[Sequence[SampleScore]]) -> dict[str, float]:
        """The mean of each metric over the outputs of one document that could be scored."""
        names = [metric.name for metric in self.task.metrics]
        values = {name: [value for score in results[0] if (value := score.scores[name]) is not None] for name in names}
        return {name: fmean(each) for name, each in values.items() if each}


@cache
def __getattr__(name: str) -> Callable[..., Any]:
    """`score_outputs__of__gsm8k`, as the yaml files name it: that function of that task."""
    what, separator, task = name.partition(_SEPARATOR)
    if not separator:
        raise AttributeError(name)
    return getattr(LmEvalFunctions(load(task)), what)


class _Function(str):
    """A function by its dotted name, written as lm-eval's `!function`."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


if __name__ == "__main__":
    write_lm_eval_tasks(Path(sys.argv[1]))
