"""The small world's functions, in HumanEval's format and scored as HumanEval is."""

from harness.tasks.code import CodeTask
from harness.tasks.small_world import SmallWorldTask


class SmallCode(SmallWorldTask, CodeTask):
    name = "small_code"
    licence = "Apache-2.0 (generated)"


TASK = SmallCode
