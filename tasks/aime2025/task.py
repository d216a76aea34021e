"""AIME 2025: competition problems whose answers are integers. The card (README.md) has the protocol."""

from harness.tasks.aime import AIME_2024, AIME_2025, AimeTask
from harness.tasks.task import Doc


class Aime2025(AimeTask):
    name = "aime2025"
    data = AIME_2025
    validation = "30 problems, those of 2024"
    validation_data = AIME_2024

    def validation_documents(self) -> list[Doc]:
        """Return the problems of the year before."""
        return list(AIME_2024.rows())


TASK = Aime2025
