"""A file of claims: where each was published, and what it says of methods, pairs and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, field_validator, model_validator

from dskd.errors import InputError
from harness.config.explain import dotted, explain, shortened
from harness.config.strict import Name, Strict, VariantName
from harness.config.strict_yaml import read_mapping
from harness.config.tuning import TUNED
from harness.suggestions import did_you_mean

FOLDER = Path(__file__).parent
DEFAULT = "referee"

Kind = Literal["matched", "mismatched"]
# A sentence or a name, as tables, terminals and pages can show it.
_Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")
]


def _quoted(value: Any) -> Any:
    if isinstance(value, float | int):
        raise ValueError("is a number, which loses zeros; fix: put it in quotes")
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """`matched`, `mismatched`, `all`, or pairs."""
    if isinstance(value, str) and value in _KINDS_OF_PAIRS:
        return value
    pairs = _several(value)
    if not isinstance(pairs, list) or not pairs:
        raise ValueError(f"names no pair, but {shortened(value)}; fix: {_PAIRS_FIX}")
    for pair in pairs:
        names = pair.split("/") if isinstance(pair, str) else []
        if len(names) != 2 or not all(names):
            raise ValueError(f"{shortened(pair)} is no pair; fix: {_PAIRS_FIX}")
    return pairs


def _tasks(value: Any) -> Any:
    """`all`, or tasks."""
    if value == "all":
        return value
    tasks = _several(value)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(name, str) and name for name in tasks):
        raise ValueError(f"names no task, but {shortened(value)}; fix: write [TASK, …] or all")
    return tasks


_KINDS_OF_PAIRS = {"matched": "one vocabulary", "mismatched": "two vocabularies", "all": "all pairs"}
_PAIRS_FIX = "write matched, mismatched, all, or [TEACHER/STUDENT, …]"
ArxivId = Annotated[str, BeforeValidator(_quoted), StringConstraints(pattern=r"^\d{4}\.\d{4,5}$")]


class Source(Strict):
    """Where a claim was published.

    Attributes:
        says: The claim in a sentence.
        arxiv: The paper.
        work: What it was published in, where there is no paper.
    """

    says: _Line
    arxiv: ArxivId | None = None
    work: _Line | None = None

    @model_validator(mode="after")
    def _named(self) -> Source:
        if self.arxiv is None and self.work is None:
            raise ValueError("gives no source; fix: add arxiv, or work for what is no paper")
        return self

    @property
    def cited(self) -> str:
        """The source as a reader looks for it."""
        return ", ".join([*([f"arXiv {self.arxiv}"] if self.arxiv else []), *([self.work] if self.work else [])])


class Claim(Strict):
    """That one method is better than others, or as good as they are.

    Attributes:
        better: The method, by its name in the pairs of a matrix.
        than: The methods that it is compared with. The claim is about each of them.
        pairs: Those with one vocabulary, with two, all, or a list of TEACHER/STUDENT.
        data: The training sets of the students, as their names end (`small-student+clean`); `default` is that of the matrix.
        tasks: Over which the difference is averaged.
        tuned: Whether the settings are those that a tuning chose.
        direction: `better`, or `as-good`: equal up to the margin.
        margin: In points: by how much it is better, or how far apart equal ones may be.
    """

    source: Source
    better: VariantName
    than: Annotated[list[VariantName], BeforeValidator(_several)] = Field(min_length=1)
    pairs: Annotated[Literal["matched", "mismatched", "all"] | list[str], BeforeValidator(_pairs)] = "all"
    data: Annotated[list[Name], BeforeValidator(_several)] | None = Field(default=None, min_length=1)
    tasks: Annotated[Literal["all"] | list[_Line], BeforeValidator(_tasks)] = "all"
    tuned: bool = True
    direction: Literal["better", "as-good"] = "better"
    margin: float = Field(default=0.0, ge=0, le=100)

    @field_validator("than", "pairs", "tasks", "data")
    @classmethod
    def _once(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and (twice := next((name for name in value if value.count(name) > 1), None)):
            raise ValueError(f"'{twice}' is given twice; fix: give each once")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Claim:
        if self.better in self.than:
            raise ValueError(f"'{self.better}' is compared with itself; fix: name another method in than")
        for name in (self.better, *self.than):
            if name.endswith(f"+{TUNED}"):
                raise ValueError(f"'{name}': the key tuned says that; fix: write {name.removesuffix(f'+{TUNED}')}")
        if self.direction == "as-good" and self.margin == 0:
            raise ValueError("nothing is equal within a margin of 0; fix: give a margin in points")
        return self

    def recorded(self, method: str) -> str:
        """The name of a method in records."""
        return f"{method}+{TUNED}" if self.tuned else method

    @property
    def statement(self) -> str:
        """The claim in words."""
        others = ", ".join(self.than)
        by = f" by more than {self.margin:g} points" if self.margin else ""
        if self.direction == "as-good":
            said = f"{self.better} is as good as {others}, within {self.margin:g} points"
        else:
            said = f"{self.better} is better than {others}{by}"
        return f"{said} ({'; '.join(self.where)})"

    @property
    def where(self) -> list[str]:
        """Which records it is about: settings, pairs, training sets and tasks."""
        pairs = _KINDS_OF_PAIRS[self.pairs] if isinstance(self.pairs, str) else ", ".join(self.pairs)
        data = [f"trained on {', '.join(self.data)}"] if self.data else []
        tasks = "all tasks" if self.tasks == "all" else ", ".join(self.tasks)
        return ["tuned" if self.tuned else "default settings", pairs, *data, tasks]


class ClaimsFile(Strict):
    """Claims that are answered together: one correction for the tests of all of them.

    Attributes:
        claims: {id: claim}.
    """

    schema_version: Literal[1]
    name: Name
    description: str = ""
    claims: dict[Name, Claim] = Field(min_length=1)


def shipped_claims() -> dict[str, Path]:
    """The files of claims that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_claims(name_or_path: str) -> Path:
    """The file of claims of this name, or by its path.

    Raises:
        InputError: Where there is none.
    """
    if name_or_path in shipped_claims():
        return shipped_claims()[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise InputError(
        f"--claims {name_or_path}: no such file, and no file of that name ships{did_you_mean(name_or_path, shipped_claims())}"
    )


def read_claims(path: Path, *, tuned: bool | None = None) -> ClaimsFile:
    """Read and check a file of claims.

    Args:
        path: The file.
        tuned: In place of what each claim says.

    Raises:
        InputError: With file and key, for the first mistake.
    """
    content = read_mapping(path)

    def where(location: Sequence[Any]) -> str:
        return f"{path}: {dotted(location)}" if location else str(path)

    try:
        found = ClaimsFile.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error, where, ClaimsFile)) from None
    if tuned is None:
        return found
    claims = {name: claim.model_copy(update={"tuned": tuned}) for name, claim in found.claims.items()}
    return found.model_copy(update={"claims": claims})
