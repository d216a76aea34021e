"""Fine-tuning on the teacher's text by its two names: `seqkd` with options of its own, and `sft` with `text: teacher`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dskd.errors import InputError
from dskd.text import TeacherText, Text

UNTAUGHT, TAUGHT = "sft", "seqkd"  # fine-tuning on the data's text, and on the teacher's
# Options of `seqkd`, and what they are called in `text`.
_NAMES = {"max_new_tokens": "max_new_tokens", "answer_temperature": "temperature"}


def named_method(method: str, text: Text | None) -> str:
    """The method by which a student is trained: `seqkd` for fine-tuning on nothing but the teacher's text."""
    return TAUGHT if method == UNTAUGHT and text is not None and text.only == "teacher" else method


def taught_text(text: Text | None, options: Mapping[str, Any]) -> Text:
    """The text of `seqkd`.

    Args:
        text: What `text` says, if anything.
        options: Of the method.

    Raises:
        InputError: `OPTION: …`, where both say it and differ.
    """
    said = {} if text is None or text.teacher is None else text.teacher.model_dump(exclude_unset=True)
    given = {_NAMES[key]: value for key, value in options.items() if key in _NAMES}
    for key, name in _NAMES.items():
        if key in options and name in said and said[name] != options[key]:
            raise InputError(
                f"{key}: is {options[key]}, but `text` says {name}: {said[name]}; fix: leave one of the two out"
            )
    return Text.model_validate({"teacher": TeacherText.model_validate({**given, **said, "share": 1.0})})


def options_of_taught(text: Text, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `seqkd` that say the same as its text. What neither of the two says is left to the method's defaults."""
    assert text.teacher is not None
    said = {key: getattr(text.teacher, name) for key, name in _NAMES.items() if name in text.teacher.model_fields_set}
    if text.teacher.samples > 1:
        said["answer_temperature"] = text.teacher.sampled_at
    return {**options, **said}
