"""`harness teacher responses`: a training set of the responses of a teacher behind an address."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from dskd import hub
from dskd.data.examples import LeftOut, examples_in
from dskd.data.options import DataOptions, Takes, takes_of
from dskd.data.sources import rows_named
from dskd.errors import InputError
from dskd.io import read_object
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Template, set_template, template_of
from harness.cli.data_options import SOURCE, read_data_options, row_options
from harness.cli.options import COUNT, PATH, SEED, given, json_option, read_settings
from harness.cli.output import print_json, stages
from harness.costs.token_price import TokenPrice
from harness.endpoints.endpoint import Endpoint, Words
from harness.endpoints.folder import locked_folder, require_same
from harness.endpoints.log import ReplyLog
from harness.endpoints.replies import Api
from harness.planning.single_training import read_template
from harness.responses.asking import respond
from harness.responses.prompts import Asked, asked_of, with_place_for_answer
from harness.responses.requests import Asking
from harness.runs.store import write_json_atomic, write_jsonl_atomic

EPILOG = """\b
Examples:
  vllm serve Qwen/Qwen3-8B --port 8000        # the teacher; other servers and hosted APIs work too
  harness teacher responses --endpoint http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B --data train.jsonl --output responses/qwen
  harness teacher responses --endpoint http://a:8000/v1 --endpoint http://b:8000/v1 --model Qwen/Qwen3-8B --data train.jsonl \\
      --samples 4 --temperature 0.7 --max-new-tokens 1024 --parallel 64 --output responses/qwen-4
  harness teacher responses --endpoint https://api.openai.com/v1 --model gpt-4.1-mini --data prompts.jsonl --limit 20 \\
      --price prompt=0.4 --price completion=1.6 --output responses/hosted
  harness teacher responses --endpoint http://127.0.0.1:8000/v1 --model base --api completions --data train.jsonl --output responses/base
  harness train --student models/student --data responses/qwen/answers.jsonl --template chat --method sft --output out

