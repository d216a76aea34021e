"""GSM-Hard: GSM8K's questions with large numbers, scored by the final number. The card (README.md) has the protocol."""

from fractions import Fraction

from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc
from harness.tasks.word_problems import ZeroShotNumberTask, marked


class GsmHard(ZeroShotNumberTask):
    name = "gsm_hard"
    version = "1"
    licence = "Apache-2.0 (questions of GSM8K: MIT)"
    validation_from = "gsm8k"
    tolerance = Fraction(1, 1000)  # PAL's
    data = DataFile(
        path="gsm_hard/gsmhardv2.jsonl.gz",
        sha256="fa11498e5abec8ccc3a0fa1b82797b4b53a521993f8c438efe55412e06237017",
        size=237853,
    )

    def documents(self) -> list[Doc]:
        """Return the 1,319 rows, numbered from 0."""
        return [
            {"id": str(number), "question": row["input"], "answer": marked(row["target"])}
            for number, row in enumerate(self.rows())
        ]


TASK = GsmHard
