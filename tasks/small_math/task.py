"""The small world's word problems, in GSM8K's format and scored as GSM8K is."""

from harness.tasks.gsm8k import NumberTask
from harness.tasks.small_world import SmallWorldTask
from harness.tasks.task import Doc


class SmallMath(SmallWorldTask, NumberTask):
    name = "small_math"

    def question(self, doc: Doc) -> str:
        """Return only the question."""
        return doc["question"]


TASK = SmallMath
