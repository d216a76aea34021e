"""Dolly: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.instruction_following import InstructionTask, instruction_documents
from harness.tasks.task import Doc

# The rows that MiniLLM and DSKD choose checkpoints by; none of them is in the test set.
_DEV = DataFile(
    path="dskd_format/dolly/dev.jsonl",
    sha256="a16927bf54fa96c945f267db083520301b751bdbab23c5f55f4482950bcb4f6c",
    size=929603,
)


class Dolly(InstructionTask):
    name = "dolly"
    licence = "CC-BY-SA-3.0"
    validation = "the 1,000 rows of dev.jsonl"
    data = DataFile(
        path="dskd_format/dolly/valid.jsonl",
        sha256="f2624572fdde0bec8759e63fecefdc5e38679816464cd57ef563612ccc6acc06",
        size=505929,
        hub=HubRows(
            repository="MiniLLM/dolly",
            data_file="valid.jsonl",
            split="train",  # of the one file; it holds the test set
            fields=("prompt", "instruction", "input", "output"),
            rows_sha256="61f6a3692ef8ec5d0d4ead88fef79d66c739d0216501c7ceff5bf325a13a0119",
        ),
    )

    def validation_documents(self) -> list[Doc]:
        return instruction_documents(_DEV.rows(), "dev/")


TASK = Dolly
