"""Small real tokenizers of the two kinds, trained on a few lines when a test asks for them."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "The quick brown fox jumps over the lazy dog.",
    "def add(first, second):\n    return first + second\n",
    "Łódź and naïve cafés; the garden is green and the river is long.",
    "Question: How many apples are left?\nAnswer: 12 apples are left.\n#### 12",
    "東京 is a city. The answer is 42, and the river is green.",
] * 4


def byte_level(vocabulary: int = 400, *, end: str = "<|end|>") -> Any:
    """GPT-2's kind: bytes, no normaliser, leading space inside the token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[end], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)


def sentencepiece(vocabulary: int = 500, *, normalise: bool = False) -> Any:
    """Llama 2's kind: ▁ for spaces, an added first space, single bytes where there is no piece, <s> before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *steps] if normalise else steps)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=60,
        max_token_length=8,
        show_progress=False,
    )
    split = [word if k == 0 else " " + word for line in LINES for k, word in enumerate(line.replace("\n", " ").split())]
    tokenizer.train_from_iterator(split, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    # The trainer makes byte pieces special so that it keeps them; in a real tokenizer they are ordinary pieces.
    state = wrapped.backend_tokenizer.to_str()
    import json

    loaded = json.loads(state)
    loaded["added_tokens"] = [token for token in loaded["added_tokens"] if token["content"] in special]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(loaded)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
    )
