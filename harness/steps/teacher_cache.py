"""What a teacher gives for a training set, computed once for all the students, methods and seeds that learn from it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import dskd
from dskd.compatibility import Problem
from dskd.errors import InputError
from dskd.modeling.vllm_support import INSTALL
from dskd.teachers.options import ServedOptions
from harness.costs.formulas import bytes_per_number, teacher_work
from harness.costs.needs import UNKNOWN_LENGTHS, pass_needs, unknown_needs
from harness.costs.resources import Resources
from harness.costs.work import Device, Work
from harness.runs.job_context import JobContext
from harness.steps.base import NOT_IDENTITY, OMIT_NONE, ModelInput, Of, Step, if_known
from harness.steps.data import PreparedData
from harness.steps.libraries import MODELS
from harness.steps.reference_texts import ReferenceTexts

if TYPE_CHECKING:
    from dskd.teachers.build_cache import TeacherCacheReport


class TeacherCache(Step):
    """Hidden states or probabilities of a teacher on its own tokens, so students with any tokenizer share it.

    options: `kind` and, by kind, `stored_dtype` or `k` and `temperature`. dtype: of the teacher's weights and products.
    engine: what runs the teacher; None for what is best on the machine. tensor_parallel: number of GPUs that vLLM spreads each layer
    on. served: a server that runs it instead; of `teacher`, configuration, tokenizer and head are read then.
    """

    kind, version, place, product = "teacher-cache", 2, "signals", "signal"  # as in older runs

    teacher: Of[ModelInput]
    data: Of[PreparedData | ReferenceTexts]
    options: dict[str, Any]
    dtype: str
    engine: Annotated[Literal["vllm", "transformers"] | None, OMIT_NONE] = None
    tensor_parallel: Annotated[int, NOT_IDENTITY] = 1
    served: Annotated[ServedOptions | None, OMIT_NONE] = None

    def preflight(self, root: Path) -> Sequence[Problem]:
        if self.engine != "vllm" or find_spec("vllm") is not None:
            return ()
        return [Problem("teacher_cache.engine", "vLLM is not installed", f"set it to transformers, or {INSTALL}")]

    @property
    def reaches(self) -> dict[str, tuple[str, ...]]:
        return {} if self.served is None else {self.teacher.name: self.served.addresses}

    @property
    def loads(self) -> Sequence[ModelInput]:
        # vLLM and servers have kernels of their own.
        return () if self.engine == "vllm" or self.served is not None else (self.teacher,)

    def estimate(self, device: Device) -> list[Work]:
        """One pass of the teacher over the training set."""
        per_token = self.options.get("k", 0) * 8 or 4  # an id and a probability, or the label's alone
        if self.options["kind"] == "hidden_states":
            numbers = bytes_per_number(self.dtype) if self.options["stored_dtype"] == "same" else 2
            per_token = self.teacher.shape.hidden * numbers
        what = f"{self.teacher.name} on {self.data.set_name}"
        return [teacher_work(self.kind, what, device, self.teacher.shape, self.dtype, self.data.lengths, per_token)]

    @property
    def libraries(self) -> tuple[str, ...]:
        return MODELS

    def resources(self) -> Resources:
        if self.served is not None:  # its head alone is here
            return Resources()
        shape = if_known(lambda: self.teacher.shape)
        if shape is None:
            return unknown_needs(self.tensor_parallel)
        data = if_known(lambda: self.data.lengths)
        work = teacher_work(self.kind, "", Device(), shape, self.dtype, data or UNKNOWN_LENGTHS)
        return pass_needs(work, shape, self.dtype, self.tensor_parallel, timed=data is not None)

    def run(self, job: JobContext) -> None:
        report = self.build(job)
        amount = f"{report.rows:,} examples, {report.tokens:,} labelled tokens, {size_text(report.bytes)}"
        print(f"{amount}, by {report.engine}", flush=True)
        measured: dict[str, Any] = {"teacher_seconds": round(report.seconds, 3)}
        if report.reused_rows:
            reason = f"resumed: {report.reused_rows} of {report.rows} examples were computed before"
            measured = {"teacher_seconds": None, "wall_seconds": None, "reason": reason}
        cost = job.cost(teacher_examples=report.rows, **measured)
        job.finish(job.output, report=report.model_dump(mode="json"), cost=cost)

    def build(self, job: JobContext) -> TeacherCacheReport:
        """Compute what is missing in the cache or damaged, also from a training that finds the damage."""
        folder, stage = self.path(job.root), ""

        def report(event: dict[str, Any]) -> None:
            nonlocal stage
            if "estimate_bytes" in event:
                stage = f"teacher cache of about {size_text(event['estimate_bytes'])}"
                print(stage, flush=True)
                job.progress.send(event="progress", stage=stage, done=0, total=None)
            elif "engine" in event:
                reason = f", not by {event['instead_of']}: {event['reason']}" if "reason" in event else ""
                print(f"by {event['engine']}{reason}", flush=True)
            elif "written" in event:
                job.stop_here("after the shards that it had finished")
            elif "comparison" in event:
                print(event["comparison"], flush=True)
            else:
                job.progress.advance(stage, event["step"], event["steps"])

        build = partial(
            dskd.build_teacher_cache,
            self.teacher.path(job.root),
            self.data.path(job.root),
            folder,
            options=dskd.TeacherCacheOptions.model_validate(self.options),
            dtype=self.dtype,
            device=computing_device(),
            engine=self.engine or "auto",
            tensor_parallel=self.tensor_parallel,
            served=self.served,
            tokenizer=self.teacher.tokenizer_input.path(job.root) if self.served else None,
            progress=report,
        )
        try:
            return build()
        except dskd.TeacherCacheDamaged as damage:  # in its description, so that none of it can be trusted
            print(f"{damage}\nstarting again from nothing", flush=True)
            shutil.rmtree(folder)
            return build()

    def repair(self, job: JobContext) -> int:
        """Compute again what turns out damaged; for how many examples the teacher was run.

        Several trainings may find the damage at once: one repairs it and the others wait, as for any job.
        """
        with job.store.lock(self.folder):
            try:
                dskd.open_teacher_cache(self.path(job.root), "cpu")
            except InputError as damage:
                print(f"{damage}\ncomputing what is damaged again", flush=True)
                return self.build(job).built_rows
        return 0

    def shared_cost(self, job: JobContext) -> dict[str, Any]:
        """What the cache took once, as its own job measured it."""
        manifest = job.store.output(self.folder).manifest
        cost = manifest.report.get("cost", {}) if manifest is not None else {}
        return {"signal_seconds": cost.get("teacher_seconds"), "signal_examples": cost.get("teacher_examples")}


def size_text(number: int) -> str:
    """`3.2 MB`, `1.7 GB`."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def computing_device() -> Any:
    """Where models run on this machine: an accelerator, or else the CPU."""
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
