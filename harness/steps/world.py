"""The small world: writes its training sets and tokenizers."""

from __future__ import annotations

from typing import Annotated

from harness.runs.job_context import JobContext
from harness.smallworld.world import SMALL_WORLD_VERSION, write_world
from harness.steps.base import NOT_IDENTITY, Key, Step


class World(Step):
    """The files of the small world: `train/NAME.jsonl` and `tokenizers/NAME/`."""

    kind, version, place, product = "world", 1, "world", "world"

    title: Annotated[str, NOT_IDENTITY] = "small world"
    generator: Annotated[int, Key("version")] = SMALL_WORLD_VERSION
    seed: int = 0

    def run(self, job: JobContext) -> None:
        write_world(self.path(job.root), self.seed)
        job.finish(job.output)
