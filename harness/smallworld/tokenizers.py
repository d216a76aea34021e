"""Builds the tokenizers of the small world, two of them from its text, and saves them as folders for AutoTokenizer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BYTE_LEVEL_SIZE = 896
SENTENCEPIECE_SIZE = 800
BYTES_SIZE = 256 + 2
# SentencePiece's character coverage: rarer characters (emoji, CJK and the rarest accents) are written as bytes.
SENTENCEPIECE_CHARACTERS = 64
SPACE = "▁"

# As GPT-2 and Llama 3 split text, but one digit, one newline or one run of spaces at a time: no token spans the end of a prompt that
# ends in a newline, and arithmetic is done on digits.
_BYTE_LEVEL_PIECES = r"\n| ?\p{L}+|\p{N}| +(?!\S)| ?[^\s\p{L}\p{N}]+|\s"
# SentencePiece learns no merges across these: words with their space, digits, runs of spaces, punctuation. Newlines are not
# learned: they become the byte <0x0A>, as in Llama 2.
_SENTENCEPIECE_PIECES = r"▁?\p{L}+|\p{N}|▁+(?!\p{L})|[^▁\p{L}\p{N}]+"


def write_byte_level(folder: Path, text: Sequence[str]) -> None:
    """Build a byte-level BPE like GPT-2's: no start token, `<|endoftext|>` at the end."""
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(_BYTE_LEVEL_PIECES), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_SIZE,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer=trainer)
    _save(tokenizer, folder, eos_token="<|endoftext|>", pad_token="<|pad|>")


def write_bytes(folder: Path) -> None:
    """Build a tokenizer of single bytes: no merges, no start token, `<|endoftext|>` at the end.

    Bytes are written as GPT-2 writes them, so that whatever reads a byte-level BPE reads this one.
    """
    special = ["<|endoftext|>", "<|pad|>"]
    pieces = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    # The longest example has 290 bytes.
    _save(tokenizer, folder, model_max_length=512, eos_token=special[0], pad_token=special[1])


def write_sentencepiece(folder: Path, text: Sequence[str]) -> None:
    """Build a BPE like Llama 2's: `▁` for spaces and one before the text, byte fallback, `<s>` at the start, `</s>` at the end."""
    learned, merges = _learn_sentencepiece(text)
    special = ["<unk>", "<s>", "</s>"]
    pieces = special + [f"<0x{byte:02X}>" for byte in range(256)] + learned
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _save(tokenizer, folder, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")


def _learn_sentencepiece(text: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces (characters, then merged ones) and the merges learned from `text`."""
    lines = [SPACE + line.replace(" ", SPACE) for document in text for line in document.split("\n") if line]
    counts = Counter(character for line in lines for character in line)
    covered = set(sorted(counts, key=lambda character: (-counts[character], character))[:SENTENCEPIECE_CHARACTERS])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_SENTENCEPIECE_PIECES), behavior="isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=SENTENCEPIECE_SIZE - 3 - 256, initial_alphabet=sorted(covered), show_progress=False
    )
    # A rare character is removed and splits its word, as in SentencePiece, where no piece contains it.
    marked = ("".join(character if character in covered else "\n" for character in line) for line in lines)
    tokenizer.train_from_iterator([part for line in marked for part in line.split("\n")], trainer=trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), [tuple(merge) for merge in model["merges"]]


def _save(tokenizer: Tokenizer, folder: Path, *, model_max_length: int = 256, **special: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {"model_max_length": model_max_length, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
