"""`harness plan`: what a run would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import check_engine, matrix_options, variables

if TYPE_CHECKING:
    from harness.plan import Overwrite, Plan

EPILOG = """\b
Examples:
  harness plan --matrix quick
  harness plan --matrix quick --only method=kd --only method=sft --json
  harness plan --matrix my.yaml --set TEACHER=models/teacher"""


@click.command("plan", epilog=EPILOG)
@matrix_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(
    matrix_name: str,
    assignments: tuple[str, ...],
    only: tuple[str, ...],
    limit: int | None,
    engine: str | None,
    output_dir: Path | None,
    overwrite: Overwrite,
    as_json: bool,
) -> None:
    """Show what a run would do: what is done, missing, failed, and stale and why. Writes nothing."""
    from harness.plan import make_plan

    check_engine(engine)
    plan = make_plan(
        matrix_name,
        output_dir=output_dir,
        variables=variables(assignments),
        only=only,
        limit=limit,
        engine=engine,
        overwrite=overwrite,
    )
    print_plan(plan, as_json=as_json)


def print_plan(plan: Plan, *, as_json: bool = False) -> None:
    """Print a plan on standard output."""
    if as_json:
        click.echo(json.dumps(_as_json(plan), indent=2))
        return
    from harness.cli.output import print_table

    rows: list[tuple[str, str, str, str]] = []
    for job in plan.jobs.values():
        if job.action == "unneeded":
            continue
        if len(job.outputs) == 1:
            rows.append((job.spec.title, job.status, job.action, _why(job.reason)))
            continue
        rows.append((job.spec.title, "", job.action, _why(job.reason) if job.action == "blocked" else ""))
        for output in job.outputs:
            assert output.output.cell is not None
            rows.append((f"  {output.output.cell.task}", output.status, "", _why(output.reason)))
    print_table(("job", "state", "action", "why"), rows)
    counts = ", ".join(f"{number} {status}" for status, number in plan.counts().items() if number)
    kinds: dict[str, int] = {}
    for job in plan.to_run:
        kinds[job.spec.kind] = kinds.get(job.spec.kind, 0) + 1
    jobs = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "nothing"
    click.echo(f"\nTrainings and evaluations: {counts}. To run: {jobs}. Results: {plan.root}")


def _why(reason: str) -> str:
    return "" if reason == "done" else reason


def _as_json(plan: Plan) -> dict[str, object]:
    return {
        "matrix": plan.matrix.name,
        "output_dir": str(plan.root),
        "counts": plan.counts(),
        "jobs": [
            {
                "id": job.spec.id,
                "kind": job.spec.kind,
                "title": job.spec.title,
                "action": job.action,
                "reason": job.reason,
                "needs": list(job.needs),
                "outputs": [
                    {
                        "folder": output.output.folder,
                        "identity": output.output.identity.hash,
                        "status": output.status,
                        "reason": output.reason,
                    }
                    for output in job.outputs
                ],
            }
            for job in plan.jobs.values()
        ],
    }
