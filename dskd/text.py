"""Who writes the text that a student is trained on: the data, the teacher, the student itself, or several of them. Nothing imports torch.

    text: teacher
    text: {teacher: {samples: 4, keep: shortest_right}}
    text: {data: 0.5, student: 0.5}

The prompts are always those of the data. `docs/text.md` says what becomes of each kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from dskd.errors import InputError
from dskd.options import Options
from dskd.rollouts.options import RolloutOptions

Author = Literal["data", "teacher", "student"]
Keep = Literal["all", "right", "shortest_right"]
AUTHORS: tuple[Author, ...] = get_args(Author)
_FIX = f"write one of {', '.join(AUTHORS)}, or {{data: 0.5, student: 0.5}}"


class TeacherText(Options):
    """How the teacher answers the prompts, and which of its responses are trained on."""

    share: float | None = Field(None, gt=0.0, le=1.0, description="of the examples; by default what the others leave")
    samples: int = Field(1, ge=1, description="responses to each prompt")
    temperature: float | None = Field(
        None, ge=0.0, description="0: the most probable token each time; by default 0 for one sample and 1 for several"
    )
    max_new_tokens: int = Field(256, gt=0, description="longest response; one that has no end by then is left out")
    keep: Keep = Field(
        "all",
        description="all responses with an end; those that a task's scorer finds right; of these the shortest alone",
    )
    task: str | None = Field(
        None, description="whose scorer says what is right; the small world's rows name theirs in the column `task`"
    )

    @property
    def sampled_at(self) -> float:
        """The temperature, with its default filled in."""
        return (1.0 if self.samples > 1 else 0.0) if self.temperature is None else self.temperature

    @model_validator(mode="after")
    def _goes_together(self) -> TeacherText:
        if self.samples > 1 and self.sampled_at == 0:
            raise ValueError(
                f"{self.samples} samples at temperature 0 would be the same; fix: give a temperature, or one sample"
            )
        if self.task is not None and self.keep == "all":
            raise ValueError(
                "`task` means nothing with keep: all; fix: keep: right or shortest_right, or leave `task` out"
            )
        return self


class StudentText(RolloutOptions):
    """How the student writes: options of rollouts, which go before those of `training.rollouts`."""

    share: float | None = Field(  # type: ignore[assignment]  # the share of a part may be what the others leave
        None, gt=0.0, le=1.0, description="of the examples; by default what the others leave"
    )

    @property
    def given(self) -> dict[str, Any]:
        """The options of rollouts that were given."""
        return self.model_dump(exclude_unset=True, exclude={"share"})


def _as_part(value: Any) -> Any:
    """`0.5` is `{share: 0.5}`; a variable of a matrix gives it as text."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"share": value} if number else value


class Text(Options):
    """Shares of the examples by who writes their responses. `data: 0` and parts that are None have no share."""

    data: float = Field(0.0, ge=0.0, le=1.0, description="share of the examples that keep the data's response")
    teacher: Annotated[TeacherText | None, BeforeValidator(_as_part)] = None
    student: Annotated[StudentText | None, BeforeValidator(_as_part)] = None

    @model_validator(mode="before")
    @classmethod
    def _one_author(cls, given: Any) -> Any:
        """`teacher` is `{teacher: 1}`."""
        if isinstance(given, str):
            if given not in AUTHORS:
                raise ValueError(f"no text {given!r}; fix: {_FIX}")
            return {given: 1.0}
        if isinstance(given, Mapping) and not given:
            raise ValueError(f"names nobody who writes; fix: {_FIX}")
        if not isinstance(given, Mapping):
            raise ValueError(f"is neither a name nor a mixture; fix: {_FIX}")
        return given

    @model_validator(mode="after")
    def _sums_to_one(self) -> Text:
        parts = self._parts
        left_open = [name for name, share in parts.items() if share is None]
        known = sum(share for share in parts.values() if share is not None)
        if len(left_open) > 1:
            raise ValueError(f"{' and '.join(left_open)} have no share; fix: give the share of all but one")
        if left_open and known >= 1:
            raise ValueError(f"leaves nothing for {left_open[0]}; fix: lower the shares of the others")
        if not left_open and not math.isclose(known, 1.0, abs_tol=1e-6):
            raise ValueError(f"the shares sum to {known:g}; fix: make them sum to 1")
        return self

    @property
    def _parts(self) -> dict[Author, float | None]:
        parts: dict[Author, float | None] = {"data": self.data} if self.data else {}
        if self.teacher is not None:
            parts["teacher"] = self.teacher.share
        if self.student is not None:
            parts["student"] = self.student.share
        return parts

    @property
    def shares(self) -> dict[Author, float]:
        """The share of each that writes, in the order of `AUTHORS`."""
        parts = self._parts
        rest = 1.0 - sum(share for share in parts.values() if share is not None)
        return {name: round(rest, 9) if share is None else share for name, share in parts.items()}

    def share(self, author: Author) -> float:
        """The share of one, 0 where it writes nothing."""
        return self.shares.get(author, 0.0)

    @property
    def teacher_part(self) -> float:
        """Of the text that is there before the training, the share that the teacher writes."""
        data, teacher = self.share("data"), self.share("teacher")
        return teacher / (data + teacher) if teacher else 0.0

    @property
    def only(self) -> Author | None:
        """Who writes everything; None for a mixture."""
        shares = self.shares
        return next(iter(shares)) if len(shares) == 1 else None

    @property
    def label(self) -> str:
        """Its name in those of methods: `teacher`, `teacher-4-right`, `data-0.5-student-0.5`."""
        words: list[str] = []
        for name, share in self.shares.items():
            words += [name] if self.only else [name, f"{share:g}"]
            if name == "teacher" and self.teacher is not None:
                words += [str(self.teacher.samples)] if self.teacher.samples > 1 else []
                words += [self.teacher.keep] if self.teacher.keep != "all" else []
            words += _other_settings(getattr(self, name))
        return "-".join(words)

    def rollouts(self, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Options of rollouts that give the student its share.

        Args:
            given: What is said of rollouts elsewhere, of which its own options go before.

        Returns:
            None where the student writes nothing.

        Raises:
            InputError: `rollouts.share: …`, for a share that is another one.
        """
        own = dict(given or {})
        share = self.share("student")
        if "share" in own and float(own["share"]) != share:
            raise InputError(
                f"rollouts.share: is {own['share']}, but `text` gives the student {share:g}; fix: leave one of the two out"
            )
        if self.student is None:
            return None
        return {**own, **self.student.given, "share": share}


def _other_settings(part: Any) -> list[str]:
    """What else is said of how somebody writes, as words of a name."""
    given = {} if not isinstance(part, Options) else part.model_dump(exclude_unset=True)
    told = {key: value for key, value in given.items() if key not in {"share", "samples", "keep"}}
    return [
        word for key, value in told.items() for word in (key, re.sub("[^A-Za-z0-9.]+", "_", f"{value}").strip("._"))
    ]


def names_of(authors: Sequence[Author]) -> str:
    """`the data's, the teacher's or the student's`."""
    owned = [f"the {author}'s" for author in authors]
    return owned[0] if len(owned) == 1 else f"{', '.join(owned[:-1])} or {owned[-1]}"
