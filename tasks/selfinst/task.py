"""Self-Instruct: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile
from harness.tasks.instruction_following import InstructionTask


class SelfInstruct(InstructionTask):
    name = "selfinst"
    licence = "Apache-2.0"
    validation_from = "dolly"
    data = DataFile(
        path="dskd_format/self-inst/valid.jsonl",
        sha256="18922e8ac8a6034ecf0ec8026e24473a30297aaa2e7182d6beb56682586af525",
        size=237036,
    )


TASK = SelfInstruct
