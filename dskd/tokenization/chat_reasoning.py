"""Reasoning in a chat template: whether a model is asked to write it, and in which form the template takes it."""

from __future__ import annotations

from dskd.tokenization.chat_rendering import QUESTION, SENTENCE, THOUGHT, NotRendered, Renderer
from dskd.tokenization.conversations import Message
from dskd.tokenization.reasoning import ReasoningMarkers, opens

# What templates call the argument that turns reasoning on.
_ARGUMENTS = ("enable_thinking", "thinking", "open_thinking")
_CHANNEL = "<|channel"


def usual_reasoning(renderer: Renderer, given: str) -> str:
    """What becomes of reasoning where nothing is said of it: `train` for a model that is asked to reason, else `cut`.

    Args:
        renderer: The template.
        given: A generation prompt.
    """
    asked = any(renderer.arguments.get(name) is True for name in _ARGUMENTS)
    return "train" if asked or opens(given, renderer.markers) else "cut"


def form_of_reasoning(renderer: Renderer) -> str:
    """How the template takes reasoning: `field`, `content` or `closing` (see `Renderer.form`), or `composed`.

    `composed`: the template leaves it out of finished turns, and the model writes it all the same where the prompt does not close it.

    Raises:
        NotRendered: Where the generation prompt closes reasoning.
    """
    markers = renderer.markers
    given = renderer.render([QUESTION], (), generate=True)
    opened = opens(given, markers)
    answer = Message("assistant", SENTENCE, reasoning=THOUGHT)
    for form in ("field", "content", "closing"):
        if (form == "closing" and not opened) or (form == "content" and _CHANNEL in markers.opening):
            continue  # a channel is the template's to open, not the content's
        whole = renderer.render([QUESTION, answer], (), generate=False, form=form)
        if not whole.startswith(given):
            continue
        rest = whole[len(given) :]
        once = rest.count(THOUGHT) == 1 and rest.count(SENTENCE) == 1
        if once and not (opened and rest.lstrip().startswith(markers.opening)):
            return form
    if opened or (renderer.writes_reasoning and not given.rstrip().endswith(markers.closing)):
        return "composed"
    raise NotRendered(
        "template_changes",
        f"its chat template has no place for reasoning after its generation prompt ({given[-30:]!r}); "
        "fix: set reasoning: cut, or arguments of the template that turn it on (enable_thinking: true)",
    )


def composed_reasoning(markers: ReasoningMarkers, given: str, thought: str) -> str:
    """Reasoning as a model writes it after the generation prompt `given`, up to the answer."""
    opened = opens(given, markers)
    if markers.end:  # messages in channels
        return f"{'' if opened else markers.opening}{thought}{markers.end}{markers.closing}"
    between = "" if _CHANNEL in markers.opening else "\n\n"
    return f"{'' if opened else markers.opening + chr(10)}{thought}\n{markers.closing}{between}"
