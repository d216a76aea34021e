"""Tokens as bytes, and what two vocabularies share.

Tokenizers spell the same text differently ("Ċ", "<0x0A>" and "\\n" are one byte), so a token is the bytes that it stands for. How
a tokenizer spells bytes is read from its decoder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dskd.errors import InputError
from dskd.tokenization.reasoning import markers_of

if TYPE_CHECKING:
    import numpy as np

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_SPACE_MARKER = "▁"


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-in of each byte in byte-level BPE (GPT-2): printable Latin-1 for itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + k): byte for k, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
_SPELLING_OF = {byte: character for character, byte in _BYTE_OF.items()}


def _decoder_steps(tokenizer: Any) -> list[dict[str, Any]]:
    decoder = tokenizer.backend_tokenizer.decoder
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    return state["decoders"] if state["type"] == "Sequence" else [state]


def speller(tokenizer: Any) -> Callable[[bytes], str | None]:
    """How a fast tokenizer's model writes bytes; None for bytes that are no whole characters, where it is not byte-level."""
    if any(step["type"] == "ByteLevel" for step in _decoder_steps(tokenizer)):
        return lambda data: "".join(_SPELLING_OF[byte] for byte in data)

    def marked(data: bytes) -> str | None:
        try:
            return data.decode().replace(" ", _SPACE_MARKER)
        except UnicodeDecodeError:
            return None

    return marked


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


