"""What a watch has seen so far, and how it is shown: pure, so that time and terminal are the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune_view.children import Event, Pod, is_about, sorted_pods
from finetune_view.fields import Fields, Object
from finetune_view.measures import measures
from finetune_view.object_view import ObjectView, object_view
from finetune_view.resource import DATASET, FINE_TUNE_JOB, FINE_TUNE_SWEEP, MODEL_DEPLOYMENT
from kubectl_finetune.display.canary import progress_line
from kubectl_finetune.display.dataset import split_lines
from kubectl_finetune.display.evaluation import score_line
from kubectl_finetune.display.numbers import age, figure, sparkline
from kubectl_finetune.display.status import progress_rows, trial_counts
from kubectl_finetune.display.terminal import STYLES, Row, as_grid

MOST_LOSSES = 4096
"""Kept for the curve; later ones replace every second one."""
WIDE = 100
"""Columns from which the Pods' nodes are shown too."""


@dataclass
class WatchState:
    """The newest of everything. `notes`: what can't be shown, and why."""

    view: ObjectView | None = None
    deleted: bool = False
    pods: dict[str, Object] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _key: tuple[object, ...] = ()
    _printed: set[tuple[str, str, int]] = field(default_factory=set)

    def take_object(self, kind: str, found: Object) -> list[str]:
        """A new state of the object. Returns the lines to print where there is no terminal."""
        before, self.view = self.view, object_view(found)
        if before is not None and before.uid != self.view.uid:
            self.deleted = False
            self.pods.clear()
            self.losses.clear()
        if kind == "DELETED":
            self.deleted = True
            return [f"{self.view.resource} was deleted"]
        progress = self.view.status.at("progress")
        step, loss = progress.whole("step"), progress.number("loss")
        if self.view.outcome == "Succeeded":
            step = None  # That of the result, which may be an earlier one.
        if step is not None and loss is not None and (not self.losses or self.losses[-1][0] != step):
            # An attempt that resumes goes back to the step of its checkpoint.
            self.losses = [one for one in self.losses if one[0] < step] + [(step, loss)]
            if len(self.losses) > MOST_LOSSES:
                self.losses = self.losses[::2]
        key = worth_a_line(self.view)
        changed, self._key = key != self._key, key
        return [headline(self.view)] if changed else []

    def take_pod(self, kind: str, found: Object) -> list[str]:
        """A new state of a Pod."""
        pod = Pod(Fields(found))
        if kind == "DELETED":
            gone = self.pods.pop(pod.uid, None)
            return [f"Pod {pod.name}: gone"] if gone is not None else []
        before = self.pods.get(pod.uid)
        self.pods[pod.uid] = found
        known = None if before is None else Pod(Fields(before)).state
        return [f"Pod {pod.name}: {pod.state}"] if pod.state != known else []

    def take_event(self, kind: str, found: Object) -> list[str]:
        """An Event of the namespace, if it is about the object or its Pods; a repeated one at 2, 4, 8 ... times.

        A probe that fails while a server starts is repeated each second.
        """
        event = Event(Fields(found))
        uid = event.fields.text("metadata", "uid")
        if self.view is None or kind == "DELETED" or not is_about(event, self.view, list(self.pods.values())):
            return []
        self.events[uid] = event
        line = f"{event.type} {event.about} {event.text_and_count}"
        printed = (event.about, event.text, event.count.bit_length())
        if printed in self._printed or event.fields.text("involvedObject", "kind") == self.view.kind.name:
            return []  # The headline says what the object's own Events say.
        self._printed.add(printed)
        return [f"{line} ({event.moment.astimezone():%H:%M:%S})" if event.moment is not None else line]


