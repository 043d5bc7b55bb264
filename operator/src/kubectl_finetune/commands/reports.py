"""`diagnose`, `compare`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from finetune_view.resource import EVALUATION, FINE_TUNE_JOB
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.resource import resource
from kubectl_finetune.commands.app import JobArgument, NameArgument, read, with_cluster
from kubectl_finetune.errors import ForbiddenError


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
