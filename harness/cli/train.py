"""`harness train`: one training, on models and data of the user's own."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Sequence
from typing import Any

import click

from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from harness.cli.data_options import SOURCE, data_options, read_data_options
from harness.cli.options import (
    COUNT,
    MODEL,
    PATH,
    SEED,
    given,
    read_settings,
    read_yaml,
    sandbox_options,
    template_options,
    template_settings,
)
from harness.cli.run import print_failures, print_left_out, run_plan
from harness.config.names import option_rows
from harness.planning.single_training import single_plan
from harness.runs.store import RESULT

log = logging.getLogger(__name__)

EPILOG = """\b
Examples:
  harness train --teacher models/teacher --student models/student --data train.jsonl --method kd --steps 500 --output out
  harness train --teacher Qwen/Qwen2.5-7B --student Qwen/Qwen2.5-0.5B@main --data train.jsonl --method kd --epochs 1 --output out
  harness train --student models/student --data train.jsonl --method sft --epochs 2 --output out
  harness train ... --method dskd-v2-eta --option kd_rate=0.7 --option temperature=1.0
  harness train ... --method gkd --set rollouts.share=0.5 --set warmup_steps=10
  harness train ... --method kd --batch-tokens 8192 --packing --set lora.rank=16 --dtype bfloat16 --processes 8
  harness train --teacher Qwen/Qwen2.5-72B --served http://gpu-box:8000 --student models/student --data train.jsonl --method dskd-v2 ...
  harness train ... --method kd --text teacher
  harness train ... --method my_method.py:MyMethod
  harness train ... --data openai/gsm8k:main:train --column "prompt={question}" --column "output={answer}"
  zcat big.jsonl.gz | head -n 1000 | harness train ... --data - --template chat --train-on last

\b
`harness list training-options` has every KEY of --set, `harness show-method NAME` those of --option.
Rows of the data: {"prompt": "...", "output": "..."}, or with --template {"instruction": "...", "output": "..."} and perhaps
"input", or with --template chat {"messages": [...]}; docs/data-sources.md has the other shapes and kinds of files. The student is
written to OUTPUT/train/model, an ordinary model folder. The same command again resumes from the last checkpoint, or finds the work done."""

_FORMER_FLAGS = {"--signal-kind": "--teacher-outputs", "--signal-dtype": "--cache-dtype", "--signal-k": "--top-k"}


class _TrainCommand(click.Command):
    """Accepts flags under former names, and says how to set a training option that has no flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, [_renamed(argument) for argument in args])
        except click.NoSuchOption as error:
            keys = {re.sub("[._]", "-", row["option"]): row["option"] for row in option_rows(TrainingOptions)}
            near = difflib.get_close_matches(error.option_name.strip("-"), keys, n=1, cutoff=0.9)
            if not near:
                raise
            raise InputError(f"{error.option_name}: no such flag; fix: --set {keys[near[0]]}=VALUE") from None


