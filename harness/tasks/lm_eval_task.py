"""Tasks of the installed lm-eval by name: `lm_eval/NAME` in a matrix, with lm-eval's own prompts, filters and metrics.

What both kinds share: the yaml file (`harness.tasks.lm_eval_yaml`), the data, and the identity. The data is read, from wherever
the yaml says, for the prompts and for the evaluation's identity.

The metrics have lm-eval's names with their filters, `exact_match,strict-match`, and the first is the headline; their values, 0 to
1 in lm-eval, are multiplied by 100. Examples are drawn as lm-eval draws them by default (seed 1234), for all documents in their
order, so that a limit changes no prompt.
"""

from __future__ import annotations

import importlib.metadata
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dskd.data.progress_bars import without_bars
from dskd.errors import InputError
from harness.tasks.lm_eval_yaml import LM_EVAL, files_digest, metrics_of, read_config, validation_split
from harness.tasks.task import Doc, Task, documents_digest

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

_FEWSHOT_SEED = 1234  # lm-eval's default


class LmEvalTask(Task):
    """A task of lm-eval; `source` is its yaml file, and `config` what that says."""

    licence = "of its data set"

    def __init__(self, name: str, source: Path, config: Mapping[str, Any]) -> None:
        self.source = source
        self.name = f"{LM_EVAL}{name}"
        self.version = str((config.get("metadata") or {}).get("version", "Yaml"))
        self.metrics = metrics_of(name, config)
        split = validation_split(config)
        self.validation = None if split is None else f"the split {split} of its data set"

    @abstractmethod
    def documents_of(self, rows: Iterable[Mapping[str, Any]], before: str = "") -> list[Doc]:
        """Return the documents of rows, by their numbers from 0 after `before`."""

    def documents(self) -> list[Doc]:
        """Return all documents by their row number from 0. InputError where their data cannot be had."""
        return self.documents_of(self._theirs.eval_docs)

    @property
    def has_validation(self) -> bool:
        return self.validation is not None

    def validation_documents(self) -> list[Doc]:
        """Return those of the validation split. InputError where their data cannot be had."""
        return self.documents_of(self._theirs.validation_docs(), "validation/")

    @cached_property
    def _theirs(self) -> ConfigurableTask:
        """lm-eval's task with its data. InputError where that cannot be had."""
        from datasets.exceptions import DatasetsError
        from lm_eval.api.task import ConfigurableTask

        config = read_config(self.source, resolve_func=True)
        try:
            with without_bars(keep_on_terminals=True):
                theirs = ConfigurableTask(config=config)
        except (OSError, ValueError, ImportError, RuntimeError, DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"task {self.name}: lm-eval cannot load its data set {config.get('dataset_path')}: {reason}; "
                "fix: run where the hub can be reached or the data set is in its cache"
            ) from error
        theirs.set_fewshot_seed(_FEWSHOT_SEED)
        return theirs

    def _context(self, row: Mapping[str, Any]) -> Any:
        """lm-eval's context of a row, with description and examples: a text, or one for each choice."""
        theirs = self._theirs
        return theirs.fewshot_context(row, theirs.config.num_fewshot or 0, gen_prefix=theirs.doc_to_prefix(row))

    def identity(self) -> dict[str, Any]:
        """Return the hashes of the task's files and of its documents, prompts included, and lm-eval's version."""
        return {
            "lm_eval": importlib.metadata.version("lm_eval"),
            "yaml": files_digest(self.source),
            "documents": documents_digest(self.docs()),
        }

    def _percent(self, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not 0.0 <= number <= 1.0:
            raise InputError(
                f"task {self.name}: its metric {name} gave {str(value)[:40]} on one output; "
                "fix: choose a task whose metrics are 0 to 1"
            )
        return 100.0 * number
