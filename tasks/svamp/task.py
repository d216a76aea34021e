"""SVAMP: short word problems with small changes that mislead, scored by the final number. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc
from harness.tasks.word_problems import ZeroShotNumberTask, marked


class Svamp(ZeroShotNumberTask):
    name = "svamp"
    version = "1"
    licence = "MIT"
    validation_from = "gsm8k"
    data = DataFile(
        path="svamp/SVAMP.json",
        sha256="5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e",
        size=339970,
    )

    def documents(self) -> list[Doc]:
        """Return the 1,000 problems, by their own names: chal-1."""
        return [
            {"id": row["ID"], "question": f"{row['Body']} {row['Question']}", "answer": marked(row["Answer"])}
            for row in self.rows()
        ]


TASK = Svamp
