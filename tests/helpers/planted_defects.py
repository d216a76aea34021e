"""A defect that the regression check has to catch: the answer is the first number of a worked answer, not its last."""

from __future__ import annotations

import re
from typing import Any

from harness.metrics.final_number import find_final_number


def first_number(answer: str, *_: Any) -> Any:
    """What takes the place of `harness.metrics.numbers.find_final_number`."""
    found = re.search(r"[0-9]+", answer)
    return find_final_number(found.group(), *_) if found else None
