"""What the vocabularies of two loaded models have in common, and whether a method can learn with that."""

from __future__ import annotations

from collections.abc import Callable

from dskd.compatibility import Problem, RoleDifference, require
from dskd.tokenization.vocabulary import SharedVocabulary, share_vocabulary
from dskd.training.loaded_model import LoadedModel

Rules = Callable[..., list[Problem]]


def shared_vocabulary(teacher: LoadedModel, student: LoadedModel, rules: Rules) -> SharedVocabulary:
    """What the vocabularies have in common. Raises InputError where that does not suit the method."""
    shared = share_vocabulary(teacher.vocabulary, student.vocabulary)
    both = sum(teacher.vocabulary.tokens[k] is not None for k in shared.teacher_ids.tolist())
    roles = _role_difference(teacher, student)
    require(rules(same_vocabulary=shared.same, shared_tokens=both, roles=roles, pair=f"{teacher} and {student}"))
    return shared


def _role_difference(teacher: LoadedModel, student: LoadedModel) -> RoleDifference | None:
    """The tokens by which two models with one vocabulary end or begin a text, where they differ."""
    first, second = teacher.vocabulary, student.vocabulary
    if first.tokens != second.tokens or first.special_token_text != second.special_token_text:
        return None
    return RoleDifference.between(
        *(
            {role: (tokenizer.convert_ids_to_tokens(k), k) for role, k in vocabulary.special_roles.items()}
            for tokenizer, vocabulary in ((teacher.tokenizer, first), (student.tokenizer, second))
        )
    )
