"""The small world's word problems, in GSM8K's format and scored as GSM8K is."""

from harness.tasks.small_world import SmallWorldTask
from harness.tasks.task import Doc
from harness.tasks.word_problems import NumberTask


class SmallMath(SmallWorldTask, NumberTask):
    name = "small_math"
    licence = "Apache-2.0, as this project"

    def question(self, doc: Doc) -> str:
        """Return only the question."""
        return doc["question"]


TASK = SmallMath
