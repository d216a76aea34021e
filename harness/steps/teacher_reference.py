"""What a served teacher's local copy answers to the probe's texts, which every training with that teacher compares it with."""

from __future__ import annotations

from math import prod
from pathlib import Path

import psutil

from dskd.errors import InputError
from dskd.modeling.weight_files import read_header, weight_files
from dskd.teachers import probe
from harness.costs.needs import weight_bytes
from harness.costs.resources import BASE_MEMORY, Resources
from harness.runs.job_context import JobContext
from harness.steps.base import ModelInput, Of, Step, if_known
from harness.steps.libraries import MODELS

_FILE = "reference.safetensors"
_SHARE = 0.8  # of the free memory that the copy may take


class TeacherReference(Step):
    """A file of `dskd.teachers.probe.reference`, for `ServedOptions.reference`.

    Where the teacher's folder lacks weights, as one with the head alone does, or the model does not fit into memory in float32, the file
    says so, and the training's record repeats it.
    """

    kind, version, place, product = "teacher-reference", 1, "references", _FILE

    teacher: Of[ModelInput]

    @property
    def libraries(self) -> tuple[str, ...]:
        return MODELS

    def resources(self) -> Resources:
        shape = if_known(lambda: self.teacher.shape)  # it runs on the processor
        return Resources(memory=BASE_MEMORY + (0 if shape is None else weight_bytes(shape, "float32")))

    def run(self, job: JobContext) -> None:
        folder, file = self.teacher.path(job.root), self.path(job.root)
        reason = not_comparable(folder)
        if reason is None:
            try:
                probe.write_reference(folder, file, tokenizer=self.teacher.tokenizer_input.path(job.root))
            except InputError as error:  # what its files did not show, such as weights of half of its layers
                reason = str(error)
        if reason is not None:
            print(f"not compared with a local copy: {reason}", flush=True)
            probe.write_reason(file, reason)
        job.finish(job.output, report={"reason": reason})


def not_comparable(folder: Path) -> str | None:
    """Why the model in a folder cannot be run here in float32, as far as its files say; None where it can."""
    try:
        files = weight_files(folder)
    except InputError as error:  # of an index, shards that are not there
        return str(error)
    if not files:
        return f"{folder}: has no weights"
    needed = sum(_bytes_in_float32(file) for file in files)
    free = psutil.virtual_memory().available * _SHARE
    if needed > free:
        return f"{folder}: needs {needed / 1e9:.1f} GB of memory in float32, and {free / 1e9:.1f} GB of it are there"
    return None


def _bytes_in_float32(file: Path) -> int:
    if file.suffix != ".safetensors":
        return 2 * file.stat().st_size  # of numbers of two bytes, as most are
    return sum(4 * prod(tensor.shape) for tensor in read_header(file).values())
