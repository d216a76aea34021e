"""Takes the code out of a chat model's answer: from its first fenced block, where it has one.

The rule, which a sample's `extracted` shows the result of: the first block that is fenced by three or more backticks or tildes,
whatever language it names, to its closing fence, or to the answer's end where a limit cut it; an answer without a fence is taken
whole.
"""

from __future__ import annotations

import re

_OPENING = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n", re.MULTILINE)


def fenced_code(answer: str) -> str:
    """The code of an answer, by the rule above."""
    opening = _OPENING.search(answer)
    if opening is None:
        return answer
    rest = answer[opening.end() :]
    closing = re.search(rf"^[ \t]*{opening['fence']}", rest, re.MULTILINE)
    return rest[: closing.start()] if closing else rest


def defines(code: str, name: str) -> bool:
    """Whether the code has a function of this name at its top level."""
    return re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(name)}[ \t]*\(", code, re.MULTILINE) is not None