def require_offsets(tokenizer: Any) -> None:
    """Raise InputError for a tokenizer that cannot say which characters a token covers."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{_name(tokenizer)}: this tokenizer gives no offsets, which exact token alignment needs; "
            "fix: save it as a fast tokenizer (a folder with tokenizer.json)"
        )


def _markers_of_reasoning(tokenizer: Any) -> set[int]:
    """Tokens that open and close reasoning: a part of the text, whether a tokenizer calls them special or not."""
    markers = markers_of(tokenizer)
    found = (tokenizer.added_tokens_encoder.get(m) for m in (markers.opening, markers.closing)) if markers else ()
    return {k for k in found if k is not None}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one tokenizer as bytes.

    Attributes:
        tokens: The bytes of each id; None for an id without text of its own (gaps, special tokens).
        size: The number of real ids. A model's head may have more rows (padding), which never count.
    """

    tokens: tuple[bytes | None, ...]
    special_ids: frozenset[int]
    special_token_text: dict[int, bytes]  # special tokens as they are written in a text
    byte_pieces: frozenset[int]  # ids that SentencePiece keeps for single bytes it has no piece for
    special_roles: dict[str, int] = field(default_factory=dict)  # "eos", "bos" -> id
    added_ids: frozenset[int] = frozenset()  # put on top of the trained vocabulary, special or not

    @property
    def size(self) -> int:
        return len(self.tokens)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each id adds to a text, special tokens as they are written; empty for gaps."""
        return tuple(
            token if token is not None else self.special_token_text.get(k, b"") for k, token in enumerate(self.tokens)
        )

    @cached_property
    def token_sizes(self) -> np.ndarray:
        """The number of bytes that each id adds to a text, int64 [size]."""
        import numpy as np  # not at the top: planning imports this module, and needs no arrays

        return np.fromiter(map(len, self.token_bytes), dtype=np.int64, count=self.size)

    @cached_property
    def id_of(self) -> dict[bytes, int]:
        """Bytes to the one id that stands for them: a piece before a byte piece, then the lowest id. No special tokens."""
        ids: dict[bytes, int] = {}
        for k in sorted(range(self.size), key=lambda k: (k in self.byte_pieces, k)):
            token = self.tokens[k]
            if token:
                ids.setdefault(token, k)
        return ids

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> Vocabulary:
        """Read a fast Hugging Face tokenizer: byte-level BPE or SentencePiece. Raises InputError for others."""
        require_offsets(tokenizer)
        steps = _decoder_steps(tokenizer)
        kinds = {step["type"] for step in steps}
        byte_level = "ByteLevel" in kinds
        marked = "Metaspace" in kinds or any(
            step["type"] == "Replace" and step.get("pattern", {}).get("String") == _SPACE_MARKER for step in steps
        )
        if not byte_level and not marked:
            raise InputError(
                f"{_name(tokenizer)}: a decoder of {sorted(kinds) or 'no steps'} is neither byte-level nor SentencePiece style, "
                "so its tokens cannot be read as bytes; fix: use a byte-level BPE or SentencePiece tokenizer"
            )
        fallback = "ByteFallback" in kinds
        added = tokenizer.added_tokens_decoder
        special = {k for k, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        special -= _markers_of_reasoning(tokenizer)
        vocabulary = tokenizer.get_vocab()
        tokens: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
        byte_pieces = set()
        for spelling, k in vocabulary.items():
            if k in special:
                continue
            if k in added:
                tokens[k] = spelling.encode()
            elif byte_level:
                known = all(character in _BYTE_OF for character in spelling)
                tokens[k] = bytes(_BYTE_OF[character] for character in spelling) if known else spelling.encode()
            elif fallback and (piece := _BYTE_PIECE.match(spelling)):
                tokens[k] = bytes([int(piece[1], 16)])
                byte_pieces.add(k)
            else:
                tokens[k] = spelling.replace(_SPACE_MARKER, " ").encode()
        roles = {"eos": tokenizer.eos_token_id, "bos": tokenizer.bos_token_id}
        roles = {role: k for role, k in roles.items() if k is not None}
        literal = {k: spelling.encode() for spelling, k in vocabulary.items() if k in special}
        return cls(tuple(tokens), frozenset(special), literal, frozenset(byte_pieces), roles, frozenset(added))

    def truncate_to_head(self, rows: int, name: str) -> Vocabulary:
        """The tokens that a head of `rows` rows has, all but added ones (Gemma 3's image token); else InputError. `name`: the model's."""
        if self.size <= rows:
            return self
        if missing := [k for k in range(rows, self.size) if self.tokens[k] is not None and k not in self.added_ids]:
            raise InputError(
                f"{name}: the head has {rows} rows but the tokenizer {self.size} tokens, {len(missing)} of them no added ones; "
                "fix: use the tokenizer that belongs to the model, or resize its embeddings"
            )
        return replace(
            self,
            tokens=self.tokens[:rows],
            special_token_text={k: spelling for k, spelling in self.special_token_text.items() if k < rows},
            special_ids=frozenset(k for k in self.special_ids if k < rows),
            added_ids=frozenset(k for k in self.added_ids if k < rows),
            special_roles={role: k for role, k in self.special_roles.items() if k < rows},
        )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the tokens and roles, so that data can name the vocabulary that it was prepared with."""
        digest = hashlib.sha256()
        for token in self.token_bytes:
            digest.update(len(token).to_bytes(4, "little") + token)
        digest.update(json.dumps([sorted(self.special_ids), sorted(self.special_roles.items())]).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class SharedVocabulary:
    """What a teacher and a student have in common: one pair of ids for each byte string, and for the end of sequence."""

    teacher_ids: np.ndarray  # int64 [shared]
    student_ids: np.ndarray  # int64 [shared]
    student_id_of: (
        np.ndarray
    )  # int64 [teacher size], the student's id for what a teacher id stands for, -1 where it has none
    same: bool
    teacher_tokens: tuple[bytes | None, ...] | None = None  # as in `Vocabulary.tokens`; None where they are not known
    student_tokens: tuple[bytes | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.teacher_ids)


def share_vocabulary(teacher: Vocabulary, student: Vocabulary) -> SharedVocabulary:
    """Pair the tokens of two vocabularies by their bytes, special tokens by their role (docs/method.md; arXiv 2504.11426).

    Args:
        teacher: The teacher's vocabulary.
        student: The student's vocabulary.

    Returns:
        Pairs of ids. The end of sequence is last, so that a token with two roles (GPT-2's begin and end) is paired as the end.
    """
    import numpy as np

    student_id_of = np.full(teacher.size, -1, dtype=np.int64)
    same_tokens = teacher.tokens == student.tokens and teacher.special_token_text == student.special_token_text
    if same_tokens and teacher.special_roles == student.special_roles:  # logits can be compared id by id
        real = [k for k in range(teacher.size) if teacher.tokens[k] is not None or k in teacher.special_ids]
        ids = np.array(real, dtype=np.int64)
        student_id_of[ids] = ids
        return SharedVocabulary(ids, ids, student_id_of, True, teacher.tokens, student.tokens)
    pairs = {teacher.id_of[token]: k for token, k in student.id_of.items() if token in teacher.id_of}
    for k, token in enumerate(teacher.tokens):
        if token and token in student.id_of:
            student_id_of[k] = student.id_of[token]
    for role in ("bos", "eos"):
        if role in teacher.special_roles and role in student.special_roles:
            pairs[teacher.special_roles[role]] = student.special_roles[role]
            student_id_of[teacher.special_roles[role]] = student.special_roles[role]
    # A student token that serves as both begin and end would stand twice on the student's side: the end keeps it.
    begin, end = (teacher.special_roles.get(role) for role in ("bos", "eos"))
    if begin is not None and end is not None and begin != end and pairs.get(begin) == pairs.get(end):
        pairs.pop(begin, None)
        student_id_of[begin] = -1
    teacher_ids = np.array(sorted(pairs), dtype=np.int64)
    student_ids = np.array([pairs[k] for k in teacher_ids.tolist()], dtype=np.int64)
    return SharedVocabulary(teacher_ids, student_ids, student_id_of, False, teacher.tokens, student.tokens)
