"""`status`, `watch`, `logs`, `events`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from finetune_view.resource import WITH_PODS
from kubectl_finetune.cluster.kubectl import Kubectl
from kubectl_finetune.cluster.resource import resource
from kubectl_finetune.commands.app import NameArgument, read, with_cluster
from kubectl_finetune.errors import ForbiddenError, NotFoundError

if TYPE_CHECKING:
    from finetune_view.object_view import ObjectView


@with_cluster
def status(
    kubectl: Kubectl,
    name: NameArgument,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All lines of logs, datasets and attempts.")] = False,
) -> None:
    """Show where a run stands, why, and what to do next."""
    from kubectl_finetune.display.status import status_rows
    from kubectl_finetune.display.terminal import console, print_rows

    found = read(kubectl, resource(name))
    rows = status_rows(found, datetime.now(UTC), budget_hours=_budget_hours(kubectl, found), all_lines=everything)
    print_rows(console(), rows)


def _budget_hours(kubectl: Kubectl, found: ObjectView) -> float | None:
    """What the class allows the namespace; None where that is not known, as classes need not be readable."""
    from finetune_view.fields import Fields

    name = found.status.text("usage", "className")
    if not name:
        return None
    try:
        platform = Fields(kubectl.get("finetuneclasses.finetune.dev", name))
    except (ForbiddenError, NotFoundError):
        return None
    return platform.number("spec", "limits", "acceleratorHoursPerMonth")


def _seconds(text: str) -> float:
    import re

    found = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s?)?", text)
    if not text or found is None:
        raise typer.BadParameter(f"{text!r} is not a time such as 90s, 10m or 1h30m.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


@with_cluster
def watch(
    kubectl: Kubectl,
    name: NameArgument,
    timeout: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="TIME", help="Stop watching after this time: 90s, 10m, 1h30m."),
    ] = None,
    until_stalled: Annotated[
        bool,
        typer.Option("--until-stalled", help="Also end when the run waits for someone to fix something."),
    ] = False,
) -> None:
    """Follow a run until it ends: live in a terminal, otherwise one line per change.

    A ModelDeployment's canary is followed until its model is rolled out or rolled back.

    Exit codes: 0 succeeded, 1 failed, 3 timed out (--timeout), 4 stalled (--until-stalled), 5 deleted.
    """
    from kubectl_finetune.display.status import status_rows
    from kubectl_finetune.display.terminal import console, print_rows
    from kubectl_finetune.follow import watch as watching

    to = console()
    code, state = watching.watch(kubectl, resource(name), to, timeout=timeout, until_stalled=until_stalled)
    if to.is_terminal and state.view is not None:
        print_rows(to, status_rows(state.view, datetime.now(UTC)))
    raise typer.Exit(code)


@with_cluster
def logs(
    kubectl: Kubectl,
    name: NameArgument,
    rank: Annotated[int | None, typer.Option(min=0, help="The training process, counting from 0.")] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every Pod, its name before each line.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="The attempt or try before the newest one.")
    ] = False,
    preflight: Annotated[bool, typer.Option("--preflight", help="The preflight, even if training has begun.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the Pod ends.")] = False,
    tail: Annotated[int, typer.Option(min=-1, help="Last lines only; -1: all.", show_default=False)] = -1,
) -> None:
    """Show the log of a run; without options, that of rank 0 of the newest attempt.

    If the Pod is gone, the end of the failed Pod's log is shown, which the status keeps. Of a ModelDeployment's Pod
    that still fetches its model, the log of that container is shown.
    """
    from finetune_view.log_choice import Wanted, kept_log, shown_instead
    from kubectl_finetune.cluster.read import pods_of
    from kubectl_finetune.display.terminal import tell
    from kubectl_finetune.follow import logs as reading

    if every and rank is not None:
        raise typer.BadParameter("--rank and --all exclude each other.")
    found = read(kubectl, resource(name, WITH_PODS))
    wanted = Wanted("preflight" if preflight else None, rank, every, previous)
    try:
        pods = reading.pods_to_show(found, pods_of(kubectl, found), wanted)
    except (ForbiddenError, NotFoundError) as error:
        kept = kept_log(found)
        if not kept:
            raise
        pod = found.status.text("failure", "pod") or "the Pod that failed"
        tell(f"{error}\nThis is the end of the log of {pod}, from status.failure:")
        typer.echo(kept)
        return
    if (instead := shown_instead(found, pods, wanted)) is not None:
        tell(instead)
    reading.show_logs(kubectl, found, pods, typer.echo, follow=follow, tail=tail)


@with_cluster
def events(kubectl: Kubectl, name: NameArgument) -> None:
    """Show the Events of an object and of its Jobs and Pods, newest last."""
    from finetune_view.children import selector
    from kubectl_finetune.cluster.read import events_of
    from kubectl_finetune.display.numbers import age
    from kubectl_finetune.display.terminal import console, print_table, tell

    found, now = read(kubectl, resource(name)), datetime.now(UTC)
    try:
        own = [*kubectl.items("jobs,pods", "-l", selector(found))]
    except ForbiddenError:
        own = []
    recorded = events_of(kubectl, found, own)
    if not recorded:
        tell(f"There are no Events about {found.resource}: clusters keep them for an hour. `status` has what lasts.")
        return
    rows = [(age(one.moment, now), one.type, one.about, one.text_and_count) for one in recorded]
    print_table(console(), ("AGE", "TYPE", "ABOUT", "EVENT"), rows, styled=1)
