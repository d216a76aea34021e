"""The folder of a baseline of fixed models: three small models, texts to train on, completions to score, and what the code did with them.

models/{teacher,same,cross}/   the teacher; a student with its vocabulary; one with another
examples.jsonl                 {"prompt", "output"}, a line an example
completions.jsonl              {"id", "task", "doc", "output"}, a line a completion, some of them made up
baseline.json                  the outputs, first steps and scores that a check compares with
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dskd.errors import InputError
from dskd.modeling.folders import require_model_folder

TEACHER, SAME, CROSS = "teacher", "same", "cross"
MODELS = (TEACHER, SAME, CROSS)
TASKS = ("small_instruct", "small_math", "small_code")


@dataclass(frozen=True)
class FixedFolder:
    """The paths of the folder."""

    path: Path

    @property
    def examples(self) -> Path:
        return self.path / "examples.jsonl"

    @property
    def completions(self) -> Path:
        return self.path / "completions.jsonl"

    @property
    def baseline(self) -> Path:
        return self.path / "baseline.json"

    def model(self, name: str) -> Path:
        """The folder of one of MODELS."""
        return self.path / "models" / name

    def require(self) -> None:
        """InputError where a model or a file of texts is missing."""
        for file in (self.examples, self.completions):
            if not file.is_file():
                raise InputError(f"{file}: no such file; fix: harness baseline make-models {self.path}")
        for name in MODELS:
            require_model_folder(self.model(name))
