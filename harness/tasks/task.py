"""The tasks: what each is made of, its documents, prompts and scores.

A task is a folder `tasks/<name>/` with `task.yaml` (read by lm-eval and by this module), `scoring.py` and `README.md`.
Every way to a score leads through `Task.score_many`: `harness score`, the evaluation, and lm-eval itself, whose hooks
(`harness.tasks.lm_eval_hooks`) call it.

Through lm-eval (`TaskManager(include_path=str(tasks_folder()), include_defaults=False)`, then `simple_evaluate(...,
log_samples=True, confirm_run_unsafe_code=allow_code_execution)`):

- the scoring is the task's one filter, named "harness", and sees all outputs at once, so that generated programs run
  side by side;
- a logged sample has `sample["doc"]["id"]`, `sample["resps"][0][i]` the i-th output (the i-th repeat) and
  `sample["filtered_resps"][0][i]` its `SampleScore`: scores, extracted and outcome are there, nothing needs to be
  scored again;
- `process_results` gives lm-eval the mean over the repeats of each metric, on 0..100, and leaves out what could not be
  scored;
- tasks that run generated code are marked `unsafe_code`: without `confirm_run_unsafe_code=True` lm-eval refuses them
  with a ValueError before anything is generated. Check `Task.runs_code` first and raise the InputError of
  `Task.check_permission`.

Importing this module is cheap: no lm-eval, no torch, no task's scoring until it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import yaml

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction, prompt_text, template_of
from harness.metrics.sample import SampleScore
from harness.tasks.data_files import DataFile

Doc = dict[str, Any]

# Names that begin so are lm-eval's own tasks (harness.tasks.lm_eval_task).
LM_EVAL = "lm_eval/"


@dataclass(frozen=True)
class Metric:
    """One metric of a task. "binary" metrics are 0 or 100 on each output, "continuous" ones anything between."""

    name: str
    higher_is_better: bool
    kind: Literal["binary", "continuous"]


@dataclass(frozen=True)
class Task:
    """One task. `metrics` has the headline metric first; a completion ends at the earliest of the strings in `stop`."""

    name: str
    version: str
    folder: Path
    metrics: list[Metric]
    runs_code: bool
    max_new_tokens: int
    stop: list[str] = field(default_factory=list)

    @cached_property
    def _scoring(self) -> ModuleType:
        return _module(f"harness_task_{self.name}", self.folder / "scoring.py")

    @cached_property
    def _documents(self) -> dict[str | None, list[Doc]]:
        return {}  # by the folder they were read from: another one may hold none

    def docs(self, limit: int | None = None) -> list[Doc]:
        """Return the first `limit` documents, or all, in the data set's order.

        Each has "id": the data set's own (HumanEval/0) or, where it has none, the row number in its file from 0, as a
        string. InputError where the data is absent, or not the data that the task was made with.
        """
        folder = os.environ.get("HARNESS_DATA")
        if folder not in self._documents:
            self._documents[folder] = self._scoring.documents()
        return self._documents[folder][:limit]

    def prompt(self, doc: Doc) -> str:
        """Return the text that a model without template is given."""
        return self._scoring.prompt(doc)

    def instruction(self, doc: Doc) -> Instruction:
        """Return what a model with a template is asked. InputError where the task has its own prompts alone."""
        if not self.has_instructions:
            raise InputError(
                f"task {self.name} has no instructions, only prompts of its own; fix: ask a model without template"
            )
        return self._scoring.instruction(doc)

    def question(self, doc: Doc) -> str:
        """Return the item's own text, without what the task says around each of them; what is looked for in training data."""
        if hasattr(self._scoring, "question"):
            return self._scoring.question(doc)
        return "\n".join(self.instruction(doc)) if self.has_instructions else self.prompt(doc)

    @property
    def data(self) -> DataFile | None:
        """The file of its rows; None where the documents are generated."""
        return getattr(self._scoring, "DATA", None)

    @property
    def data_is_here(self) -> bool:
        """Whether the documents can be read without asking the hub; generated ones always can."""
        return all(data.is_here() for data in self.data_files)

    @property
    def data_files(self) -> list[DataFile]:
        """The files of its rows and of the examples in its prompts; none where the documents are generated."""
        return [data for data in (self.data, getattr(self._scoring, "EXAMPLES", None)) if data is not None]

    def identity(self) -> dict[str, Any]:
        """Return what belongs to an evaluation's identity beside the task's name and version.

        Unpinned data (`DataFile.sha256` is None) is not checked against a hash, so the hash of its documents stands here; None
        where they are not here, and nothing can be evaluated.
        """
        if all(data.sha256 is not None for data in self.data_files):
            return {}
        can_be_read = self.data_is_here or os.environ.get("HARNESS_HUB") == "1"
        return {"documents": documents_digest(self.docs()) if can_be_read else None}

    @property
    def has_instructions(self) -> bool:
        """Whether models with a template can be asked."""
        return hasattr(self._scoring, "instruction")

    def asked(self, doc: Doc, tokenizer: Any) -> str:
        """Return the text that the tokenizer's model is given: the task's own prompt, or its instruction in a template."""
        return prompt_text(tokenizer, self.instruction(doc) if template_of(tokenizer) else self.prompt(doc))

    def for_template(self) -> Task:
        """Return the task as it is for models with a template: they end their answers themselves, so no string does."""
        return replace(self, stop=[])

    def gold(self, doc: Doc) -> str:
        """Return an output, as a model would write it after the prompt, that scores 100."""
        return self._scoring.gold(doc)

    def check_permission(self, allow_code_execution: bool) -> None:
        """InputError if the task runs generated code and that was not allowed, or nothing isolates such code here."""
        if not self.runs_code:
            return
        if not allow_code_execution:
            raise InputError(
                f"task {self.name} runs the code that a model wrote, on this machine: nothing was scored. "
                "Pass --allow-code-execution if you accept that"
            )
        from harness.sandbox import sandbox

        sandbox()

    def score(self, doc: Doc, output: str, *, allow_code_execution: bool = False) -> SampleScore:
        """Return the score of one output. InputError if the task runs code and that was not allowed."""
        return self.score_many([doc], [output], allow_code_execution=allow_code_execution)[0]

    def score_many(
        self,
        docs: Sequence[Doc],
        outputs: Sequence[str],
        *,
        allow_code_execution: bool = False,
        advance: Callable[[], None] | None = None,
    ) -> list[SampleScore]:
        """Return the scores of many outputs, one for each, in their order; `advance` is called after each.

        InputError if the task runs code and that was not allowed; ValueError if there are not as many documents as
        outputs.
        """
        self.check_permission(allow_code_execution)
        if len(docs) != len(outputs):
            raise ValueError(f"{len(outputs)} outputs for {len(docs)} documents")
        return self._scoring.score_many(docs, outputs, self.stop, advance or _nothing)


