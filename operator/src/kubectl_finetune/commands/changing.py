"""`suspend`, `resume`, `cancel`, `rerun`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from finetune_view.resource import RUNS
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.resource import resource
from kubectl_finetune.commands.app import RunArgument, read, with_cluster
from kubectl_finetune.errors import ExitCode, PluginError

if TYPE_CHECKING:
    from finetune_view.object_view import ObjectView


YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Stop a run in progress without asking.")]


@with_cluster
def suspend(kubectl: Kubectl, name: RunArgument) -> None:
    """Save what is done (a checkpoint, outputs) and free the accelerators; `resume` continues from it."""
    _set_suspend(kubectl, name, True)


@with_cluster
def resume(kubectl: Kubectl, name: RunArgument) -> None:
    """Continue a suspended run from what it has saved."""
    _set_suspend(kubectl, name, False)


def _set_suspend(kubectl: Kubectl, name: str, wanted: bool) -> None:
    from finetune_view.next_step import command
    from kubectl_finetune.spec.patch import patch_spec

    found = read(kubectl, resource(name, RUNS))
    verb = "suspended" if wanted else "not suspended"
    ended = f"Run {found.run_id} of {found.resource} has ended already, as {found.phase}."
    is_suspended = found.fields.at("spec", "suspend").value is True
    if found.outcome is not None and (wanted or not is_suspended):
        raise PluginError(ended)
    if is_suspended == wanted:
        typer.echo(f"{found.resource} is {verb} already.")
        return
    patch_spec(kubectl, found, {"suspend": wanted})
    if found.outcome is None:
        typer.echo(f"{found.resource} {'is being suspended' if wanted else 'resumes'}.")
    else:
        again = command(found, "rerun")
        typer.echo(f"{ended} It is not suspended any more: the next run starts at once. Run again: {again}")
    _warn_of_gitops(found)


def _warn_of_gitops(found: ObjectView) -> None:
    from finetune_view.changes import warning_of_gitops
    from kubectl_finetune.display.terminal import tell

    if warning := warning_of_gitops(found):
        tell(warning)


@with_cluster
def cancel(kubectl: Kubectl, name: RunArgument, yes: YesOption = False) -> None:
    """End a run for good, as Cancelled. What it has saved stays; `rerun` starts another run."""
    from kubectl_finetune.spec.patch import patch_spec

    found = read(kubectl, resource(name, RUNS))
    if found.outcome is not None:
        raise PluginError(f"Run {found.run_id} of {found.resource} has ended already, as {found.phase}.")
    _confirm(found, "ended for good", yes)
    patch_spec(kubectl, found, {"cancel": True})
    typer.echo(f"{found.resource} is being cancelled.")
    _warn_of_gitops(found)


@with_cluster
def rerun(
    kubectl: Kubectl,
    name: RunArgument,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="The new runId.", show_default="the next number")
    ] = None,
    yes: YesOption = False,
) -> None:
    """Run again with the same spec and a new runId. A run in progress is stopped first, with a checkpoint."""
    from finetune_view.changes import next_run_id, refused_run_id
    from kubectl_finetune.spec.patch import patch_spec

    found = read(kubectl, resource(name, RUNS))
    chosen = next_run_id(found) if run_id is None else run_id
    if refused := refused_run_id(found, chosen):
        raise PluginError(refused)
    if found.outcome is None and found.status:
        _confirm(found, "stopped", yes)
    again = {"runId": chosen} | ({"cancel": False} if found.fields.at("spec", "cancel").value is True else {})
    patch_spec(kubectl, found, again)
    suspended = found.fields.at("spec", "suspend").value is True
    typer.echo(f"{found.resource} runs again, as run {chosen}{', once it is resumed' if suspended else ''}.")
    _warn_of_gitops(found)


def _confirm(found: ObjectView, fate: str, yes: bool) -> None:
    """Ask before a run that goes on is stopped. Raises PluginError without a terminal."""
    if yes:
        return
    question = f"Run {found.run_id} of {found.resource} is {found.phase or 'new'} and will be {fate}. Continue?"
    if not sys.stdin.isatty():
        raise PluginError(f"{question} There is no terminal to ask: --yes says so.", ExitCode.WRONG_USAGE)
    typer.confirm(question, abort=True, err=True)
