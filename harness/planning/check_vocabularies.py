"""What must be true of the tokenizers and heads of a pair before anything is trained, as far as their files say it.

A model's head may have more rows than its tokenizer has tokens (padding), and added tokens may lie beyond the head (no text-only
model can predict them). A token of the trained vocabulary without a row is a mistake, and so is a method for one vocabulary on a pair
with two. Nothing is loaded here; what files do not say is checked again when the models are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd.compatibility import check
from dskd.errors import InputError
from dskd.methods import Method
from dskd.tokenization.tokenizer_files import FileVocabulary, same_vocabulary, vocabulary
from harness.config.matrix import Cell
from harness.planning.expand import Expansion
from harness.smallworld.tokenizers import BYTE_LEVEL_SIZE, SENTENCEPIECE_SIZE
from harness.steps.base import ModelInput, TokenizerInput
from harness.steps.tokenizers import TokenizerFiles, WorldTokenizer


@dataclass(frozen=True)
class PairMember:
    """One model of a pair: its role and name, its tokenizer, and what is known of the sizes.

    Attributes:
        vocabulary: None where a step has yet to make the tokenizer, or its files do not say.
        rows: of its head.
    """

    role: str
    name: str
    tokenizer: TokenizerInput
    vocabulary: FileVocabulary | None
    rows: int | None

    @property
    def described(self) -> str:
        """`teacher 'gemma' (262,145 tokens, a head of 262,144 rows)`."""
        if self.vocabulary is not None:
            tokens = f"{self.vocabulary.size:,} tokens"
        elif isinstance(self.tokenizer, WorldTokenizer):
            sizes = {"bytelevel": BYTE_LEVEL_SIZE, "sentencepiece": SENTENCEPIECE_SIZE}
            tokens = f"{sizes[self.tokenizer.name]:,} tokens"
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


def check_vocabularies(expansion: Expansion, cells: Iterable[Cell]) -> None:
    """InputError for the first pair of these cells whose vocabularies do not suit its heads or its methods."""
    pairs: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        if cell.student is not None:
            pairs.setdefault((cell.teacher, cell.student), {}).setdefault(cell.method, cell)
    for (teacher, student), by_method in pairs.items():
        cell = next(iter(by_method.values()))
        check_pair(
            expansion.model(teacher),
            expansion.model(student),
            [expansion.method(name)[0] for name in by_method],
            lambda key, cell=cell: f"{expansion.source}: {expansion.place(cell, key)}",  # type: ignore[misc]
        )


def check_pair(
    teacher: ModelInput, student: ModelInput, methods: Sequence[Method], where: Callable[[str], str]
) -> None:
    """InputError where a pair's vocabularies do not suit its heads or one of its methods.

    Args:
        teacher: the teacher.
        student: the student.
        methods: those that the student is to be trained by.
        where: what an error begins with, by the key of its problem (`dskd.compatibility.Problem`).
    """
    strict = next((method for method in methods if method.requires.vocabulary == "same"), None)
    named = (("teacher", teacher), ("student", student))
    members = [_member(role, model, compared=strict is not None) for role, model in named]
    both = " and ".join(member.described for member in members)
    for member in members:
        if missing := member.tokens_without_row:
            raise InputError(
                f"{where('pair')}: {both}: {missing:,} tokens of {member.role} '{member.name}' have no row in its head; "
                "fix: use the tokenizer that belongs to the model, or resize its embeddings"
            )
    if strict is not None and not _same(*members):
        pair = both + _first_difference(*members)
        for problem in check(strict, same_vocabulary=False, pair=pair):
            if problem.key == "method":
                raise InputError(problem.text(where(problem.key)))


def _member(role: str, model: ModelInput, *, compared: bool) -> PairMember:
    tokenizer = model.tokenizer_input.vocabulary
    rows = model.text_config.get("vocab_size")
    rows = rows if isinstance(rows, int) else None
    folder = _folder(tokenizer)
    readable = folder is not None and (compared or rows is not None)
    return PairMember(
        role, model.name, tokenizer, vocabulary(folder) if readable and folder is not None else None, rows
    )


def _folder(tokenizer: TokenizerInput) -> Path | None:
    """The folder of a tokenizer that is here already."""
    here = isinstance(tokenizer, TokenizerFiles) and tokenizer.folder.is_dir()
    return tokenizer.folder if here else None  # type: ignore[attr-defined]


def _same(teacher: PairMember, student: PairMember) -> bool:
    if teacher.tokenizer.fingerprint.hash == student.tokenizer.fingerprint.hash:
        return True
    if teacher.tokenizer.made_by and student.tokenizer.made_by:
        return False  # folders that steps make differ as their descriptions do
    first, second = _folder(teacher.tokenizer), _folder(student.tokenizer)
    return first is None or second is None or same_vocabulary(first, second) is not False


def _first_difference(teacher: PairMember, student: PairMember) -> str:
    """Where two vocabularies of one size part: their sizes alone would look like one vocabulary."""
    if teacher.vocabulary is None or student.vocabulary is None or teacher.vocabulary.size != student.vocabulary.size:
        return ""
    first, second = ({k: token for token, k in v.tokens.items()} for v in (teacher.vocabulary, student.vocabulary))
    k = min(k for k in range(teacher.vocabulary.size) if first.get(k) != second.get(k))
    return f" (id {k} is {first.get(k)!r} for the one and {second.get(k)!r} for the other)"
