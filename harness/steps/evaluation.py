"""The evaluation of a model on its tasks, in one process, so that the engine starts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from dskd import training
from dskd.compatibility import Problem
from dskd.io import read_object
from dskd.modeling.vllm_support import INSTALL
from harness import evaluation, tasks
from harness.costs.needs import Generation, generation_needs, unknown_needs
from harness.costs.resources import Resources
from harness.engines._completion_cache import CompletionCache
from harness.evaluation.reasoning import tokens_per_solved
from harness.protocols import DecodingProtocol
from harness.runs.failures import reason_of
from harness.runs.identity import Fingerprint, canonical_json
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.rate import Rate
from harness.runs.records import RecordCell
from harness.runs.store import eval_folder
from harness.sandbox.select import sandbox_used
from harness.steps.base import BY_HAND, NOT_IDENTITY, Input, ModelInput, Of, Step, TrainingSource, if_known
from harness.steps.contamination import count_contamination
from harness.steps.libraries import evaluation_libraries
from harness.steps.training import Train


class EvaluatedTask(Input):
    """A task under a protocol. entry: its name in the matrix; extra: what else its identity has (`Task.identity`)."""

    entry: Annotated[str, NOT_IDENTITY]
    task: str
    version: str
    limit: int | None
    max_new_tokens: int
    protocol: Annotated[DecodingProtocol, BY_HAND]
    extra: Annotated[dict[str, Any], BY_HAND]

    def identity_parts(self) -> dict[str, Any]:
        drawing = {key: value for key, value in self.protocol.settings.items() if key != "max_new_tokens"}
        parts = {**super().identity_parts(), **self.extra, "protocol": drawing}
        # Once the limits of reasoning and answer were added up.
        return parts if self.protocol.max_reasoning_tokens is None else {**parts, "token_limits": 2}

    @cached_property
    def parts(self) -> dict[str, Fingerprint]:
        """The parts of an evaluation's identity that the task has, written once for all models of a matrix."""
        return {key: Fingerprint(canonical_json(value)) for key, value in self.identity_parts().items()}


