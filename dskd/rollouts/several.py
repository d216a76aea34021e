"""Rollouts with several teachers: a sample is put into the tokens of each that teaches its example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dskd.data.rows import last_prompt_length
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.rollouts import Rollouts
from dskd.rollouts.sample_rows import ModelText, has_prompt, row_of_sample, whole_characters
from dskd.rollouts.sampler import Prompt, Sample, Sampler

ROWS = "rows"  # of an example: its row for each teacher, by name


@dataclass(frozen=True)
class TeacherText:
    """How a teacher reads text, and whether its vocabulary is the student's."""

    text: ModelText
    same_vocabulary: bool


class SeveralRollouts(Rollouts):
    """`Rollouts` of examples `{"rows": {teacher: row}, "example": number}`.

    A sample that one of an example's teachers cannot read takes no place at all: all of them learn from the same text.
    """

    def __init__(
        self,
        options: RolloutOptions,
        sampler: Sampler,
        student: ModelText,
        teachers: Mapping[str, TeacherText],
        *,
        seed: int,
        mix_in_offpolicy: bool = False,
    ) -> None:
        any_teacher = next(iter(teachers.values()))
        super().__init__(
            options,
            sampler,
            student,
            any_teacher.text,
            same_vocabulary=any_teacher.same_vocabulary,
            seed=seed,
            mix_in_offpolicy=mix_in_offpolicy,
        )
        self._teachers = dict(teachers)

    def _has_prompt(self, row: dict[str, Any]) -> bool:
        return all(has_prompt(own, self._student, self._teachers[name].text) for name, own in row[ROWS].items())

    def _prompt(self, row: dict[str, Any]) -> Prompt:
        own = next(iter(row[ROWS].values()))
        return Prompt(list(own["student_ids"][: last_prompt_length(own, "student")]), [])

    def _row(self, row: dict[str, Any], sample: Sample) -> tuple[str, dict[str, Any] | str]:
        text, rows, sample = "", {}, self._readable(row, sample)
        for name, own in row[ROWS].items():
            teacher = self._teachers[name]
            text, replaced = row_of_sample(
                own, sample, self._student, teacher.text, same_vocabulary=teacher.same_vocabulary
            )
            if isinstance(replaced, str):
                return text, replaced
            rows[name] = replaced
        return text, {ROWS: rows}

    def _readable(self, row: dict[str, Any], sample: Sample) -> Sample:
        """Without the beginning of a character at its end, where one of the teachers reads the text and not the tokens."""
        vocabulary = self._student.vocabulary
        as_tokens = all(self._teachers[name].same_vocabulary for name in row[ROWS])
        if as_tokens or sample.ended or not vocabulary.special_ids.isdisjoint(sample.ids):
            return sample
        return Sample(whole_characters(vocabulary, sample.ids), ended=False)
