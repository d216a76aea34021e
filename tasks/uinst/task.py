"""Unnatural Instructions, 11+: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.instruction_following import InstructionTask
from harness.tasks.task import Doc

_FIRST = 10_000  # of the file's rows: the published tables' set


class UnnaturalInstructions(InstructionTask):
    name = "uinst"
    licence = "MIT"
    validation_from = "dolly"
    data = DataFile(
        path="uinst/valid.jsonl",
        sha256=None,  # never seen here
        hub=HubRows(
            repository="MiniLLM/uinst",
            data_file="11_/valid.jsonl",
            split="train",  # of the one file; it holds the test set
            fields=("prompt", "instruction", "input", "output"),
            rows_sha256=None,
        ),
    )

    def documents(self) -> list[Doc]:
        return super().documents()[:_FIRST]


TASK = UnnaturalInstructions
