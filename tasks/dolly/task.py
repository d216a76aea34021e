"""Dolly: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.instruction_following import InstructionTask


class Dolly(InstructionTask):
    name = "dolly"
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


TASK = Dolly
