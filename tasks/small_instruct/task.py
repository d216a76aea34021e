"""The small world's instructions, in Dolly's format and scored as Dolly is."""

from harness.tasks.instruction_following import InstructionTask
from harness.tasks.small_world import SmallWorldTask


class SmallInstruct(SmallWorldTask, InstructionTask):
    name = "small_instruct"
    licence = "Apache-2.0"


TASK = SmallInstruct