\b
The examples are in OUTPUT/answers.jsonl, every reply as it came in OUTPUT/_replies.jsonl, counts and cost in OUTPUT/_report.json.
If interrupted, the same command resumes: what was answered is not asked again. With a larger --limit or --samples it asks only
what is new. docs/teacher-responses.md says what is left out and why."""

ANSWERS, REPLIES, SETTINGS, REPORT = "answers.jsonl", "_replies.jsonl", "_settings.json", "_report.json"
WORDS = Words(
    who="teacher",
    command="harness teacher responses",
    extra="endpoints",
    address="--endpoint",
    model="--model",
    timeout="--timeout",
    parallel="--parallel",
    left_out="--parameter NAME=null",
    length="--max-new-tokens",
)
ENDPOINT_HELP = "Address of an OpenAI-compatible API, as http://HOST:8000/v1; repeatable, for replicas of one model."
API_HELP = "chat: prompts are messages, which the server puts into its template; completions: a text to continue."
DATA_HELP = "Whose prompts are asked: a training set, or prompts without answers (docs/data-sources.md)."
TOGETHER_HELP = "Ask for all samples of a prompt in one request (`n` of the API): the prompt is paid once."
PARAMETER_HELP = "Another parameter of the request, as top_p=0.9; NAME=null leaves one out, as seed=null. Repeatable."
TEMPLATE_HELP = (
    "alpaca: instructions in Alpaca's text. chat, with --api completions: in the chat template of --tokenizer."
)
TOKENIZER_HELP = (
    "With --api completions: the teacher's tokenizer; prompts are sent as its ids, as a local teacher gets them."
)
ARGUMENT_HELP = "Argument of the server's chat template, as enable_thinking=false (vLLM, SGLang); repeatable."
PRICE_HELP = "What a million tokens cost: prompt=0.4 and completion=1.6, in any currency; the report then has the cost."
KEY_HELP = "Environment variable with the API key; local servers need none. The key is never stored or printed."
POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("responses", epilog=EPILOG)
@click.option("--endpoint", "addresses", required=True, multiple=True, metavar="URL", help=ENDPOINT_HELP)
@click.option("--model", required=True, metavar="NAME", help="The teacher, by the name that its server knows.")
@click.option("--api", type=click.Choice(["chat", "completions"]), default="chat", show_default=True, help=API_HELP)
@click.option("--data", required=True, type=PATH, metavar=SOURCE, help=DATA_HELP)
@row_options
@click.option("--limit", type=COUNT, metavar="N", help="The first N prompts.")
@click.option("--samples", type=COUNT, default=1, show_default=True, metavar="N", help="Responses to each prompt.")
@click.option("--together", is_flag=True, help=TOGETHER_HELP)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--max-new-tokens",
    type=COUNT,
    default=512,
    show_default=True,
    metavar="N",
    help="Of a response, its reasoning included; longer ones are left out.",
)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Of the sampling; each sample gets one of its own."
)
@click.option("--parameter", "more", multiple=True, metavar="NAME=VALUE", help=PARAMETER_HELP)
@click.option("--template", type=click.Choice(["alpaca", "chat"]), help=TEMPLATE_HELP)
@click.option("--system", metavar="TEXT", help="System message of conversations that have none.")
@click.option("--template-argument", "arguments", multiple=True, metavar="NAME=VALUE", help=ARGUMENT_HELP)
@click.option("--tokenizer", type=PATH, metavar="DIR|ORG/NAME", help=TOKENIZER_HELP)
@click.option("--price", "prices", multiple=True, metavar="prompt|completion=X", help=PRICE_HELP)
@click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, metavar="NAME", help=KEY_HELP)
@click.option("--parallel", type=COUNT, default=8, show_default=True, metavar="N", help="Requests at a time.")
@click.option("--timeout", type=POSITIVE, default=300.0, show_default=True, help="Seconds a request.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Of a request that fails, with backoff.",
)
@click.option("--output", required=True, type=PATH, metavar="DIR", help="Where examples, replies and the report go.")
@json_option
def command(
    addresses: tuple[str, ...],
    model: str,
    api: Api,
    data: Path,
    columns: Sequence[str],
    shape: str | None,
    limit: int | None,
    samples: int,
    together: bool,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    more: tuple[str, ...],
    template: str | None,
    system: str | None,
    arguments: tuple[str, ...],
    tokenizer: Path | None,
    prices: tuple[str, ...],
    api_key_env: str,
    parallel: int,
    timeout: float,
    retries: int,
    output: Path,
    as_json: bool,
) -> None:
    """Ask a teacher behind an address for responses to the prompts of a training set, and write both as a training set.

    The teacher is any model behind an OpenAI-compatible API. Responses that did not end, are empty or were refused are left out and
    counted.
    """
    endpoints = [Endpoint(address, api_key_env, timeout, retries, words=WORDS) for address in addresses]
    price = _price(prices)
    asked_by, loaded = _template(api, template, system, arguments, tokenizer)
    asking = Asking(
        api,
        model,
        max_new_tokens,
        temperature,
        samples,
        together,
        seed,
        read_settings(more, "--parameter"),
        asked_by,
    )
    asking.check("--parameter")
    prompts, left_out = _prompts(data, _takes(api, asked_by), read_data_options(columns, shape=shape), limit)
    where = f"--output {output}"
    with locked_folder(output, SETTINGS, where, "asking its teacher"):
        log = ReplyLog(output / REPLIES)
        _same_settings(output, log, asking, where, {"endpoints": [each.shown for each in endpoints], "data": str(data)})
        with stages() as stage, stage("responses", len(prompts) * (1 if together else samples)) as count:
            before = 0

            def advance(done: int, _total: int) -> None:
                nonlocal before
                count(done - before)
                before = done

            rows, report = respond(
                prompts,
                asking,
                endpoints,
                log,
                tokenizer=loaded,
                parallel=parallel,
                price=price,
                advance=advance,
            )
        write_jsonl_atomic(output / ANSWERS, rows)
        report = {"schema_version": 1, "model": model, **report, "unusable_rows": left_out.counts}
        write_json_atomic(output / REPORT, report)
    if as_json:
        print_json(report)
    else:
        for line in _lines(output / ANSWERS, report):
            click.echo(line)
    if left_out.total:
        click.echo(f"warning: rows that cannot be used, left out: {left_out}", err=True)
    if len(report["models"]) > 1:
        click.echo(f"warning: the server named several models: {', '.join(report['models'])}", err=True)


def _price(prices: tuple[str, ...]) -> TokenPrice | None:
    if not prices:
        return None
    try:
        return TokenPrice.model_validate(read_settings(prices, "--price"))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise InputError(f"--price {name}: {problem['msg']}; fix: --price prompt=X --price completion=Y") from None


def _template(
    api: Api, kind: str | None, system: str | None, arguments: tuple[str, ...], tokenizer: Path | None
) -> tuple[Template | None, Any | None]:
    """(how prompts are asked, the tokenizer that renders them here)."""
    settings = given(kind=kind, system=system)
    if arguments:
        settings["arguments"] = read_settings(arguments, "--template-argument")
    if api == "chat":
        if tokenizer is not None:
            raise InputError("--tokenizer: a chat API has its own; fix: leave it out, or --api completions")
        return read_template({"kind": "chat", **settings} if settings else {}), None
    template = read_template(settings)
    if tokenizer is None:
        if kind == "chat":
            raise InputError(
                "--template chat: is the tokenizer's, and none is here; fix: give --tokenizer, or --api chat"
            )
        return template, None
    loaded = load_tokenizer(hub.tokenizer_folder(tokenizer, where="--tokenizer"))
    if template is not None:
        set_template(loaded, template)
    return template_of(loaded), loaded


def _takes(api: Api, template: Template | None) -> Takes:
    """What of a row is asked: a chat API takes whatever it holds."""
    return "any" if api == "chat" and (template is None or template.kind == "chat") else takes_of(template)


def _prompts(data: Path, takes: Takes, options: DataOptions, limit: int | None) -> tuple[list[Asked], LeftOut]:
    left_out = LeftOut()
    rows = rows_named(data)
    if options.columns is None:
        rows = with_place_for_answer(rows)
    items = examples_in(islice(rows, limit), data, takes, options, left_out=left_out.add)
    try:
        return [asked_of(item) for item in items], left_out
    except InputError as error:
        raise InputError(f"--data {error}") from None


def _same_settings(output: Path, log: ReplyLog, asking: Asking, where: str, notes: dict[str, Any]) -> None:
    """Write down how the teacher is asked. InputError where there are replies to anything else."""
    names = ("api", "model", "max_new_tokens", "temperature", "seed")
    settings = {
        **{name: getattr(asking, name) for name in names},
        "samples_together": asking.samples if asking.together else None,
        "parameters": dict(asking.parameters),
        "template": None if asking.template is None else asking.template.model_dump(),
    }
    if next(log.rows(), None) is None:  # also where a first try got no reply
        write_json_atomic(output / SETTINGS, {"schema_version": 1, "settings": settings, **notes})
    else:
        before = read_object(output / SETTINGS).get("settings")
        require_same(before, settings, where, "replies", "one training set has one teacher that is asked in one way")


def _lines(path: Path, report: dict[str, Any]) -> list[str]:
    usage = report["usage"]
    each = f", {report['samples']} samples of each" if report["samples"] > 1 else ""
    names = ("not_asked", "without_end", "empty", "refused", "unreadable", "prompt_too_long")
    left_out = [f"{report[name]:,} {name.replace('_', ' ')}" for name in names if report.get(name)]
    tokens = [
        f"{'unknown' if usage[name] is None else format(usage[name], ',')} {name.replace('_', ' ')}"
        for name in ("prompt_tokens", "completion_tokens")
    ]
    requests = f"{usage['requests']:,} requests ({usage['retries']:,} retries)"
    cost = f", {usage['cost']:.4g} by the price given" if usage.get("cost") is not None else ""
    return [
        f"{path}: {report['kept']:,} responses to {report['prompts']:,} prompts{each}",
        *([f"left out: {', '.join(left_out)}"] if left_out else []),
        f"cost: {requests}, {', '.join(tokens)}, {usage['wall_seconds']:,.1f} s{cost}",
    ]
