"""`harness train`: one training, on models and data of the user's own."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import click

from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from harness.cli.options import RenamedOption, read_settings
from harness.cli.run import print_failures, print_left_out, run_plan
from harness.config.names import option_rows
from harness.planning.single_training import single_plan
from harness.runs.store import RESULT

EPILOG = """\b
Examples:
  harness train --teacher models/teacher --student models/student --data train.jsonl --method kd --steps 500 --output out
  harness train --student models/student --data train.jsonl --method sft --epochs 2 --output out
  harness train ... --method dskd-v2-eta --option kd_rate=0.7 --option temperature=1.0
  harness train ... --method gkd --set rollouts.share=0.5 --set warmup_steps=10
  harness train ... --method kd --batch-tokens 8192 --packing --set lora.rank=16 --dtype bfloat16 --processes 8
  harness train ... --method my_method.py:MyMethod

\b
`harness list training-options` has every KEY of --set, `harness show-method NAME` those of --option.
Lines of the data: {"prompt": "...", "output": "..."}, or with --template {"instruction": "...", "output": "..."} and perhaps
"input". The student is written to OUTPUT/train/model, an ordinary model folder.
The same command again resumes from the last checkpoint, or finds the work done."""


class _TrainCommand(click.Command):
    """Says how to set a training option that has no flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            keys = {
                row["option"].replace(".", "-").replace("_", "-"): row["option"] for row in option_rows(TrainingOptions)
            }
            near = difflib.get_close_matches(error.option_name.strip("-"), keys, n=1, cutoff=0.9)
            if not near:
                raise
            raise InputError(f"{error.option_name}: no such flag; fix: --set {keys[near[0]]}=VALUE") from None


@click.command("train", cls=_TrainCommand, epilog=EPILOG)
@click.option(
    "--teacher", type=click.Path(path_type=Path), metavar="DIR", help="Model folder of the teacher; not for SFT."
)
@click.option(
    "--student",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Model folder that the student starts from.",
)
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="FILE.jsonl", help="Training set.")
@click.option(
    "--method", required=True, metavar="NAME|FILE.py:CLASS", help="Method; `harness list methods` has the names."
)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the method; repeatable.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other training option, such as lora.rank=16; repeatable.",
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Number of optimizer steps.")
@click.option(
    "--epochs",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Passes over the data, instead of --steps.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), metavar="N", help="Examples per batch and process. [default: 16]"
)
@click.option(
    "--batch-tokens", type=click.IntRange(min=1), metavar="N", help="Token budget of a batch, instead of --batch-size."
)
@click.option("--packing", is_flag=True, default=None, help="Put several examples into one row, without padding.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Student learning rate. [default: 5e-4]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    metavar="N",
    help="Maximum tokens of an example; longer ones are left out. [default: 512]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Compute dtype and teacher weights; the student's weights stay float32.",
)
@click.option(
    "--teacher-outputs",
    "--signal-kind",
    cls=RenamedOption,
    type=click.Choice(["live", "hidden_states", "top_k"]),
    help="live (default) runs the teacher at every step; the others compute a cache once, for several epochs.",
)
@click.option(
    "--cache-dtype",
    "--signal-dtype",
    cls=RenamedOption,
    type=click.Choice(["same", "float16", "bfloat16"]),
    help="Dtype of cached hidden states on disk.",
)
@click.option(
    "--top-k",
    "--signal-k",
    cls=RenamedOption,
    type=click.IntRange(min=1),
    metavar="K",
    help="Number of tokens that a top_k cache keeps.",
)
@click.option("--processes", type=click.IntRange(min=1), metavar="N", help="Number of training processes, one per GPU.")
@click.option(
    "--accelerate-config",
    metavar="NAME|FILE",
    help="Accelerate configuration, shipped or a file, for FSDP and the like.",
)
@click.option(
    "--template",
    type=click.Choice(["alpaca", "chat"]),
    help="Prompt template of both models: Alpaca's, or each model's own chat template.",
)
@click.option("--system", metavar="TEXT", help="System message of the chat template.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Random seed.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Train on the first N examples.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Output directory.")
@click.option("--overwrite", is_flag=True, help="Replace another training in the output directory.")
@click.pass_context
def command(
    context: click.Context,
    teacher: Path | None,
    student: Path,
    data: Path,
    method: str,
    options: tuple[str, ...],
    settings: tuple[str, ...],
    seed: int,
    limit: int | None,
    output: Path,
    overwrite: bool,
    processes: int | None,
    accelerate_config: str | None,
    teacher_outputs: str | None,
    cache_dtype: str | None,
    top_k: int | None,
    template: str | None,
    system: str | None,
    **flags: Any,
) -> None:
    """Train one student on models and data of your own."""
    plan = single_plan(
        teacher=teacher,
        student=student,
        data=data,
        method=method,
        method_options=read_settings(options, "--option"),
        training=read_settings(settings, "--set", _given(**flags)),
        teacher_outputs=_given(kind=teacher_outputs, stored_dtype=cache_dtype, k=top_k),
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
