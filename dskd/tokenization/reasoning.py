"""The reasoning of a model, told apart from its answer: `<think>` … `</think>` and what other models write in its place.

Which markers a model writes is read from its chat template and its added tokens, and never guessed. What a model writes between
them is hostile text: it repeats markers, forgets them, and mentions them in code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dskd.errors import InputError

# The setting in tokenizer_config.json, for a model whose template and tokens do not show its markers: [opening, closing].
KEY = "reasoning_markers"


@dataclass(frozen=True)
class ReasoningMarkers:
    """What opens and what closes a model's reasoning. `end`: what it writes between the reasoning and the closing marker."""

    opening: str
    closing: str
    end: str = ""


@dataclass(frozen=True)
class Split:
    """A text's two parts. `reasoning` is None where there is none; `ended` is False where it never closes: no answer then."""

    reasoning: str | None
    answer: str
    ended: bool


KNOWN = (
    ReasoningMarkers("<think>", "</think>"),  # DeepSeek R1, Qwen3, GLM 4.5, SmolLM3, Nemotron and most others
    ReasoningMarkers("<thinking>", "</thinking>"),
    ReasoningMarkers("<reasoning>", "</reasoning>"),
    ReasoningMarkers("<thought>", "</thought>"),  # EXAONE Deep
    ReasoningMarkers("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningMarkers("<longcat_think>", "</longcat_think>"),  # LongCat
    ReasoningMarkers("[THINK]", "[/THINK]"),  # Magistral
    ReasoningMarkers("◁think▷", "◁/think▷"),  # Kimi-VL
    ReasoningMarkers("<|START_THINKING|>", "<|END_THINKING|>"),  # Command R7B, Command A
    ReasoningMarkers("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1
    ReasoningMarkers("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ReasoningMarkers("<|channel>thought", "<channel|>"),  # Gemma 4
    # gpt-oss: an answer is a message in another channel.
    ReasoningMarkers("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|end|><|start|>assistant"),
)

_TAG = re.compile(r"<\|?[^<>|\s]+\|?>|\[/?[A-Z]+\]|◁/?\w+▷")  # what may be one token in a marker


def markers_of(tokenizer: Any) -> ReasoningMarkers | None:
    """The markers that a tokenizer's model writes, or None where nothing shows any.

    They are, in this order, those that were set (`set_markers`), those of which the chat template writes or looks for the closing
    one, and those that are added tokens. InputError for a setting that is no pair.
    """
    if configured := tokenizer.init_kwargs.get(KEY):
        return _configured(configured, tokenizer.name_or_path)
    template, added = tokenizer.chat_template or "", tokenizer.get_added_vocab()
    text = template if isinstance(template, str) else "\n".join(template.values())  # several, by name
    tokens = [m for m in KNOWN if all(tag in added for tag in _TAG.findall(m.opening + m.closing))]
    in_template = [markers for markers in KNOWN if markers.closing in text]
    return next((m for m in in_template if m in tokens), next(iter([*in_template, *tokens]), None))


def _configured(value: Any, where: str) -> ReasoningMarkers:
    texts = value if isinstance(value, (list, tuple)) else ()
    if not (2 <= len(texts) <= 3 and all(isinstance(text, str) for text in texts) and all(texts[:2])):
        raise InputError(
            f'{where}: `{KEY}` of tokenizer_config.json is {str(value)[:80]!r}; fix: give two texts, as ["<think>", "</think>"]'
        )
    return ReasoningMarkers(*texts)


def set_markers(tokenizer: Any, markers: ReasoningMarkers) -> None:
    """Make markers the tokenizer's, to be saved with it: for a model that was trained to write them and has no chat template."""
    tokenizer.init_kwargs[KEY] = [markers.opening, markers.closing, markers.end]


def opens(prompt_text: str, markers: ReasoningMarkers) -> bool:
    """Whether a prompt ends with an open reasoning block, so that the completion begins inside it.

    Only its end counts: a question may speak of markers.
    """
    return prompt_text.rstrip().endswith(markers.opening)


def starts_reasoning(text: str, markers: ReasoningMarkers) -> bool | None:
    """Whether a completion opens with reasoning; None while it is too short to tell."""
    begun = text.lstrip()
    if begun.startswith(markers.opening):
        return True
    return None if markers.opening.startswith(begun) else False


def split_reasoning(text: str, markers: ReasoningMarkers | None, *, opened: bool) -> Split:
    """Tell a completion's reasoning from its answer.

    The reasoning is all that stands before the last closing marker, the answer all that follows it; line ends around either are
    taken off. A marker in Markdown code is a mention, unless no other closes what was opened.

    Args:
        text: What the model wrote, without its prompt.
        markers: Its markers; where it has none, all is answer.
        opened: Whether the prompt ends inside an open reasoning block (`opens`).
    """
    if markers is None:
        return Split(None, text, ended=True)
    begins = answer_begins(text, markers, opened=opened)
    if begins == 0:
        return Split(None, text, ended=True)
    reasoning = text if begins is None else text[: begins - len(markers.closing)].removesuffix(markers.end)
    reasoning = reasoning.lstrip().removeprefix(markers.opening) if _led(reasoning, markers) else reasoning
    return Split(reasoning.strip("\r\n"), "" if begins is None else text[begins:].lstrip("\r\n"), begins is not None)


def answer_begins(text: str, markers: ReasoningMarkers, *, opened: bool) -> int | None:
    """Where in a completion the answer begins: 0 where nothing is reasoning, None where reasoning was opened and never closed."""
    closings = list(_found(text, markers.closing))
    last = max((place for place, mentioned in closings if not mentioned), default=None)
    if last is None and closings and (opened or _led(text, markers)):
        # All are in code: reasoning that left its code open. The first closes it, and what follows is read afresh.
        first = closings[0][0]
        after = first + len(markers.closing)
        last = max(
            (after + at for at, mentioned in _found(text[after:], markers.closing) if not mentioned), default=first
        )
    if last is None:
        return None if opened or _opens_a_line(text, markers) else 0
    begins = last + len(markers.closing)
    return None if _led(text[begins:], markers) else begins


def _led(text: str, markers: ReasoningMarkers) -> bool:
    return text.lstrip().startswith(markers.opening)


def _opens_a_line(text: str, markers: ReasoningMarkers) -> bool:
    """Whether a block opens, which stands at the start of a line or a message; within a line, an opening marker is a mention."""
    for place, mentioned in _found(text, markers.opening):
        before = text[text.rfind("\n", 0, place) + 1 : place]
        if not mentioned and (not before.strip() or (markers.end and before.endswith(markers.end))):
            return True
    return False


def _found(text: str, marker: str) -> Iterator[tuple[int, bool]]:
    """Each place of a marker, and whether it is in code (a closed fence, or back ticks of one line) and so a mention.

    Code is looked for afresh after a marker that counts: reasoning may leave its own open.
    """
    literal = re.escape(marker)
    fence = rf"(?:^|(?<={literal}))[ \t]*(?:```|~~~)"
    pieces = re.compile(rf"(?P<marker>{literal})|(?P<fence>{fence})|(?P<tick>`)|\n", re.MULTILINE)
    fences = [piece.start() for piece in pieces.finditer(text) if piece.lastgroup == "fence"]
    in_fence, ticks = False, 0
    for piece in pieces.finditer(text):
        if piece.lastgroup == "fence":
            in_fence = not in_fence
        elif piece.lastgroup == "tick":
            ticks += 1
        elif piece.lastgroup is None:
            ticks = 0
        else:
            mentioned = in_fence and fences[-1] > piece.start()
            if ticks % 2 and not mentioned:
                line_end = text.find("\n", piece.end())
                mentioned = text.find("`", piece.end(), len(text) if line_end < 0 else line_end) >= 0
            if not mentioned:
                in_fence, ticks = False, 0
            yield piece.start(), mentioned
