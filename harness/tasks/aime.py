"""What the tasks of AIME share: thirty problems of a year, whose answers are integers from 0 to 999."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.competition_integers import score_integer
from harness.metrics.sample import Advance, SampleScore, score_each
from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc, Metric, OverSamples, Task

AIME_2024 = DataFile(
    path="aime/aime2024.jsonl",
    sha256="7f14a8427c87e12470c85ffe97d938c0ba86f9916ad04c55fbd367065fb20327",
    size=14049,
)
AIME_2025 = DataFile(
    path="aime/aime2025.jsonl",
    sha256="9e209f73a8ece8291cf980f128fe1d6c70ac0ebb0d4e1666921fac6fa51610ec",
    size=19023,
)


class AimeTask(Task):
    """Problems of the American Invitational Mathematics Examination, answered in a box; `data` has one year's."""

    version = "1"
    metrics = (Metric("integer"), Metric("exact_match"))
    max_new_tokens = 4096
    stop = ("Question:", "</s>", "<|im_end|>", "<|eot_id|>")
    over_samples: tuple[OverSamples, ...] = ("avg", "maj", "pass")
    licence = "files MIT; the problems are the Mathematical Association of America's"

    def documents(self) -> list[Doc]:
        """Return the 30 problems, by year, part and number: 2024-I-1."""
        return list(self.rows())

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's prompt of aime24 and aime25, without examples."""
        return f"Question: {doc['problem']}\nAnswer:"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the problem, and how the answer is to be given so that it is found."""
        return Instruction(f"{doc['problem']}\n\nReason step by step, and put the final answer into \\boxed{{}}.")

    def question(self, doc: Doc) -> str:
        """Return only the problem."""
        return doc["problem"]

    def reference(self, doc: Doc) -> str:
        """Return the answer in a box."""
        return f" The answer is $\\boxed{{{doc['answer']}}}$."

    def answer_key(self, extracted: str) -> Hashable:
        """Return the value: 073 and 73 are votes for the same answer."""
        return int(extracted) if extracted.removeprefix("-").isdecimal() else extracted

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_each(lambda doc, output: score_integer(doc["answer"], output, self.stop), docs, outputs, advance)
