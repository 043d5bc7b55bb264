"""`python -m benchmarks.controller`: measures the operator with thousands of FineTuneJobs on a real API server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.controller import measure, report
from benchmarks.controller.cluster import Size, cluster, processes_peak
from benchmarks.controller.operator_process import ROOT
from e2e.steps import console, failing_plainly, timings_table

TABLE_WIDTH = 140

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    live: Annotated[int, typer.Option(min=1, help="FineTuneJobs that are created while it is measured.")] = 1000,
    finished: Annotated[int, typer.Option(min=0, help="FineTuneJobs that have ended before.")] = 10_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Creates a second.")] = 20.0,
    namespaces: Annotated[int, typer.Option(min=1, max=100, help="Namespaces that the jobs are spread over.")] = 20,
    resync_seconds: Annotated[
        float, typer.Option(min=30, help="The operator's resync interval; the idle phase lasts two of them.")
    ] = 120.0,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.", dir_okay=False)] = ROOT
    / "benchmarks"
    / "results"
    / "controller.json",
) -> None:
    """Measure, print a table, write JSON; exit with status 1 when an aim is missed."""
    size = Size(live, finished, rate, namespaces, resync_seconds)
    with failing_plainly():
        results = asyncio.run(_measure(size))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(dataclasses.asdict(results), indent=1) + "\n")
    console.print(timings_table())
    typer.echo()
    print_table(results)
    console.print(f"All of it: {output}", markup=False)
    if any(row.met is False for row in report.rows(results)):
        raise typer.Exit(1)


def print_table(results: report.Results) -> None:
    """The table, on stdout."""
    Console(width=TABLE_WIDTH).print(report.table(results))


async def _measure(size: Size) -> report.Results:
    made_on = report.machine()
    with cluster(size) as found:
        template = await measure.finished_template(found)
        seeded = await measure.seed(found, template, size)
        first_start = await measure.cold_start(found, size.finished + 1)
        live = await measure.live(found, size)
        found.operator.stop()
        cold_start = await measure.cold_start(found, size.live + size.finished + 1)
        idle = await measure.idle(found, size)
        return report.Results(
            machine=made_on,
            size=size,
            seeded_per_second=seeded,
            first_start=first_start,
            live=live,
            cold_start=cold_start,
            idle=idle,
            control_plane_resident=processes_peak(found.plane),
        )


if __name__ == "__main__":
    app()