class Evaluate(Step):
    """Completions and scores of one model, an output for each task.

    parts: processes that generate, each with the whole model. tensor_parallel: GPUs that vLLM spreads the model over, in each.
    """

    kind, version = "evaluate", 2

    cell: Annotated[RecordCell, NOT_IDENTITY]
    cell_folder: Annotated[str, NOT_IDENTITY]
    model: Of[ModelInput]
    tasks: list[EvaluatedTask]
    engine: str
    dtype: str
    seed: int
    max_batch_size: Annotated[int | None, NOT_IDENTITY] = None
    allow_code_execution: Annotated[bool, NOT_IDENTITY] = False
    parts: Annotated[int, NOT_IDENTITY] = 1
    tensor_parallel: Annotated[int, NOT_IDENTITY] = 1

    @property
    def id(self) -> str:
        return f"evaluate:{self.cell_folder}"

    @property
    def folder(self) -> str:
        return f"cells/{self.cell_folder}/eval"

    @cached_property
    def needs(self) -> tuple[Step, ...]:
        return self.model.made_by

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(map(self._output, self.tasks))

    def _output(self, task: EvaluatedTask) -> Output:
        shared = {"code": self.version, "engine": self.engine, "dtype": self.dtype, "seed": self.seed}
        fingerprint = Fingerprint.of({**shared, "model": self.model.fingerprint, **task.parts})
        about = {"task": task.task, "task_version": task.version, "protocol": task.protocol}
        folder = eval_folder(self.cell_folder, task.entry, task.version, task.protocol.name)
        return Output(folder, fingerprint, self.cell.model_copy(update=about))

    @property
    def training_sources(self) -> list[tuple[str, TrainingSource]]:
        """The training sets behind the model, each with "student" or "teacher", whose it was."""
        role = "teacher" if self.cell.student is None else "student"
        sources = [(role, source) for source in self.model.lineage]
        return sources + [("teacher", source) for source in self.model.teacher_lineage]

    @property
    def libraries(self) -> tuple[str, ...]:
        return evaluation_libraries(self.engine)

    def preflight(self, root: Path) -> Sequence[Problem]:
        for task in self.tasks:
            tasks.load(task.task).docs()
        if self.tensor_parallel == 1 or find_spec("vllm") is not None:
            return ()
        return [Problem("evaluation.tensor_parallel", "vLLM is not installed", f"leave it out, or {INSTALL}")]

    def resources(self) -> Resources:
        shape, gpus = if_known(lambda: self.model.shape), self.parts * self.tensor_parallel
        if shape is None:
            return unknown_needs(gpus, processes=self.parts)
        asked = [
            Generation(None if task.limit is None else task.limit * task.protocol.num_samples, task.max_new_tokens)
            for task in self.tasks
        ]
        spread = {"parts": self.parts, "tensor_parallel": self.tensor_parallel}
        return generation_needs(shape, self.dtype, asked, batch=self.max_batch_size, **spread)

    def run(self, job: JobContext) -> None:
        """Evaluate the tasks whose results are wanted; each is on the disk as soon as it is done."""
        own = {output.folder: task for output, task in zip(self.outputs, self.tasks, strict=True)}
        outputs = {str(output.cell.column): output for output in job.pending if output.cell is not None}
        wanted = {name: own[output.folder] for name, output in outputs.items()}
        # In the folders of the results: what is stored there was answered for the very same identity.
        caches = {name: CompletionCache(job.root / output.folder / "answers.jsonl") for name, output in outputs.items()}
        evaluated = {name: (task.task, task.limit) for name, task in wanted.items()}
        contamination = count_contamination(job, self.training_sources, evaluated)
        job.stop_here("before its first completion")

        items = Rate()

        def report(progress: Any) -> None:
            job.progress.measure(items_per_second=items.at(progress.samples_done))
            stage = f"{progress.task} ({progress.tasks_done + 1} of {progress.tasks_total})"
            if progress.tasks_done < progress.tasks_total:
                job.progress.advance(stage, progress.samples_done, progress.samples_total)

        runs = evaluation.evaluate(
            self.model.path(job.root),
            {
                name: evaluation.EvaluationOptions(
                    task=task.task,
                    protocol=task.protocol,
                    limit=task.limit,
                    max_new_tokens=task.max_new_tokens or None,  # 0 where nothing is generated
                )
                for name, task in wanted.items()
            },
            engine=self.engine,
            seed=self.seed,
            allow_code_execution=self.allow_code_execution,
            progress=report,
            max_batch_size=self.max_batch_size,
            dtype=self.dtype,
            cache=lambda name: caches[name],
            parts=self.parts,
            tensor_parallel=self.tensor_parallel,
            before_block=partial(job.stop_here, "after the completions that it had finished"),
        )
        for done in runs:
            task = tasks.load(wanted[done.name].task)
            summary = evaluation.summarise(task, done.samples)
            if done.generated_tokens and done.seconds:
                job.progress.measure(tokens_per_second=done.generated_tokens / done.seconds)
            by = done.engine if self.parts == 1 else f"{done.engine} in {self.parts} processes"
            print(f"{done.name}: {summary['n']} in {done.seconds:.1f} s with {by}", flush=True)
            memory = dict(zip(("peak_memory", "peak_device_memory"), done.peak_memory or (), strict=False))
            job.finish(
                outputs[done.name],
                cost=job.cost(
                    wall_seconds=round(done.seconds, 3),
                    tokens=done.generated_tokens,
                    tokens_per_solved=tokens_per_solved(task.metrics[0], done.samples),
                    **memory,
                ),
                samples=done.samples,
                engine=done.engine,
                sandbox=sandbox_used(),
                n=summary["n"],
                headline=task.metrics[0].name,
                metrics=summary["metrics"],
                reasoning=summary.get("reasoning"),
                categories=summary.get("categories", {}),
                template=done.template or None,
                overlap=contamination[done.name],
            )
            self._track(job, done.name, summary["metrics"])
            caches[done.name].remove()
            if job.pending:
                job.stop_here(f"after task {done.name}")

    def _track(self, job: JobContext, column: str, metrics: Mapping[str, Any]) -> None:
        """Send scores to the runs of the training in its trackers. They are in the record already, so an outage is told and no failure."""
        model = self.model
        if not isinstance(model, Train) or not model.training.trackers:
            return
        step = read_object(model.path(job.root) / "training_report.json")["steps"]
        scores = {
            f"{column}/{name}": float(found["value"]) for name, found in metrics.items() if found["value"] is not None
        }
        for tracker in model.training.trackers:
            try:
                training.log_scores(tracker, job.root / model.folder, model.tags(job.root), scores, step=step)
            except Exception as error:
                print(f"scores were not sent to {tracker}: {reason_of(error)}", flush=True)