def _renamed(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    if flag not in _FORMER_FLAGS:
        return argument
    log.info("%s is now %s", flag, _FORMER_FLAGS[flag])
    return f"{_FORMER_FLAGS[flag]}{equals}{value}"


POSITIVE = click.FloatRange(min=0, min_open=True)
TEACHER_OUTPUTS = click.Choice(["live", "hidden_states", "top_k", "text_log_probabilities"])
TEACHER_OUTPUTS_HELP = (
    "live (default) runs the teacher at every step; the others compute a cache once, for several epochs."
)
CACHE_ENGINE = click.Choice(["auto", "vllm", "transformers"])
CACHE_DTYPE = click.Choice(["same", "float16", "bfloat16"])
DTYPE = click.Choice(["float32", "bfloat16"])
WIRE_DTYPE = click.Choice(["float32", "float16", "bfloat16"])
SERVED_HELP = (
    "Address of a server that runs the teacher (`harness teacher serve-command`); repeat it for replicas. Of --teacher, the "
    "head and the tokenizer alone are read then."
)
LAUNCH_HELP = "Accelerate configuration, shipped or a file, for FSDP and the like."
LENGTH_HELP = "Maximum tokens of an example; longer ones are left out. [default: 512]"
SET_HELP = "Any other training option, such as lora.rank=16; repeatable."
DATA_HELP = "Training set: a file or folder, a pipe, or a data set on the hub (docs/data-sources.md)."
TEXT_HELP = (
    "Who writes what the student is trained on: data (the default), teacher, student, or a mixture, such as "
    "'{data: 0.5, student: 0.5}' (docs/text.md)."
)
METHOD_HELP = "Method; `harness list methods` has the names."


@click.command("train", cls=_TrainCommand, epilog=EPILOG)
@click.option(
    "--teacher", type=PATH, metavar=MODEL, help="The teacher: a model folder, or a name on the hub; not for SFT."
)
@click.option("--served", multiple=True, metavar="URL", help=SERVED_HELP)
@click.option("--served-model", metavar="NAME", help="Name of the teacher on its server, if the server has several.")
@click.option("--served-dtype", type=WIRE_DTYPE, help="Dtype of hidden states on the wire. [default: bfloat16]")
@click.option("--student", required=True, type=PATH, metavar=MODEL, help="The model that the student starts from.")
@click.option("--data", required=True, type=PATH, metavar=SOURCE, help=DATA_HELP)
@data_options
@click.option("--method", required=True, metavar="NAME|FILE.py:CLASS", help=METHOD_HELP)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the method; repeatable.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=SET_HELP)
@click.option("--text", metavar="TEXT", help=TEXT_HELP)
@click.option("--steps", type=COUNT, metavar="N", help="Number of optimizer steps.")
@click.option("--epochs", type=POSITIVE, metavar="X", help="Passes over the data, instead of --steps.")
@click.option("--batch-size", type=COUNT, metavar="N", help="Examples per batch and process. [default: 16]")
@click.option("--batch-tokens", type=COUNT, metavar="N", help="Token budget of a batch, instead of --batch-size.")
@click.option(
    "--packing/--no-packing",
    default=None,
    help="Put several examples into one row. [default: where the models allow it]",
)
@click.option("--learning-rate", type=POSITIVE, metavar="X", help="Student learning rate. [default: 5e-4]")
@click.option("--max-length", type=click.IntRange(min=2), metavar="N", help=LENGTH_HELP)
@click.option("--dtype", type=DTYPE, help="Compute dtype and teacher weights; the student's weights stay float32.")
@click.option("--teacher-outputs", type=TEACHER_OUTPUTS, help=TEACHER_OUTPUTS_HELP)
@click.option("--cache-dtype", type=CACHE_DTYPE, help="Dtype of cached hidden states on disk.")
@click.option("--cache-engine", type=CACHE_ENGINE, help="What computes a teacher cache. [default: auto]")
@click.option("--tensor-parallel", type=COUNT, metavar="N", help="Number of GPUs that vLLM spreads the teacher over.")
@click.option("--top-k", type=COUNT, metavar="K", help="Number of tokens that a top_k cache keeps.")
@click.option("--processes", type=COUNT, metavar="N", help="Number of training processes, one per GPU.")
@click.option("--accelerate-config", metavar="NAME|FILE", help=LAUNCH_HELP)
@template_options
@sandbox_options
@click.option("--seed", default=0, show_default=True, type=SEED, help="Random seed.")
@click.option("--limit", type=COUNT, metavar="N", help="Train on the first N examples.")
@click.option("--output", required=True, type=PATH, metavar="DIR", help="Output directory.")
@click.option("--overwrite", is_flag=True, help="Replace another training in the output directory.")
@click.pass_context
def command(context: click.Context, options: Sequence[str], settings: Sequence[str], **flags: Any) -> None:
    """Train one student on models and data of your own."""
    own = ("teacher", "student", "data", "method", "seed", "limit", "output", "overwrite", "allow_code_execution")
    asked = {name: flags.pop(name) for name in own}
    asked["teacher_outputs"] = given(
        kind=flags.pop("teacher_outputs"), stored_dtype=flags.pop("cache_dtype"), k=flags.pop("top_k")
    )
    asked["teacher_cache"] = given(engine=flags.pop("cache_engine"), tensor_parallel=flags.pop("tensor_parallel"))
    asked["served"] = given(
        served=flags.pop("served") or None, model=flags.pop("served_model"), dtype=flags.pop("served_dtype")
    )
    reading = {name: flags.pop(name) for name in ("columns", "shape", "train_on")}
    asked["data_options"] = read_data_options(**reading)
    asked["template"] = template_settings(flags)
    asked["text"] = read_yaml(flags.pop("text"))
    asked["launch"] = given(processes=flags.pop("processes"), accelerate_config=flags.pop("accelerate_config"))
    training = read_settings(settings, "--set", given(**flags))
    plan = single_plan(**asked, method_options=read_settings(options, "--option"), training=training)
    outcomes = run_plan(plan)
    print_left_out(plan)
    if print_failures(plan, outcomes):
        context.exit(1)
    (job,) = (job for job in plan.jobs.values() if job.kind == "train")
    cost = json.loads((job.folder / RESULT).read_text(encoding="utf-8"))["cost"]
    if cost["train_seconds"] is not None:
        click.echo(f"Trained {cost['train_seconds']:.1f} s, peak memory {cost['peak_memory'] / 2**20:,.0f} MiB")
    click.echo(f"Student: {job.folder / 'model'}\nRecord:  {job.folder / RESULT}\nLog:     {job.folder / 'log.txt'}")
