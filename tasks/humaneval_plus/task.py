"""HumanEval+: HumanEval's functions with 750 inputs each, by evalplus. The card (README.md) has the protocol."""

from collections.abc import Mapping
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.tasks.code_plus import EVALPLUS_STOPS, PlusTask
from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc


class HumanEvalPlus(PlusTask):
    name = "humaneval_plus"
    licence = "Apache-2.0 (evalplus); HumanEval MIT (OpenAI)"
    validation_from = "mbpp"
    stop = (*EVALPLUS_STOPS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")
    data = DataFile(
        path="evalplus/HumanEvalPlus.jsonl.gz",
        sha256="272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
        size=925932,
    )

    def oracle(self, row: Mapping[str, Any]) -> str | None:
        """Any root of the polynomial is right where one is asked for."""
        return "root" if row["entry_point"] == "find_zero" else None

    def instruction(self, doc: Doc) -> Instruction:
        """Return the function as the input of an instruction to complete it, as for humaneval."""
        return Instruction(
            "Complete this Python function. Answer with the whole function in a code block.", doc["prompt"]
        )


TASK = HumanEvalPlus
