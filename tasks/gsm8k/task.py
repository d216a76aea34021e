"""GSM8K: school mathematics in words, scored by the final number. The card (README.md) has the protocol."""

from dskd.tokenization.prompt_templates import Instruction
from harness.tasks.gsm8k import TEST, NumberTask
from harness.tasks.task import Doc


class Gsm8k(NumberTask):
    name = "gsm8k"
    data = TEST

    def documents(self) -> list[Doc]:
        """Return the 1,319 rows of the test set, numbered from 0."""
        return [{"id": str(number), "prompt": self.prompt(row), **row} for number, row in enumerate(TEST.rows())]

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's prompt, without examples."""
        return f"Question: {doc['question']}\nAnswer:"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the question, and how the answer is to end so that both rules find the number."""
        return Instruction(f"{doc['question']}\nThink step by step, and end with the number after ####.")

    def question(self, doc: Doc) -> str:
        """Return only the question."""
        return doc["question"]


TASK = Gsm8k
