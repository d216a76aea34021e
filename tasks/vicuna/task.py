"""Vicuna: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile
from harness.tasks.instruction_following import InstructionTask


class Vicuna(InstructionTask):
    name = "vicuna"
    licence = "Apache-2.0"
    validation_from = "dolly"
    data = DataFile(
        path="dskd_format/vicuna/valid.jsonl",
        sha256="04f5fabc7e2660a778ef86f7d2779f69a8f108b892074517566b7d714a269c3a",
        size=131846,
    )


TASK = Vicuna
