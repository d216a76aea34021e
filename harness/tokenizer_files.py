"""A tokenizer folder's vocabulary, read without loading the tokenizer: enough to tell at planning time whether two are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.jsonl import read_object


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Token spellings to ids, added tokens included, or None where the files do not say it plainly.

    InputError for a file that is not JSON or not laid out as a tokenizer's.
    """
    whole, parts, settings = (folder / name for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json"))
    if whole.is_file():
        content = read_object(whole)
        try:
            return _of_tokenizer_json(content)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _broken(whole, error) from error
    if not parts.is_file():
        return None
    tokens = read_object(parts)
    if settings.is_file():
        content = read_object(settings)
        try:
            added = content.get("added_tokens_decoder", {})
            tokens |= {token["content"]: int(index) for index, token in added.items()}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _broken(settings, error) from error
    return tokens


def _of_tokenizer_json(content: dict[str, Any]) -> dict[str, int] | None:
    tokens = content["model"].get("vocab")
    if isinstance(tokens, list):  # Unigram: [piece, score] in order
        tokens = {piece: index for index, (piece, _) in enumerate(tokens)}
    if not isinstance(tokens, dict):
        return None
    return {**tokens, **{added["content"]: added["id"] for added in content.get("added_tokens", [])}}


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is not laid out as a tokenizer's file ({error!r}); save the tokenizer again")


def same_vocabulary(first: Path, second: Path) -> bool | None:
    """Whether two tokenizers give every id to the same token; None where that cannot be read from their files.

    Files of different kinds are not compared: what one of them says in its files, another adds in its code.
    """
    if len({(folder / "tokenizer.json").is_file() for folder in (first, second)}) > 1:
        return None
    vocabularies = [vocabulary(folder) for folder in (first, second)]
    return None if None in vocabularies else vocabularies[0] == vocabularies[1]
