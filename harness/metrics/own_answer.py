"""Where in a completion a model's own answer is: after its reasoning, before a further turn or a question that it invents.

One rule for numbers, choices, expressions and code; docs/answers.md has it at the top.
"""

from __future__ import annotations

import re

from dskd.tokenization.reasoning import KNOWN, split_reasoning

# Letters. Nobody's answer is longer; of more, the end is read, so that hostile text costs a bounded time.
_LONGEST = 400_000
# What begins a turn in the templates of common models, where it was not taken for a special token.
_TURNS = ("<|", "[INST]", "<start_of_turn>", "<end_of_turn>", "</s>", "### Instruction", "### Human", "### User")
# The beginning of a line on which a model goes on with a question of its own, or with the next turn of the conversation.
NEXT_QUESTION = re.compile(
    r"^[#*_> \t]{0,9}(?:(?:next|new|another|follow-up)[ \t]{1,3})?(?:question|problem|exercise|q|human|user|instruction)"
    r"[ \t]{0,3}[0-9]{0,4}[ \t]{0,3}[*_]{0,3}[ \t]{0,3}:",
    re.IGNORECASE | re.MULTILINE,
)
# How sentences begin that offer help or close a conversation. "If you buy 3 more" is none: an offer speaks of questions or help.
OFFERS = (
    r"(?:i )?hope (?:this|that|it)|(?:please )?(?:let me know|feel free|tell me)|would you (?:like|want)|do you (?:want|have|need)"
    r"|shall i|should i|can i\b|want me to|is there any|if (?:you|there)\b[^.!?\n]{0,80}\b(?:question|help|problem|clarif|expla|let me|ask)"
    r"|happy to|i'm (?:here|happy|glad)|glad to|don't hesitate|any (?:other )?questions|thanks\b|thank you|good luck"
)


def own_turn(text: str) -> str:
    """Return what a model answered in its own turn; nothing where its reasoning never ends. Invented questions are still there."""
    answer = after_reasoning(text[-_LONGEST:])
    return answer[: min((at for turn in _TURNS if (at := answer.find(turn, 1)) >= 0), default=len(answer))]


def after_reasoning(text: str) -> str:
    """Return a text without the reasoning before the answer, where nothing has told them apart; nothing where it never ends."""
    for markers in KNOWN:
        if markers.opening in text or markers.closing in text:
            split = split_reasoning(text, markers, opened=False)
            if split.reasoning is not None:
                return split.answer
    return text
