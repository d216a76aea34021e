"""A tokenizer folder's vocabulary, read without loading the tokenizer: enough to tell at planning time whether two are the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object


@dataclass(frozen=True)
class FileVocabulary:
    """Token spellings to ids, added tokens included, and the ids of these."""

    tokens: dict[str, int]
    added: frozenset[int]

    @property
    def size(self) -> int:
        """One more than the greatest id."""
        return max(self.tokens.values(), default=-1) + 1


def vocabulary(folder: Path) -> FileVocabulary | None:
    """The vocabulary of a folder, or None where its files do not say it plainly. Raises InputError for broken files."""
    whole, parts, settings = (folder / name for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json"))
    if whole.is_file():
        status = whole.stat()
        return _of_tokenizer_json(whole, status.st_mtime_ns, status.st_size)
    if not parts.is_file():
        return None
    tokens, added = read_object(parts), {}
    if settings.is_file():
        content = read_object(settings)
        try:
            added = {token["content"]: int(index) for index, token in content.get("added_tokens_decoder", {}).items()}
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _broken(settings, error) from error
    try:
        return FileVocabulary({**_ids(tokens), **added}, frozenset(added.values()))
    except (TypeError, ValueError) as error:
        raise _broken(parts, error) from error


@lru_cache(maxsize=32)
def _of_tokenizer_json(path: Path, _changed: int, _size: int) -> FileVocabulary | None:
    content = read_object(path)
    try:
        tokens = content["model"].get("vocab")
        if isinstance(tokens, list):  # Unigram: [piece, score] in order
            tokens = {piece: index for index, (piece, _) in enumerate(tokens)}
        if not isinstance(tokens, dict):
            return None
        added = _ids({token["content"]: token["id"] for token in content.get("added_tokens", [])})
        return FileVocabulary({**_ids(tokens), **added}, frozenset(added.values()))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _broken(path, error) from error


def _ids(tokens: dict[str, Any]) -> dict[str, int]:
    wrong = next((spelling for spelling, k in tokens.items() if type(k) is not int), None)
    if wrong is not None:
        raise TypeError(f"the id of {wrong!r} is no whole number")
    return tokens


def _broken(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is not laid out as a tokenizer's file ({error!r}); save the tokenizer again")


def role_tokens(folder: Path) -> dict[str, tuple[str, int]]:
    """The tokens that begin and end a text, as a folder's files name them: {"eos": (spelling, id), "bos": …}.

    A role is left out where the files do not say: a tokenizer's class may have one of its own.
    """
    known, found = vocabulary(folder), {}
    for settings in (
        folder / "special_tokens_map.json",
        folder / "tokenizer_config.json",
    ):  # the second has the last word
        content = read_object(settings) if settings.is_file() else {}
        for role in ("eos", "bos"):
            token = content.get(f"{role}_token")
            spelling = token.get("content") if isinstance(token, dict) else token
            if known is not None and isinstance(spelling, str) and spelling in known.tokens:
                found[role] = spelling, known.tokens[spelling]
    return found


def same_vocabulary(first: Path, second: Path) -> bool | None:
    """Whether two tokenizers give every id to the same token; None where that cannot be read from their files."""
    if len({(folder / "tokenizer.json").is_file() for folder in (first, second)}) > 1:
        return None
    one, other = (vocabulary(folder) for folder in (first, second))
    return None if one is None or other is None else one.tokens == other.tokens
