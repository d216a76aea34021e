"""Answers and scores of one model on its tasks, in one process, so that the engine starts once."""

from __future__ import annotations

from pathlib import Path

from harness.runs.job_context import JobContext
from harness.runs.records import Counts, MetricValue


def run(job: JobContext) -> None:
    """Evaluate the tasks whose results are wanted; each is on the disk as soon as it is done."""
    from harness import tasks
    from harness.engines._completion_cache import CompletionCache
    from harness.evaluation.evaluate import EvaluationOptions, EvaluationProgress, evaluate
    from harness.evaluation.score import summarise
    from harness.sandbox.select import sandbox_used
    from harness.steps.contamination import overlaps

    outputs = {str(output.cell.column): output for output in job.pending if output.cell is not None}
    arguments = job.arguments

    def report(progress: EvaluationProgress) -> None:
        stage = f"{progress.task} ({progress.tasks_done + 1} of {progress.tasks_total})"
        if progress.tasks_done < progress.tasks_total:
            job.progress.advance(stage, progress.samples_done, progress.samples_total)

    # In the folders of the results: what stands there was answered for the very same identity.
    caches = {
        name: CompletionCache(job.store.output(output.folder).path / "answers.jsonl")
        for name, output in outputs.items()
    }
    overlap = overlaps(job, outputs)
    runs = evaluate(
        Path(arguments["model"]),
        {name: EvaluationOptions(**arguments["tasks"][name]) for name in outputs},
        engine=arguments["engine"],
        seed=arguments["seed"],
        allow_code_execution=arguments["allow_code_execution"],
        progress=report,
        max_batch_size=arguments["max_batch_size"],
        dtype=arguments["dtype"],
        cache=lambda name: caches[name],
    )
    for done in runs:
        task = tasks.load(arguments["tasks"][done.name]["task"])
        summary = summarise(task, done.samples)
        print(f"{done.name}: {summary['n']} in {done.seconds:.1f} s with {done.engine}", flush=True)
        job.finish(
            outputs[done.name],
            cost=job.cost(wall_seconds=round(done.seconds, 3), tokens=done.generated_tokens),
            n=Counts.model_validate(summary["n"]),
            headline=task.metrics[0].name,
            metrics={name: MetricValue.model_validate(metric) for name, metric in summary["metrics"].items()},
            samples=done.samples,
            engine=done.engine,
            sandbox=sandbox_used(),
            template=done.template,
            overlap=overlap[done.name],
        )
        caches[done.name].remove()
