"""`harness plan`: what a run would do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from harness.cli.options import json_option, matrix_options
from harness.cli.output import print_json, print_table
from harness.costs.work import Device
from harness.planning.estimate import Estimate, estimate
from harness.planning.plan import Plan, Selection, choose, make_plan

EPILOG = """\b
Examples:
  harness plan --matrix quick
  harness plan --matrix quick --only method=kd --only method=sft --json
  harness plan --matrix my.yaml --set TEACHER=models/teacher
  harness plan --matrix my.yaml --estimate --peak-tflops 989 --utilization 0.3
  harness plan --matrix paper-dolly-gpt2

\b
If published models or data are not on this machine, jobs cannot be planned. Then only the estimate is printed."""


@click.command("plan", epilog=EPILOG)
@matrix_options
@click.option(
    "--estimate", "with_estimate", is_flag=True, help="Estimate steps, tokens, memory and GPU-hours of the trainings."
)
@click.option(
    "--peak-tflops",
    type=click.FloatRange(min=0, min_open=True),
    default=312.0,
    show_default=True,
    metavar="X",
    help="Peak speed of the assumed GPU; 312 is that of an A100 in bfloat16.",
)
@click.option(
    "--utilization",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.4,
    show_default=True,
    metavar="X",
    help="Assumed share of the peak speed that trainings reach.",
)
@json_option
def command(with_estimate: bool, peak_tflops: float, utilization: float, as_json: bool, **asked: Any) -> None:
    """Show what a run would do: what is done, missing, failed or stale, and why.

    Nothing is written, except that the commits of models and data from the hub are locked (docs/hub.md).
    """
    choice = choose(
        *(asked[name] for name in ("matrix_name", "variables", "only", "add_methods", "output_dir", "skip"))
    )
    estimated = None
    if with_estimate or choice.missing:
        estimated = estimate(
            choice.matrix, choice.cells, Device(peak_tflops, utilization), str(choice.source), choice.lock
        )
    if estimated is not None and choice.missing:
        _print_unchecked(choice, estimated, as_json=as_json)
        return
    plan = make_plan(**asked)
    if as_json:
        print_json(_as_json(plan) | ({} if estimated is None else {"estimate": _estimate_as_json(estimated)}))
        return
    print_plan(plan)
    for _, name, locked, newest in plan.lock.moved():
        click.echo(
            f"On the hub {name} has moved from {locked[:12]}, which this run uses, to {newest[:12]}: harness lock --help"
        )
    if estimated is not None:
        click.echo()
        print_estimate(estimated)


def print_plan(plan: Plan) -> None:
    """Print a plan on standard output."""
    rows: list[tuple[str, str, str, str]] = []
    for job in plan.jobs.values():
        if job.action == "unneeded":
            continue
        if len(job.outputs) == 1:
            rows.append((job.title, job.status, job.action, _why(job.reason)))
            continue
        rows.append((job.title, "", job.action, _why(job.reason) if job.action == "blocked" else ""))
        for output in job.outputs:
            cell = output.output.cell
            named = Path(output.output.folder).name if cell is None else cell.column
            rows.append((f"  {named}", output.status, "", _why(output.reason)))
    print_table(("job", "state", "action", "why"), rows)
    counts = ", ".join(f"{number} {status}" for status, number in plan.counts().items() if number)
    kinds = Counter(job.kind for job in plan.to_run)
    jobs = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "nothing"
    click.echo(f"\nTrainings and evaluations: {counts}. To run: {jobs}. Results: {plan.root}")
    for model, addresses in plan.reaches().items():
        for address, number in addresses.items():
            click.echo(f"Teacher {model} has to be reachable at {address} for {number} job{'s' * (number != 1)}.")


def _print_unchecked(choice: Selection, estimated: Estimate, *, as_json: bool) -> None:
    """Print the cells and the estimate of a matrix whose models or data are not on this machine."""
    if as_json:
        document = {
            "matrix": choice.matrix.name,
            "cells": [cell.folder for cell in choice.cells],
            "tasks": choice.tasks,
            "not_checked": choice.missing,
            "jobs": None,
            "estimate": _estimate_as_json(estimated),
        }
        print_json(document)
        return
    teachers = sum(cell.student is None for cell in choice.cells)
    counts = {"student": len(choice.cells) - teachers, "teacher": teachers}
    of_each = ", ".join(f"{number} {role}{'s' * (number != 1)}" for role, number in counts.items() if number)
    tasks = f" on {', '.join(choice.tasks)}" if choice.tasks else ", not evaluated"
    click.echo(f"Cells of {choice.matrix.name}: {of_each}{tasks}\n")
    print_estimate(estimated)
    click.echo("\nNot on this machine:")
    for what in choice.missing:
        click.echo(f"  {what}")
    click.echo(
        "Not checked for that reason: the vocabularies of the pairs, the length of examples, what is done already."
    )


def print_estimate(estimated: Estimate, device: str = "") -> None:
    """Print an estimate on standard output; `device`: where the speed of the assumed GPU comes from."""
    click.echo("Estimate from shapes (nothing was run or measured):")
    header = ("", "what", "steps", "tokens", "PFLOP", "memory a GPU", "GPU-hours")
    rows = [
        (
            work.kind,
            work.what + (f" ({_short(work.disk_bytes / 1e9)} GB on disk)" if work.disk_bytes else ""),
            f"{work.steps:,}" if work.steps is not None else "–",
            f"{_short(work.tokens / 1e6)} M",
            _short(work.operations / 1e15),
            f"{_short(work.bytes / 1e9)} GB",
            _short(work.gpu_hours),
        )
        for work in estimated.work
    ]
    print_table(header, rows)
    click.echo(f"Together {_short(sum(work.gpu_hours for work in estimated.work))} GPU-hours.")
    click.echo(f"Assumed: {'; '.join(filter(None, (device, *estimated.assumptions)))}.")


def _short(number: float) -> str:
    """The number with two significant digits: no estimate is more precise."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _estimate_as_json(estimated: Estimate) -> dict[str, object]:
    return {
        "peak_tflops": estimated.device.peak_tflops,
        "utilization": estimated.device.utilization,
        "assumptions": estimated.assumptions,
        "work": [asdict(work) for work in estimated.work],
        "gpu_hours": sum(work.gpu_hours for work in estimated.work),
    }


def _why(reason: str) -> str:
    return "" if reason == "done" else reason


def _as_json(plan: Plan) -> dict[str, object]:
    locked = [{"kind": kind, "name": str(name), "commit": commit} for kind, name, commit in plan.lock]
    reaches = plan.reaches()
    return (
        ({"hub": locked} if locked else {})
        | ({"reachable": reaches} if reaches else {})
        | {
            "matrix": plan.name,
            "output_dir": str(plan.root),
            "counts": plan.counts(),
            "jobs": [
                {
                    "id": job.id,
                    "kind": job.kind,
                    "title": job.title,
                    "action": job.action,
                    "reason": job.reason,
                    "needs": list(job.needs),
                    "outputs": [
                        {"folder": each.output.folder, "identity": each.output.fingerprint.hash}
                        | {"status": each.status, "reason": each.reason}
                        for each in job.outputs
                    ],
                }
                for job in plan.jobs.values()
            ],
        }
    )
