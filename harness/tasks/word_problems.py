"""Word problems in the form of GSM8K: a question, an answer that ends in its number, and GSM8K's scoring."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.numbers import MARKED, Ending, score_number
from harness.metrics.sample import Advance, SampleScore, score_each
from harness.tasks.data_files import Row
from harness.tasks.task import Doc, Metric, Task

_ANSWERS = ("answer", "gold", "output", "response")  # what the column of the worked answer may be called


class NumberTask(Task):
    """Word problems, scored by the final number; `ending` is how their answers give it.

    A document's "answer" ends in "#### " and the number. `tolerance`: numeric is right where the values differ by less.
    """

    version = "2"
    metrics = (Metric("numeric"), Metric("strict"), Metric("flexible"))
    max_new_tokens = 512
    stop: tuple[str, ...] = ("Question:", "</s>", "<|im_end|>")
    ending: Ending = MARKED
    tolerance = Fraction(0)

    def reference(self, doc: Doc) -> str:
        """Return the worked answer, as a model would write it after the prompt."""
        return f" {doc['answer']}"

    def training_document(self, row: Row) -> Doc | None:
        """Return a row whose answer, whatever its column is called, ends in "#### " and the number."""
        found = (row[name] for name in _ANSWERS if isinstance(row.get(name), str) and "####" in row[name])
        answer = next(found, None)
        return None if answer is None else {"id": "", **row, "answer": answer}

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_each(
            lambda doc, output: score_number(doc["answer"], output, self.stop, self.ending, self.tolerance),
            docs,
            outputs,
            advance,
        )


class ZeroShotNumberTask(NumberTask):
    """Questions without examples, asked as GSM8K's are. A document has "question" and "answer"."""

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's prompt of gsm8k, without examples."""
        return f"Question: {doc['question']}\nAnswer:"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the question, and how the answer is to end so that all rules find the number."""
        return Instruction(f"{doc['question']}\nThink step by step, and end with the number after ####.")

    def question(self, doc: Doc) -> str:
        """Return only the question."""
        return doc["question"]


def marked(number: float) -> str:
    """Return a reference number as GSM8K writes it: "#### 18", in digits whatever its size."""
    digits = format(Decimal(repr(number)), "f")
    return f"#### {digits.rstrip('0').rstrip('.') if '.' in digits else digits}"
