"""`diagnose`, `report`, `compare`, `lineage`."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune_view.resource import EVALUATION, FINE_TUNE_JOB, FINE_TUNE_SWEEP, Kind, Resource
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.resource import resource
from kubectl_finetune.commands.app import JobArgument, NameArgument, read, with_cluster
from kubectl_finetune.errors import ForbiddenError, NotFoundError

if TYPE_CHECKING:
    from finetune_view.object_view import ObjectView


@with_cluster
def diagnose(
    kubectl: Kubectl,
    name: NameArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="./finetune-NAMESPACE-NAME-TIME.zip"),
    ] = None,
) -> None:
    """Collect everything about a run in a zip file: object, Jobs, Pods, Events, logs, class.

    Secrets are never read. Tokens, passwords, presigned URLs and values of environment variables are redacted.
    """
    from kubectl_finetune.diagnostics import archive as diagnosing
    from kubectl_finetune.display.terminal import tell

    found, now = read(kubectl, resource(name)), datetime.now(UTC)
    file = output or diagnosing.default_file(found, now)
    for problem in diagnosing.diagnose(kubectl, found, file, now):
        tell(f"Not collected: {problem}")
    tell("Look through it before you send it: lines of a dataset may stand in errors and logs.")
    typer.echo(file)


@with_cluster
def report(
    kubectl: Kubectl,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A FineTuneSweep: fts/NAME.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="./finetune-NAMESPACE-NAME.html"),
    ] = None,
) -> None:
    """Write an HTML page about a sweep: its trials with intervals, their values, what matters, the learning curve.

    FineTuneJobs and Evaluations have a report of their own in the storage: status.result.reportUri, status.reportUri.
    """
    from kubectl_finetune.sweep_report.page import report_page

    found = read(kubectl, resource(name if "/" in name else f"fts/{name}", (FINE_TUNE_SWEEP,)))
    file = output or Path(f"finetune-{found.namespace}-{found.name}.html")
    file.write_text(report_page(found), encoding="utf-8")
    typer.echo(file)


@with_cluster
def compare(kubectl: Kubectl, first: JobArgument, second: JobArgument) -> None:
    """Show two FineTuneJobs side by side: what was measured, every setting that differs, and their evaluations."""
    from finetune_view.object_view import object_view
    from kubectl_finetune.display import compare as comparing
    from kubectl_finetune.display.terminal import console, print_table, tell

    jobs = [read(kubectl, resource(name, (FINE_TUNE_JOB,))) for name in (first, second)]
    to = console()
    print_table(to, ("", *(job.name for job in jobs)), comparing.comparison(*jobs))
    try:
        evaluations = [object_view(found) for found in kubectl.items(EVALUATION.resource)]
    except ForbiddenError as error:
        tell(f"Evaluations are not shown: {error}")
        return
    scores = {job.name: comparing.scores_of(evaluations, job) for job in jobs}
    for name, lines in scores.items():
        for line in lines:
            to.print(f"{name}: {line}", soft_wrap=True)
    if not any(scores.values()):
        tell("No Evaluation has scores of either: losses alone do not tell which model is better.")


@with_cluster
def lineage(kubectl: Kubectl, name: NameArgument) -> None:
    """Show what a model, a run or a Dataset was made from, with digests.

    From a ModelDeployment to its gate's evaluation, its job, the revisions of Datasets, and the teacher of these.
    """
    from kubectl_finetune.display import lineage as tracing
    from kubectl_finetune.display.terminal import console

    def find(kind: Kind, wanted: str) -> ObjectView | None:
        try:
            return read(kubectl, Resource(kind, wanted))
        except (ForbiddenError, NotFoundError):
            return None

    to = console()
    for depth, text in islice(tracing.lineage(read(kubectl, resource(name)), find), tracing.MOST_LINES):
        to.print(f"{'  ' * depth}{text}", soft_wrap=True, markup=False, highlight=False)
