"""MBPP: Python functions from a sentence and three assertions, scored by running those. The card (README.md) has the protocol."""

from collections.abc import Iterable
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.assertions import FORMAT
from harness.tasks.code import CodeTask
from harness.tasks.data_files import DataFile, Row
from harness.tasks.task import Doc

_EXAMPLES = (2, 3, 4)
_TEST_SET = range(11, 511)
_VALIDATION_SET = range(511, 601)


class Mbpp(CodeTask):
    name = "mbpp"
    licence = "CC-BY-4.0 (Google LLC)"
    validation = "90 problems, MBPP's own for validation"
    form = FORMAT
    stop = ("[DONE]",)
    answer_fields = ("test_list", "code")
    data = DataFile(
        path="mbpp/mbpp.jsonl", sha256="ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f", size=563743
    )

    def documents(self) -> list[Doc]:
        """Return the 500 problems of the test set, by their numbers, each with its prompt of three examples."""
        return self._problems(_TEST_SET)

    def validation_documents(self) -> list[Doc]:
        """Return the 90 problems that MBPP sets apart for validation, in the same form."""
        return self._problems(_VALIDATION_SET)

    def _problems(self, numbers: Iterable[int]) -> list[Doc]:
        rows = {row["task_id"]: row for row in self.rows()}
        examples = "".join(
            f"{_problem(rows[number])}\n[BEGIN]\n{rows[number]['code']}\n[DONE]\n\n" for number in _EXAMPLES
        )
        return [
            {"id": str(number), "prompt": f"{examples}{_problem(rows[number])}\n[BEGIN]\n", **rows[number]}
            for number in numbers
        ]

    def training_document(self, row: Row) -> Doc | None:
        """Return a row of MBPP's other problems."""
        doc = super().training_document(row)
        return None if doc is None else {"test_setup_code": "", **doc}

    def item(self, doc: Doc) -> str:
        """Return the problem's number, which mbpp_plus has too."""
        return f"mbpp/{doc['task_id']}"

    def prompt(self, doc: Doc) -> str:
        """Return the three examples and the problem, as the paper and lm-eval give them."""
        return doc["prompt"]

    def instruction(self, doc: Doc) -> Instruction:
        """Return the problem without examples, and how the code is to be given."""
        return Instruction(f"{_problem(doc)}\n\nAnswer with the code in a code block.")

    def question(self, doc: Doc) -> str:
        """Return only the problem in words."""
        return doc["text"]

    def reference(self, doc: Doc) -> str:
        """Return the reference solution."""
        return doc["code"]


def _problem(row: dict[str, Any]) -> str:
    task = (
        f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:"
    )
    return "\n".join([task, "", *row["test_list"]])


TASK = Mbpp
