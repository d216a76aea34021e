"""What must hold between the tokenizers and heads of a pair before anything is trained, as far as their files say it.

A model's head may have more rows than its tokenizer has tokens (padding), and added tokens may lie beyond the head (no text-only
model can predict them), but a token of the trained vocabulary without a row is a mistake, and so is a method for one vocabulary on
a pair with two. Nothing is loaded here; what files do not say is checked again when the models are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.tokenizer_files import FileVocabulary, same_vocabulary, vocabulary
from harness.planning.artifacts import Artifact, Artifacts


@dataclass(frozen=True)
class Side:
    """One model of a pair: its name, its tokenizer, and what is known of the sizes."""

    role: str
    name: str
    source: Artifact
    vocabulary: FileVocabulary | None  # None where a job has yet to make the tokenizer, or its files do not say
    rows: int | None  # of its head

    @property
    def described(self) -> str:
        """`teacher 'gemma' (262,145 tokens, a head of 262,144 rows)`."""
        if self.vocabulary is not None:
            tokens = f"{self.vocabulary.size:,} tokens"
        elif "small_world" in self.source.parts:
            tokens = f"{_small_world_size(self.source.parts['name']):,} tokens"
        else:
            tokens = "tokens not counted"
        head = f", a head of {self.rows:,} rows" if self.rows is not None else ""
        return f"{self.role} '{self.name}' ({tokens}{head})"

    @property
    def tokens_without_row(self) -> int:
        """How many tokens of the trained vocabulary lie beyond the head."""
        if self.vocabulary is None or self.rows is None:
            return 0
        beyond = set(self.vocabulary.tokens.values()) - self.vocabulary.added
        return sum(k >= self.rows for k in beyond)


def check_pair(
    artifacts: Artifacts, teacher: str, student: str, *, strict: Sequence[str], any_two: Sequence[str], where: str
) -> None:
    """InputError, which begins with the matrix and `where`, unless the pair's vocabularies suit its heads and its methods.

    `strict` are its methods for one vocabulary, `any_two` those of all methods that take any.
    """
    named = (("teacher", teacher), ("student", student))
    sides = [_side(artifacts, role, name, compared=bool(strict)) for role, name in named]
    both = " and ".join(side.described for side in sides)
    for side in sides:
        if missing := side.tokens_without_row:
            raise InputError(
                f"{artifacts.source}: {where}: {both}: {missing:,} tokens of {side.role} '{side.name}' have no row in its head; "
                "use the tokenizer that belongs to the model, or resize its embeddings"
            )
    if strict and not _same(*sides):
        raise InputError(
            f"{artifacts.source}: {where}.methods: {strict[0]} needs one vocabulary, but {both} have different ones"
            f"{_first_difference(*sides)}; use a method for any two: {', '.join(any_two)}"
        )


def _side(artifacts: Artifacts, role: str, name: str, *, compared: bool) -> Side:
    source = artifacts.vocabulary(name)
    rows = _rows(artifacts.text_config(name))
    readable = source.path.is_dir() and (compared or rows is not None)
    return Side(role, name, source, vocabulary(source.path) if readable else None, rows)


def _small_world_size(name: str) -> int:
    from harness.smallworld.tokenizers import BYTE_LEVEL_SIZE, SENTENCEPIECE_SIZE

    return {"bytelevel": BYTE_LEVEL_SIZE, "sentencepiece": SENTENCEPIECE_SIZE}[name]


def _rows(config: Mapping[str, Any]) -> int | None:
    rows = config.get("vocab_size")
    return rows if isinstance(rows, int) else None


def _same(teacher: Side, student: Side) -> bool:
    if teacher.source.parts == student.source.parts:
        return True
    if teacher.source.needs and student.source.needs:
        return False  # folders that jobs make differ as their descriptions do
    folders = teacher.source.path, student.source.path
    return not all(folder.is_dir() for folder in folders) or same_vocabulary(*folders) is not False


def _first_difference(teacher: Side, student: Side) -> str:
    """Where two vocabularies of one size part: their sizes alone would look like one vocabulary."""
    if teacher.vocabulary is None or student.vocabulary is None or teacher.vocabulary.size != student.vocabulary.size:
        return ""
    first, second = (
        {k: token for token, k in side.vocabulary.tokens.items()} for side in (teacher, student) if side.vocabulary
    )
    k = min(k for k in range(teacher.vocabulary.size) if first.get(k) != second.get(k))
    return f" (id {k} is {first.get(k)!r} for the one and {second.get(k)!r} for the other)"
