"""`harness train`: one training, on models and data of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import split_assignment

EPILOG = """\b
Examples:
  harness train --teacher models/teacher --student models/student --data train.jsonl --method kd --steps 500 --output out
  harness train --student models/student --data train.jsonl --method sft --epochs 2 --output out
  harness train ... --method dskd-v2-eta --option kd_rate=0.7 --option temperature=1.0

\b
Lines of the data: {"prompt": "...", "output": "..."}. The student is written to OUTPUT/train/model, an ordinary model folder.
The same command again goes on from the last checkpoint, or finds the work done."""


@click.command("train", epilog=EPILOG)
@click.option(
    "--teacher", type=click.Path(path_type=Path), metavar="DIR", help="The teacher's model folder; SFT needs none."
)
@click.option(
    "--student",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The model folder of the student to start from.",
)
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="FILE.jsonl", help="The training set.")
@click.option("--method", required=True, metavar="NAME", help="The method; `harness list methods` has them all.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the method; repeatable.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), help="Passes over the data, instead of --steps.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Examples a step.")
@click.option("--gradient-accumulation-steps", type=click.IntRange(min=1), help="Batches a step.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Of the student.")
@click.option("--max-length", type=click.IntRange(min=2), help="Tokens of an example; longer ones are left out.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the products and of the teacher; the student keeps float32 weights.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Train on the first N examples.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where it goes.")
@click.option("--overwrite", is_flag=True, help="Replace what another training left in OUTPUT.")
@click.pass_context
def command(
    context: click.Context,
    teacher: Path | None,
    student: Path,
    data: Path,
    method: str,
    options: tuple[str, ...],
    seed: int,
    limit: int | None,
    output: Path,
    overwrite: bool,
    **training: Any,
) -> None:
    """Train one student on models and data of your own."""
    import json

    from harness.cli.run import print_failures, print_left_out, run_plan
    from harness.single import single_plan
    from harness.store import RESULT

    plan = single_plan(
        teacher=teacher,
        student=student,
        data=data,
        method=method,
        method_options=dict(split_assignment(text, "--option") for text in options),
        training={name: value for name, value in training.items() if value is not None},
        seed=seed,
        limit=limit,
        output=output,
        overwrite=overwrite,
    )
    outcomes = run_plan(plan, jobs=1, promise=False)
    print_left_out(plan)
    if print_failures(plan, outcomes):
        context.exit(1)
    (job,) = (job for job in plan.jobs.values() if job.spec.kind == "train")
    folder = plan.root / job.spec.folder
    cost = json.loads((folder / RESULT).read_text(encoding="utf-8"))["cost"]
    if cost["train_seconds"] is not None:
        click.echo(f"Trained {cost['train_seconds']:.1f} s, peak memory {cost['peak_memory'] / 2**20:,.0f} MiB")
    click.echo(f"Student: {folder / 'model'}\nRecord:  {folder / RESULT}\nLog:     {folder / 'log.txt'}")
