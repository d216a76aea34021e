"""AIME 2024: competition problems whose answers are integers. The card (README.md) has the protocol."""

from harness.tasks.aime import AIME_2024, AimeTask


class Aime2024(AimeTask):
    name = "aime2024"
    data = AIME_2024


TASK = Aime2024
