"""ASDiv: word problems of the first six grades, scored by the final number. The card (README.md) has the protocol."""

import re

from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc
from harness.tasks.word_problems import ZeroShotNumberTask

# "9 (apples)", "-(1/3)", "6th", "The 60th caller."; the others are names, times, ratios and a date.
_NUMBER = re.compile(r"(-?[0-9.]+) *(?:\(.*\))?|(-?)\(?([0-9]+/[0-9]+)\)?|(?:The )?([0-9]+)(?:st|[nr]d|th)\b.*")


class Asdiv(ZeroShotNumberTask):
    name = "asdiv"
    version = "1"
    licence = "CC-BY-NC-4.0"
    validation_from = "gsm8k"
    data = DataFile(
        path="asdiv/test.jsonl",
        sha256="5759580385e706f961a30d4c07d6925b35c3f7c86d6c50bc413957169693dad2",
        size=613636,
    )

    def documents(self) -> list[Doc]:
        """Return the 2,096 rows whose answer is a number, by their row numbers in the file, from 0."""
        return [
            {
                "id": str(number),
                "question": f"{row['body']} {row['question']}",
                "answer": f"#### {''.join(filter(None, match.groups()))}",
            }
            for number, row in enumerate(self.rows())
            if (match := _NUMBER.fullmatch(row["answer"])) is not None
        ]


TASK = Asdiv
