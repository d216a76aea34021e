"""What the tasks of BIG-Bench Hard share: 27 files in one task, prompts that lm-eval's own files give, and the scoring.

Documents are ordered row by row over the 27 tasks, so that a limit takes some of each; their summary has a score for each task.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from functools import cache
from itertools import chain, zip_longest
from typing import Any

import yaml

from dskd.errors import InputError
from harness.lm_eval_files import tasks_of_lm_eval
from harness.tasks.bbh_files import FILES
from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc, Task


class BigBenchHard(Task):
    """The 6,511 questions. A task of these has `name`, `metrics`, `folder` and `prompts_sha256`, and says how a prompt is made."""

    version = "1"
    max_new_tokens = 1024
    licence = "MIT"
    folder: str  # of lm-eval's bbh, with the prompts
    prompts_sha256: str

    @property
    def data_files(self) -> list[DataFile]:
        return list(FILES.values())

    def documents(self) -> list[Doc]:
        """Return the questions, row 0 of all tasks, row 1 of all, and so on; ids are `TASK/ROW`."""
        self._prompts_before()  # now rather than at the first prompt
        columns = [
            [{"id": f"{name}/{number}", "task": name, **row} for number, row in enumerate(file.rows())]
            for name, file in FILES.items()
        ]
        return [doc for doc in chain.from_iterable(zip_longest(*columns)) if doc is not None]

    @abstractmethod
    def ask(self, question: str) -> str:
        """Return the end of the prompt."""

    def category(self, doc: Doc) -> str:
        return doc["task"]

    def prompt(self, doc: Doc) -> str:
        return self._prompts_before()[doc["task"]] + self.ask(doc["input"])

    def question(self, doc: Doc) -> str:
        return doc["input"]

    def reference(self, doc: Doc) -> str:
        """Return the last sentence of an answer, in the form of the examples."""
        return f"So the answer is {doc['target']}."

    def _prompts_before(self) -> dict[str, str]:
        return prompts_before(self.folder, self.prompts_sha256)


@cache
def prompts_before(folder: str, sha256: str) -> dict[str, str]:
    """Return what lm-eval puts before a question, by task: its description, and the examples where it shows some.

    Args:
        folder: Of lm-eval's bbh.
        sha256: Of these texts, in the order of the tasks. InputError where it is another.
    """
    before = {name: _before(folder, name) for name in FILES}
    digest = hashlib.sha256("\0".join(before.values()).encode()).hexdigest()
    if digest != sha256:
        raise InputError(
            f"lm-eval's bbh/{folder}: its prompts have the sha256 {digest}, expected {sha256}; "
            "fix: install lm-eval 0.4.13, which has the prompts that this task was made with"
        )
    return before


def _before(folder: str, name: str) -> str:
    text = (tasks_of_lm_eval() / "bbh" / folder / f"{name}.yaml").read_text(encoding="utf-8")
    settings: dict[str, Any] = yaml.safe_load(text.replace("!function ", ""))
    shown = settings.get("fewshot_config", {}).get("samples", [])
    ask = settings["doc_to_text"].partition("{{input}}")
    return settings["description"] + "".join(f"{ask[0]}{each['input']}{ask[2]}{each['target']}\n\n" for each in shown)
