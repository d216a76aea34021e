"""Dolly: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.instruction_following import InstructionTask, instruction_documents
from harness.tasks.task import Doc

# The rows that MiniLLM and DSKD choose checkpoints by.
_DEV = DataFile(
    path="dskd_format/dolly/dev.jsonl",
    sha256="a16927bf54fa96c945f267db083520301b751bdbab23c5f55f4482950bcb4f6c",
    size=929603,
)
_ALSO_IN_TEST = "dev/635"  # the test set has its question, with another answer


class Dolly(InstructionTask):
    name = "dolly"
    licence = "CC-BY-SA-3.0"
    validation = "999 rows of dev.jsonl"
    validation_data = _DEV
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
        return [doc for doc in instruction_documents(_DEV.rows(), "dev/") if doc["id"] != _ALSO_IN_TEST]


TASK = Dolly
