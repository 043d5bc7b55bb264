"""`python -m benchmarks.controller`: measures the operator with thousands of jobs on a real API server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.controller import measure, report
from benchmarks.controller.cluster import Size
from benchmarks.controller.products.kubeflow.build import controllers
from benchmarks.controller.products.kubeflow.product import Kubeflow
from benchmarks.controller.products.ours import ROOT, OnRevisions, Ours
from benchmarks.controller.products.product import Product
from e2e.cluster.components.control_plane import ControlPlane
from e2e.steps import console, failing_plainly, timings_table

TABLE_WIDTH = 160
RESULTS = ROOT / "benchmarks" / "results" / "controller.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    rival: Annotated[bool, typer.Option("--rival", help="Measure Kubeflow Trainer too, in turn.")] = False,
    datasets: Annotated[
        bool, typer.Option("--datasets", help="Measure jobs on revisions of Datasets too, in turn.")
    ] = False,
    live: Annotated[int, typer.Option(min=1, help="Jobs that are created at each rate while it is measured.")] = 200,
    finished: Annotated[int, typer.Option(min=1, help="Jobs that have ended before.")] = 3_000,
    rate: Annotated[list[float] | None, typer.Option(min=0.1, help="Creates a second; by default 5, 10, 20.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each on a fresh control plane.")] = 3,
    namespaces: Annotated[int, typer.Option(min=1, max=100, help="Namespaces that the jobs are spread over.")] = 20,
    resync_seconds: Annotated[
        float,
        typer.Option(
            help="The operator's resync interval in the idle phase, which lasts two of them, in the first round; "
            "0: no idle phase."
        ),
    ] = 120.0,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.", dir_okay=False)] = RESULTS,
) -> None:
    """Measure, print a table, write JSON; exit with status 1 when an aim is missed."""
    size = Size(live, tuple(rate or (5.0, 10.0, 20.0)), finished, namespaces, resync_seconds, rounds)
    results = report.Results(report.machine(), size, ())
    output.parent.mkdir(parents=True, exist_ok=True)
    with failing_plainly():
        if rival:
            controllers()
        for number in range(rounds):
            for make in turns(number, rival=rival, datasets=datasets):
                with_idle = number == 0 and resync_seconds > 0
                measured = asyncio.run(measure.one_round(make, size, with_idle=with_idle))
                results = dataclasses.replace(results, rounds=(*results.rounds, measured))
                output.write_text(json.dumps(dataclasses.asdict(results), indent=1) + "\n")
    console.print(timings_table())
    typer.echo()
    print_table(results)
    console.print(f"All of it: {output}", markup=False)
    if any(row.met is False for row in report.rows(results)):
        raise typer.Exit(1)


def turns(number: int, *, rival: bool, datasets: bool = False) -> list[Callable[[ControlPlane], Product]]:
    """Who is measured in this round, one after the other: who began the last one does not begin this one."""
    measured: list[Callable[[ControlPlane], Product]] = [Ours, *([OnRevisions] if datasets else [])]
    measured += [Kubeflow] if rival else []
    return measured if number % 2 == 0 else measured[::-1]


def print_table(results: report.Results) -> None:
    """The table, on stdout."""
    Console(width=TABLE_WIDTH).print(report.table(results))


if __name__ == "__main__":
    app()
