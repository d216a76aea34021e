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
  harness train ... --method kd --batch-tokens 8192 --packing --lora-rank 16 --dtype bfloat16 --processes 8

\b
Lines of the data: {"prompt": "...", "output": "..."}, or with --template {"instruction": "...", "output": "..."} and perhaps
"input". The student is written to OUTPUT/train/model, an ordinary model folder.
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
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="As many examples a batch as fit into N tokens, instead of --batch-size.",
)
@click.option(
    "--batching",
    type=click.Choice(["random", "length_grouped"]),
    help="length_grouped: examples of like length together, for less padding.",
)
@click.option(
    "--packing", is_flag=True, default=None, help="Several examples in a row, attention kept within each: no padding."
)
@click.option("--gradient-accumulation-steps", type=click.IntRange(min=1), help="Batches a step.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Of the student.")
@click.option("--max-length", type=click.IntRange(min=2), help="Tokens of an example; longer ones are left out.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of the products and of the teacher; the student keeps float32 weights.",
)
@click.option(
    "--gradient-checkpointing", is_flag=True, default=None, help="Compute activations twice, for far less memory."
)
@click.option(
    "--fused-loss/--no-fused-loss",
    default=None,
    help="The loss in chunks of tokens, the default: the same objective in far less memory.",
)
@click.option("--chunk-tokens", type=click.IntRange(min=1), metavar="N", help="Tokens a chunk of the fused loss.")
@click.option(
    "--torch-compile", is_flag=True, default=None, help="Compile the student's layers; for long runs on a GPU."
)
@click.option("--lora-rank", type=click.IntRange(min=1), metavar="R", help="Train a low-rank adapter, not all weights.")
@click.option("--lora-alpha", type=click.FloatRange(min=0, min_open=True), help="The adapter's scale, over its rank.")
@click.option("--lora-dropout", type=click.FloatRange(min=0, max=1), help="Of the adapter's input.")
@click.option("--lora-target-module", multiple=True, metavar="NAME", help="A layer that gets an adapter; repeatable.")
@click.option(
    "--signal-kind",
    type=click.Choice(["live", "hidden_states", "top_k"]),
    help="live, the default, runs the teacher at every step; the others compute what it says once, for several epochs.",
)
@click.option(
    "--signal-dtype", type=click.Choice(["same", "float16", "bfloat16"]), help="How a signal is kept on the disk."
)
@click.option(
    "--signal-k", type=click.IntRange(min=1), metavar="K", help="How many of the teacher's tokens top_k keeps."
)
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Train in N processes, one a GPU.")
@click.option(
    "--accelerate-config",
    metavar="NAME|FILE",
    help="An accelerate configuration that ships, or a file, for FSDP and the like.",
)
@click.option(
    "--template",
    type=click.Choice(["alpaca", "chat"]),
    help="Ask both models by instructions: in Alpaca's template, or each in its own chat template.",
)
@click.option("--system", metavar="TEXT", help="The system message of the chat template.")
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
    processes: int | None,
    accelerate_config: str | None,
    signal_kind: str | None,
    signal_dtype: str | None,
    signal_k: int | None,
    template: str | None,
    system: str | None,
    lora_target_module: tuple[str, ...],
    **training: Any,
) -> None:
    """Train one student on models and data of your own."""
    import json

    from harness.cli.run import print_failures, print_left_out, run_plan
    from harness.planning.single_training import single_plan
    from harness.runs.store import RESULT

    given = _given(**training)
    lora = {name: given.pop(f"lora_{name}") for name in ("rank", "alpha", "dropout") if f"lora_{name}" in given}
    if lora_target_module:
        lora["target_modules"] = list(lora_target_module)
    if lora:
        given["lora"] = lora
    plan = single_plan(
        teacher=teacher,
        student=student,
        data=data,
        method=method,
        method_options=dict(split_assignment(text, "--option") for text in options),
        training=given,
        teacher_outputs=_given(kind=signal_kind, stored_dtype=signal_dtype, k=signal_k),
        template=_given(kind=template, system=system),
        launch=_given(processes=processes, accelerate_config=accelerate_config),
        seed=seed,
        limit=limit,
        output=output,
        overwrite=overwrite,
    )
    outcomes = run_plan(plan, jobs=1)
    print_left_out(plan)
    if print_failures(plan, outcomes):
        context.exit(1)
    (job,) = (job for job in plan.jobs.values() if job.kind == "train")
    folder = job.folder
    cost = json.loads((folder / RESULT).read_text(encoding="utf-8"))["cost"]
    if cost["train_seconds"] is not None:
        click.echo(f"Trained {cost['train_seconds']:.1f} s, peak memory {cost['peak_memory'] / 2**20:,.0f} MiB")
    click.echo(f"Student: {folder / 'model'}\nRecord:  {folder / RESULT}\nLog:     {folder / 'log.txt'}")


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}
