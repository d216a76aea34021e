"""Super-NaturalInstructions, 11+: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile
from harness.tasks.instruction_following import InstructionTask


class SuperNaturalInstructions(InstructionTask):
    name = "sinst"
    licence = "Apache-2.0; each of its tasks its source's"
    validation_from = "dolly"
    data = DataFile(
        path="dskd_format/sinst/11_/valid.jsonl",
        sha256="8c62f31543f02f3dc44ceb62436ec633ab7add9a94307a7dd1977f90378576a6",
        size=2259371,
    )


TASK = SuperNaturalInstructions
