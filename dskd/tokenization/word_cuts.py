"""Where a text can be cut so that its tokens are those of its parts, one after the other.

A prompt is tokenized twice: by itself, and with its response. Most of it has the same tokens in both, but which part is not told by the
tokens: a tokenizer looks ahead. Between two words of Latin letters (`the| green`) it does not, if it is of one of the kinds that
`WordCuts.of` knows; then what follows the last such place is all that has to be tokenized again.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SPACE_MARKER = "▁"
_PLACE = re.compile(r".*[A-Za-z]{2}(?= [A-Za-z])", re.DOTALL)
# A letter, or the last character of the piece of a byte, and a space after it.
_ACROSS = re.compile(rf"[A-Za-z>][ {_SPACE_MARKER}]")

# Alternatives of the patterns by which tokenizers split texts. A match of one of them holds no letter with a space after it, and none
# looks back, or ahead from a letter; so whatever a pattern of them matches ends before such a space or begins at it.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_WORDS = {
    r" ?\p{L}+",  # GPT-2
    rf"{_BEFORE}\p{{L}}+",  # GPT-4, Llama 3, Qwen 2, OLMo 2
    rf"{_BEFORE}[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}?",  # GPT-4o, gpt-oss
    rf"{_BEFORE}[{_UPPER}]+[{_LOWER}]*{_CONTRACTIONS}?",
}
_OTHERS = {
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTIONS, r"\p{N}", r" ?\p{N}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\n", r"\s*[\r\n]+", r"\s", r"\s+", r"\s+(?!\S)", r" +(?!\S)",
}  # fmt: skip
# A group, a set, an escaped character or any other; what is left between two of them is `|`.
_ALTERNATIVE = re.compile(r"(?:\((?:\\.|[^()\\])*\)|\[(?:\\.|[^\]\\])*\]|\\.|[^()\[\]\\|])+")


@dataclass(frozen=True)
class WordCuts:
    """The places between two words at which the texts of one tokenizer can be cut."""

    skipped: int  # characters of the second part that the tokenizer adds by itself

    @classmethod
    def of(cls, tokenizer: Any) -> WordCuts | None:
        """Those of a fast Hugging Face tokenizer; None for one of which nothing is known."""
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        normalizers = list(_steps(state["normalizer"], "normalizers"))
        splitters = list(_steps(state["pre_tokenizer"], "pretokenizers"))
        known = (
            all(map(_keeps_words, normalizers))
            and all(map(_is_known, splitters))
            and (any(map(_cuts, splitters)) or _never_joins_words(state["model"], normalizers + splitters))
            and state["model"]["type"] in {"BPE", "Unigram"}
            and not state["model"].get("dropout")
            and not any(map(_reaches_over, state["added_tokens"]))
            and _adds_ends_alone(tokenizer)
        )
        prepends = any(step["type"] == "Prepend" for step in normalizers)
        return cls(int(prepends)) if known else None

    def last(self, text: str) -> int | None:
        """The last place at which a text can be cut, the number of characters before it; None where there is none."""
        found = _PLACE.match(text)
        return found.end() if found else None

    def rest(self, text: str, place: int) -> str:
        """What has to be tokenized, without special tokens, for the tokens that follow a place."""
        return text[place + self.skipped :]


def _steps(state: dict[str, Any] | None, inner: str) -> Iterator[dict[str, Any]]:
    if state is None:
        return
    if state["type"] == "Sequence":
        for step in state[inner]:
            yield from _steps(step, inner)
    else:
        yield state


def _keeps_words(step: dict[str, Any]) -> bool:
    """Of a normaliser: whether two words become what each becomes alone."""
    if step["type"] == "Prepend":
        return step["prepend"] == _SPACE_MARKER
    return step["type"] in {"NFC", "NFKC"} or _marks_spaces(step)


def _marks_spaces(step: dict[str, Any]) -> bool:
    if step["type"] == "Metaspace":
        return step["replacement"] == _SPACE_MARKER
    return step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == _SPACE_MARKER


def _is_known(step: dict[str, Any]) -> bool:
    return _cuts(step) or step["type"] in {"ByteLevel", "Digits", "Metaspace"} or step.get("pattern") == {"String": " "}


def _cuts(step: dict[str, Any]) -> bool:
    """Of a splitter: whether it cuts between two words, whatever stands around them."""
    if step["type"] == "Split":
        every_match_is_a_piece = (step["behavior"], step["invert"]) in {("Isolated", False), ("Removed", True)}
        return every_match_is_a_piece and _keeps_to_words(step["pattern"].get("Regex", ""))
    if step["type"] == "ByteLevel":
        return step.get("use_regex", True)  # left out where it is true
    return step["type"] == "Metaspace" and step["split"]


def _keeps_to_words(pattern: str) -> bool:
    alternatives = _ALTERNATIVE.findall(pattern)
    known = "|".join(alternatives) == pattern and _WORDS.union(_OTHERS).issuperset(alternatives)
    return known and not _WORDS.isdisjoint(alternatives)


def _never_joins_words(model: dict[str, Any], steps: list[dict[str, Any]]) -> bool:
    """Whether no token of a BPE that gets whole texts holds a letter and a space after it, so that nothing is merged across."""
    vocabulary = model["vocab"]
    unknown = [c for c in _SPACE_MARKER + string.ascii_letters if c not in vocabulary]
    by_bytes = bool(model.get("byte_fallback")) and all(
        f"<0x{byte:02X}>" in vocabulary for c in unknown for byte in c.encode()
    )
    return (
        model["type"] == "BPE"
        and not (model["continuing_subword_prefix"] or model["end_of_word_suffix"])
        and any(map(_marks_spaces, steps))
        and (not unknown or by_bytes)  # else neighbours that are unknown may be fused
        and not any(map(_ACROSS.search, vocabulary))
    )


def _reaches_over(added: dict[str, Any]) -> bool:
    """Whether an added token is found across two words or takes the space after one."""
    text = added["content"]
    return bool(_ACROSS.search(text)) or (added["rstrip"] and text[-1:].isalpha())


def _adds_ends_alone(tokenizer: Any) -> bool:
    """Whether all that the tokenizer adds after a text is the end of sequence."""
    whole, plain = (tokenizer("so be it", add_special_tokens=special)["input_ids"] for special in (True, False))
    while whole and whole[-1] == tokenizer.eos_token_id:
        whole = whole[:-1]
    return bool(plain) and whole[-len(plain) :] == plain