def headline(view: ObjectView) -> str:
    """The state in one line."""
    ready, stalled, status = view.condition("Ready"), view.condition("Stalled"), view.status
    parts = [view.phase or "not looked at yet"]
    if not view.current:
        return "  ".join([*parts, "the operator has not seen the newest change yet"])
    if stalled.status == "True":
        parts.append(f"{stalled.reason}: {stalled.message}")
    elif ready.reason and ready.reason != view.phase:
        parts.append(ready.reason)
    if view.kind is FINE_TUNE_JOB:
        if attempt := status.text("attempt", "number"):
            parts.append(f"attempt {attempt}")
        parts += _progress(status.at("progress"))
        if view.outcome == "Succeeded" and (uri := status.text("result", "uri")):
            parts.append(uri)
    elif view.kind is FINE_TUNE_SWEEP:
        best = status.number("best", "score")
        parts += [trial_counts(status), f"best {figure(best)}" if best is not None else ""]
    elif view.kind is DATASET:
        parts += split_lines(status.at("revision")) if view.outcome == "Succeeded" else []
    elif view.kind is MODEL_DEPLOYMENT and status.at("canary") and view.outcome is None:
        parts.append(progress_line(view))
    elif view.outcome is None:
        parts += _progress(status.at("progress"))
    else:
        parts += [score_line(score) for score in status.at("results")] or [status.text("url")]
    return "  ".join(part for part in parts if part)


def _progress(progress: Fields) -> list[str]:
    percent = progress.number("percent")
    if percent is None:
        return []
    return [f"{percent:.0f}%", *(f"{label} {figure(number)}" for label, number in measures(progress))]


def worth_a_line(view: ObjectView) -> tuple[object, ...]:
    """What differs when a line is worth printing: losses and the time left change with each report, and are not."""
    stalled = view.condition("Stalled")
    return (
        *(view.uid, view.current, view.phase, view.condition("Ready").reason, stalled.status, stalled.reason),
        *(view.status.text("attempt", "number"), view.status.text("progress", "percent"), view.outcome),
        *(view.status.text("finished"), view.status.text("best", "score")),
        *(view.status.text("canary", name) for name in ("revision", "phase", "step", "percent", "verdict", "looks")),
    )


def screen_of(state: WatchState, now: datetime, width: int, height: int) -> RenderableType:
    """The live picture, no larger than the terminal."""
    view = state.view
    if view is None:
        return Text("waiting for the object ...")
    ready, stalled = view.condition("Ready"), view.condition("Stalled")
    since = age(view.phase_since, now)
    rows = [
        Row(view.kind.name, [f"{view.name}  (namespace {view.namespace})"], "bold"),
        Row(
            "Phase",
            [f"{view.phase or 'not looked at yet'} {f'for {since}' if since else ''}"],
            STYLES.get(view.phase, ""),
        ),
    ]
    if stalled.status == "True":
        rows.append(Row("Stalled", [f"{stalled.reason}: {stalled.message}"], "bold red"))
    elif ready.message:
        rows.append(Row("Why", [ready.message]))
    rows += [row for row in progress_rows(view.status, max(8, min(30, width - 60))) if row.lines]
    if len(state.losses) > 1:
        values = [loss for _, loss in state.losses]
        curve = sparkline(values, max(8, min(60, width - 40)))
        rows.append(Row("Loss", [f"{curve} {figure(values[0])} -> {figure(values[-1])}"], "cyan"))
    parts: list[RenderableType] = [as_grid(rows)]
    space = max(2, height - 12)
    pods = sorted_pods(state.pods.values())[-max(1, space // 2) :]
    if pods:
        parts += [Text(), _pods_table(pods, now, width)]
    events = sorted(state.events.values(), key=lambda event: event.timestamp)[-max(1, space - len(pods)) :]
    if events:
        parts += [Text(), *_event_lines(events, now)]
    parts += [Text(note, style="yellow") for note in state.notes]
    return Group(*parts)


def _pods_table(pods: list[Pod], now: datetime, width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    for pod in pods:
        cells = [Text(pod.name, no_wrap=True, overflow="ellipsis"), Text(pod.state, style=STYLES.get(pod.state, ""))]
        cells.append(Text(age(pod.created, now)))
        if width >= WIDE:
            cells.append(Text(pod.node or pod.why_waiting, no_wrap=True, overflow="ellipsis"))
        table.add_row(*cells)
    return table


def _event_lines(events: list[Event], now: datetime) -> Iterator[Text]:
    for event in events:
        text = f"{age(event.moment, now):>5}  {event.about}  {event.text}"
        yield Text(text, style=STYLES.get(event.type, "dim"), no_wrap=True, overflow="ellipsis")
