"""What a stored reply says: an example of a training set, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dskd.data.messages import Unusable, read_tool_call
from dskd.io import has_half_a_pair
from dskd.tokenization.conversations import Conversation
from dskd.tokenization.reasoning import KNOWN, ReasoningMarkers, Split, split_reasoning, starts_reasoning
from harness.responses.prompts import Asked, answered_row

Outcome = Literal["kept", "without_end", "empty", "refused", "unreadable"]

_ENDED = {"stop", "eos", "tool_calls", "function_call"}
_FILTERED = "content_filter"


def read_response(
    prompt: Asked, choice: Mapping[str, Any], markers: ReasoningMarkers | None, *, opened: bool
) -> tuple[Outcome, dict[str, Any] | None]:
    """Return what becomes of a response, and the row of a training set where it is kept.

    A response is kept if it ended by itself, has an answer, and says nothing that cannot be written down: a call of a tool whose
    arguments are no JSON object, calls where no tools were offered, half of a surrogate pair.

    Args:
        prompt: What was asked.
        choice: A `Choice` as JSON.
        markers: Of the teacher's reasoning; where they are not known here, the text shows them.
        opened: Whether the prompt ends inside open reasoning.
    """
    if choice["refusal"] or choice["finish_reason"] == _FILTERED:
        return "refused", None
    if choice["finish_reason"] not in _ENDED:
        return "without_end", None
    split = _split(choice["text"], choice["reasoning"], markers, opened=opened)
    if not split.ended:
        return "without_end", None
    try:
        calls = tuple(read_tool_call(call, "") for call in choice["tool_calls"])
    except Unusable:
        return "unreadable", None
    if calls and not (isinstance(prompt, Conversation) and prompt.tools):
        return "unreadable", None
    if not split.answer and not calls:
        return "empty", None
    row = answered_row(prompt, split.answer, split.reasoning, calls)
    return ("unreadable", None) if has_half_a_pair(row) else ("kept", row)


def _split(text: str, reasoning: str | None, markers: ReasoningMarkers | None, *, opened: bool) -> Split:
    if reasoning is not None:  # the server has told them apart
        return Split(reasoning.strip("\r\n"), text.lstrip("\r\n"), ended=True)
    if markers is not None:
        return split_reasoning(text, markers, opened=opened)
    for known in sorted(KNOWN, key=lambda each: not starts_reasoning(text, each)):
        # Without an opening marker too: the server's template may have written it.
        if known.opening in text or known.closing in text:
            split = split_reasoning(text, known, opened=False)
            if split.reasoning is not None:
                return split
    return Split(None, text, ended=True)
