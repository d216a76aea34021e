"""A tokenizer folder's vocabulary, read without loading the tokenizer: enough to tell at planning time whether two are the same."""

from __future__ import annotations

import json
from pathlib import Path


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Token spellings to ids, added tokens included, or None where the files do not say it plainly."""
    whole = folder / "tokenizer.json"
    if whole.is_file():
        content = json.loads(whole.read_text(encoding="utf-8"))
        tokens = content["model"].get("vocab")
        if isinstance(tokens, list):  # Unigram: [piece, score] in order
            tokens = {piece: index for index, (piece, _) in enumerate(tokens)}
        if not isinstance(tokens, dict):
            return None
        return {**tokens, **{added["content"]: added["id"] for added in content.get("added_tokens", [])}}
    parts = folder / "vocab.json"
    if not parts.is_file():
        return None
    tokens = json.loads(parts.read_text(encoding="utf-8"))
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        added = json.loads(settings.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        tokens |= {token["content"]: int(index) for index, token in added.items()}
    return tokens


def same_vocabulary(first: Path, second: Path) -> bool | None:
    """Whether two tokenizers give every id to the same token; None where that cannot be read from their files.

    Files of different kinds are not compared: what one of them says in its files, another adds in its code.
    """
    if len({(folder / "tokenizer.json").is_file() for folder in (first, second)}) > 1:
        return None
    vocabularies = [vocabulary(folder) for folder in (first, second)]
    return None if None in vocabularies else vocabularies[0] == vocabularies[1]
