"""How a model's reasoning is closed for it, where it has used up its tokens: by its closing marker, as its template writes it."""

from __future__ import annotations

from typing import Any

from dskd.errors import InputError
from dskd.tokenization.chat_reasoning import composed_reasoning
from dskd.tokenization.chat_rendering import QUESTION, SENTENCE, THOUGHT, NotRendered
from dskd.tokenization.chat_template import ChatTemplate
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import template_of
from dskd.tokenization.reasoning import ReasoningMarkers


def closing_text(tokenizer: Any, markers: ReasoningMarkers) -> str:
    """What stands between a reasoning and its answer, line ends included: `\\n</think>\\n\\n`.

    As the chat template writes it; where there is none, or it leaves reasoning out of finished turns, as most models write it.
    """
    template = template_of(tokenizer)
    if tokenizer.chat_template:
        system, arguments = (None, None) if template is None else (template.system, template.arguments)
        asked = Conversation((QUESTION, Message("assistant", SENTENCE, reasoning=THOUGHT)))
        try:
            turn = ChatTemplate(tokenizer, system=system, arguments=arguments, reasoning="train").turn(asked)
        except (InputError, NotRendered):
            pass  # a template without a place for reasoning
        else:
            ends = {piece.name: (piece.start, piece.end) for piece in turn.pieces}
            between = turn.written[ends["reasoning"][1] : ends["answer"][0]]
            if markers.closing in between:
                return between
    return composed_reasoning(markers, markers.opening, "")
