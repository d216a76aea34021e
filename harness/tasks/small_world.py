"""What the tasks of the small world share: generated documents, asked as the small world's models are trained on them."""

from __future__ import annotations

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.smallworld import (
    SMALL_WORLD_VERSION,
    instruction_of,
    prompt_of,
    test_docs,
    training_docs,
    validation_docs,
)
from harness.smallworld.sets import VALIDATION_SIZE
from harness.tasks.data_files import Row
from harness.tasks.task import Doc, Task


class SmallWorldTask(Task):
    """Documents and prompts of the small world; put before the class that scores. No data file is needed."""

    max_new_tokens = 64
    validation = f"{VALIDATION_SIZE} generated items that are in no other set"

    @property
    def family(self) -> str:
        """The family of problems, for the test set and for validation."""
        return self.name.partition(":")[0]

    def documents(self) -> list[Doc]:
        """Return the test set, by its own names or else numbered from 0."""
        return [{"id": doc.get("task_id", str(number)), **doc} for number, doc in enumerate(test_docs(self.family))]

    def validation_documents(self) -> list[Doc]:
        """Return items that are in no other set, numbered from 0."""
        return [
            {"id": doc.get("task_id", f"validation/{number}"), **doc}
            for number, doc in enumerate(validation_docs(self.family))
        ]

    def identity(self) -> dict[str, Any]:
        """Return the world's version: its test sets are generated where they are needed."""
        return {**super().identity(), "world": {"version": SMALL_WORLD_VERSION}}

    def prompt(self, doc: Doc) -> str:
        return prompt_of(self.family, doc)

    def training_document(self, row: Row) -> Doc | None:
        """Return the problem behind a row of the world's training sets, whose prompt says which it is."""
        return training_docs(self.family).get(str(row.get("prompt")))

    def instruction(self, doc: Doc) -> Instruction:
        return instruction_of(self.family, doc)
