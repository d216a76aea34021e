"""What the probe asks: texts that tell tokenizers apart, and plain ones that every trained model finds likely."""

from __future__ import annotations

from typing import Any

import numpy as np

from dskd.teachers.questions import Question
from dskd.tokenization.vocabulary import Vocabulary

# Prose and code, of which a trained model predicts more than chance does whatever it was trained for.
PLAIN = (
    "The river runs past the old mill and down to the sea. In the morning the boats go out with the tide, and in the evening "
    "they come back with what they have caught. Most of it is sold on the market on the same day.",
    "Question: There are 12 apples in a basket, and Anna takes 5 of them. How many apples are left?\nAnswer: 12 - 5 = 7. "
    "There are 7 apples left.",
    "def add(first, second):\n    return first + second\n\n\nfor number in range(10):\n\tprint(add(number, 1))  # one more\n",
)
# What tokenizers cut in different ways.
ODD = (
    "  two  spaces,   three;\ttab\r\nline\n\n\n    indented  ",
    "In 1969: 3.14159 x 12,345 = 38,782.9? Call +49 30 1234567 before 08:15, or 0x7F.",
    "Zażółć gęślą jaźń. Größe, Fußgänger, Ångström, İstanbul, naïve café; e\u0301 and é.",
    "東京は日本の首都です。北京是中国的首都。서울은 한국의 수도이다. Ελλάδα, Россия, ישראל, العربية, हिन्दी",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 ½ ™ – “quoted” … \u200b\u00a0\ufeff",
    "<s> </s> <unk> <pad> <|endoftext|> <|im_start|>user<|im_end|> <bos> <eos> <|end|> [INST] <think>",
    "Donaudampfschifffahrtsgesellschaftskapitän pneumonoultramicroscopicsilicovolcanoconiosis aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "https://example.org/path?query=1&other=%20#part don't CamelCaseWord snake_case_word \\frac{1}{2} I'LL",
)
TEXTS = (*PLAIN, *ODD)
# Beside them, so that the texts of the probe stand in batches of other shapes.
FILLING = tuple(f"{number}. " + text[:40] for number, text in enumerate(TEXTS))
LENGTH = 192  # tokens of a text at most: a model of any length has room for it, and an answer is small
_SAMPLE, _LINES = 480, 6  # tokens all over the vocabulary, and texts that they stand in


def vocabulary_texts(vocabulary: Vocabulary) -> list[str]:
    """Tokens from all over a vocabulary in a few texts: two vocabularies that differ in a part alone cut some of them otherwise."""
    ids = np.unique(np.linspace(0, vocabulary.size - 1, _SAMPLE).astype(int))
    words = [vocabulary.token_bytes[k].decode("utf-8", "ignore").strip() for k in ids.tolist()]
    return [" ".join(filter(None, part)) for part in np.array_split(np.array(words, dtype=object), _LINES)]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """A text alone, without what a tokenizer puts before or after one."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def question_of(tokenizer: Any, text: str, length: int, size: int) -> Question | None:
    """All positions of a text, cut to `length` tokens, as a model begins one; None where fewer than two are among its `size`."""
    ids = tokenizer(text)["input_ids"][:length]
    # A token without a row in the head (an image's) is never predicted, and a model may not have an embedding for it.
    beyond = next((position for position, k in enumerate(ids) if k >= size), len(ids))
    return Question(ids[:beyond], np.arange(beyond - 1)) if beyond > 1 else None
