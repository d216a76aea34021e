"""GSM8K: school mathematics in words, scored by the final number. The card (README.md) has the protocol."""

from collections.abc import Sequence

from harness.tasks.data_files import Row
from harness.tasks.gsm8k import Gsm8kTask
from harness.tasks.word_problems import ZeroShotNumberTask


class Gsm8k(ZeroShotNumberTask, Gsm8kTask):
    name = "gsm8k"

    def prompts(self, rows: Sequence[Row]) -> list[str]:
        return [self.prompt(row) for row in rows]


TASK = Gsm8k
