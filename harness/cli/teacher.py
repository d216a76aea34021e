"""`harness teacher`: the line that starts a server with which a model can teach, and a probe of one that runs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic import ValidationError

from dskd import hub
from dskd.errors import InputError, TrainingFailed
from dskd.teachers.options import API_KEY, ServedOptions, TeacherOutputKind
from dskd.teachers.serve_command import Served, serve_command
from harness.cli.options import COUNT, DTYPE, MODEL, PATH, given, json_option
from harness.cli.output import print_json, print_table
from harness.cli.teacher_responses import command as responses

if TYPE_CHECKING:
    from dskd.teachers.probe.report import ProbeReport

EPILOG = """\b
Examples:
  harness teacher serve-command Qwen/Qwen2.5-7B --tensor-parallel 2
  harness teacher check http://teacher:8000 --head Qwen/Qwen2.5-7B
  harness teacher responses --help

\b
docs/served-teachers.md has a training with a teacher on another machine."""
SERVE_EPILOG = """\b
Examples:
  harness teacher serve-command models/teacher --port 8001 --dtype bfloat16
  harness teacher serve-command Qwen/Qwen2.5-72B --tensor-parallel 8 --max-model-len 2048
  harness teacher serve-command Qwen/Qwen2.5-7B --kind top_k --k 50
  harness teacher serve-command models/teacher --cpu

\b
The line is one command for a POSIX shell. vLLM has to be installed where it runs, and nothing of this project."""
CHECK_EPILOG = """\b
Examples:
  harness teacher check http://teacher:8000 --head Qwen/Qwen2.5-7B
  harness teacher check http://a:8000 http://b:8000 --model teacher --head models/teacher --against models/teacher
  harness teacher check http://teacher:8000 --kind text_log_probabilities --tokenizer Qwen/Qwen2.5-7B --json

\b
Exit codes: 0 where nothing is refused; 1 where something is, or no server answers; 2 for wrong input. A training puts the same
questions before its first step."""

KINDS = click.Choice(get_args(TeacherOutputKind))
KIND_HELP = "What the server is to give: hidden states for every method, or log-probabilities for those that can."
HEAD_HELP = "The teacher's output head with its config.json and tokenizer: a model folder, which may lack its other weights, or a name on the hub."
TOKENIZER_HELP = "The teacher's tokenizer: a folder, or a name on the hub. [default: that of --head]"
AGAINST_HELP = (
    "A model folder with all weights that the served model has to equal; it is run here on the probe's texts."
)


@click.group("teacher", epilog=EPILOG)
def command() -> None:
    """Serve a teacher with a stock vLLM server, check one that is served, or ask one for responses."""


command.add_command(responses)


@command.command("serve-command", epilog=SERVE_EPILOG)
@click.argument("model", metavar=MODEL)
@click.option("--kind", type=click.Choice(get_args(Served)), default="hidden_states", show_default=True, help=KIND_HELP)
@click.option("--name", metavar="NAME", help="Name of the model on the server. [default: MODEL as it is given]")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, metavar="N")
@click.option("--dtype", type=DTYPE, help="What the server computes in. [default: what the model is stored in]")
@click.option("--tensor-parallel", type=COUNT, default=1, show_default=True, metavar="N", help="GPUs for one model.")
@click.option("--max-model-len", type=COUNT, metavar="N", help="Tokens of the longest text. [default: the model's]")
@click.option("--k", type=COUNT, default=20, show_default=True, metavar="K", help="Tokens of top_k.")
@click.option("--cpu", is_flag=True, help="For vLLM's CPU build.")
def serve(model: str, **options: Any) -> None:
    """Print the line that starts a vLLM server with which MODEL can teach."""
    click.echo(serve_command(model, **options))


@command.command("check", epilog=CHECK_EPILOG)
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--model", metavar="NAME", help="Name of the model on the servers. [default: the only one there]")
@click.option("--head", type=PATH, metavar=MODEL, help=HEAD_HELP)
@click.option("--tokenizer", type=PATH, metavar=MODEL, help=TOKENIZER_HELP)
@click.option("--against", type=PATH, metavar="DIR", help=AGAINST_HELP)
@click.option("--kind", type=KINDS, default="hidden_states", show_default=True, help=KIND_HELP)
@click.option("--dtype", type=DTYPE, default="bfloat16", show_default=True, help="Of hidden states on the wire.")
@click.option("--k", type=COUNT, default=20, show_default=True, metavar="K", help="Tokens of top_k.")
@click.option("--api-key-env", default=API_KEY, show_default=True, metavar="NAME", help="Variable with the API key.")
@click.option("--longest", type=COUNT, metavar="N", help="Tokens of the longest text that a training will send.")
@json_option
@click.pass_context
def check(
    context: click.Context,
    urls: tuple[str, ...],
    head: Path | None,
    tokenizer: Path | None,
    against: Path | None,
    longest: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Probe the servers at the URLs, replicas of one teacher: is it the model of --head, and do they answer alike?"""
    if head is None and (options["kind"] == "hidden_states" or tokenizer is None):
        needed = "--head" if options["kind"] == "hidden_states" else "--tokenizer"
        raise InputError(f"teacher check: {needed} is missing; fix: give the teacher's folder, or its name on the hub")
    try:
        served = ServedOptions(addresses=urls, patience=0.0, **given(**options))
    except ValidationError as error:
        raise InputError(f"teacher check: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    try:
        report = _probe(served, head, tokenizer, against, longest)
    except TrainingFailed as error:
        click.echo(f"error: {error}", err=True)
        context.exit(1)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_table(("check", "server", "result", "found"), report.lines())
    if report.refused:
        context.exit(1)


def _probe(
    served: ServedOptions, head: Path | None, tokenizer: Path | None, against: Path | None, longest: int | None
) -> ProbeReport:
    # With torch and transformers, which help and `serve-command` need not wait for.
    from transformers.utils import logging

    from dskd.modeling.head_alone import read_head
    from dskd.modeling.head_folder import head_folder
    from dskd.modeling.loading import load_tokenizer
    from dskd.teachers.engines.served import open_served_engine
    from dskd.teachers.probe.probe import ExpectedTeacher, Probe
    from dskd.teachers.probe.reference import write_reference
    from dskd.tokenization.vocabulary import Vocabulary

    logging.disable_progress_bar()
    place = hub.tokenizer_folder(tokenizer or head or "", where="--tokenizer" if tokenizer else "--head")
    loaded = load_tokenizer(place)
    vocabulary, read = Vocabulary.from_tokenizer(loaded), None
    fingerprint = vocabulary.fingerprint
    if served.kind == "hidden_states":
        folder = head_folder(head or "", where="--head")
        read, _ = read_head(folder, vocabulary, dtype="float32", device="cpu")
        vocabulary = vocabulary.truncate_to_head(read.size, str(folder))
    with tempfile.TemporaryDirectory() as scratch:
        if against is not None:
            copy, reference = hub.model_folder(against, where="--against"), Path(scratch) / "reference.safetensors"
            if Vocabulary.from_tokenizer(load_tokenizer(copy)).fingerprint != fingerprint:
                raise InputError(
                    f"--against: {against} has another tokenizer than {place}; fix: give a copy of that model"
                )
            write_reference(copy, reference, tokenizer=place)
            served = served.model_copy(update={"reference": reference})
        with open_served_engine(served, vocabulary.size) as engine:
            expected = ExpectedTeacher(str(head or tokenizer), loaded, vocabulary, read, longest)
            return Probe(engine, served, expected).run()