def documents_digest(docs: Sequence[Doc]) -> str:
    """Return the sha256 of documents: everything that prompts and scores are made of."""
    digest = hashlib.sha256()
    for doc in docs:
        digest.update(json.dumps(doc, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def tasks_folder() -> Path:
    """Return the folder of the tasks: beside the code in a checkout, inside the package once installed."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_tasks"
    return installed if installed.is_dir() else package.parent / "tasks"


def names() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(path.parent.name for path in tasks_folder().glob("*/task.yaml"))


@cache
def load(name: str) -> Task:
    """Return the task of this name, of lm-eval's own where it begins with "lm_eval/". InputError names the known ones."""
    if name.startswith(LM_EVAL):
        from harness.tasks import lm_eval_task as lm_eval_tasks

        return lm_eval_tasks.load(name.removeprefix(LM_EVAL))
    if name not in names():
        raise InputError(f"unknown task {name!r}: known are {', '.join(names())}")
    folder = tasks_folder() / name
    settings = yaml.load((folder / "task.yaml").read_text(encoding="utf-8"), Loader=_TaskLoader)
    generation = settings["generation_kwargs"]
    return Task(
        name=settings["task"],
        version=str(settings["metadata"]["version"]),
        folder=folder,
        metrics=[
            Metric(entry["metric"], entry["higher_is_better"], entry["kind"]) for entry in settings["metric_list"]
        ],
        runs_code=settings.get("unsafe_code", False),
        max_new_tokens=generation["max_gen_toks"],
        stop=list(generation["until"]),
    )


class _TaskLoader(yaml.SafeLoader):
    """Reads a task.yaml without importing the functions it names."""


def _function_name(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    assert isinstance(node, yaml.ScalarNode)
    return str(loader.construct_scalar(node))


_TaskLoader.add_constructor("!function", _function_name)


def _module(name: str, path: Path) -> ModuleType:
    """Import a file by its path, once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _nothing() -> None:
    pass
