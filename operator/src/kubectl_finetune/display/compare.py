"""`compare`: two FineTuneJobs beside each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_view.fields import Fields
from finetune_view.object_view import ObjectView
from finetune_view.resource import FINE_TUNE_JOB
from kubectl_finetune.display.evaluation import score_line
from kubectl_finetune.display.numbers import duration, figure

ABSENT = "-"
_NOT_COMPARED = frozenset({"runId", "suspend", "cancel"})
_FIGURES = (
    ("reward", "trainReward", "reward"),
    ("validation reward", "validReward", "validReward"),
    ("loss", "trainLoss", "loss"),
    ("validation loss", "evalLoss", "evalLoss"),
)


def comparison(first: ObjectView, second: ObjectView) -> list[tuple[str, str, str]]:
    """What was measured of both, and then every setting in which they differ: name, first, second."""
    rows = list(_measured(first, second))
    for title, path in (("", ("spec",)), ("resolved.", ("status", "resolved"))):
        left, right = dict(_flat(first.fields.at(*path))), dict(_flat(second.fields.at(*path)))
        for name in sorted(left.keys() | right.keys()):
            ours, theirs = left.get(name, ABSENT), right.get(name, ABSENT)
            if ours != theirs and name not in _NOT_COMPARED:
                rows.append((f"{title}{name}", ours, theirs))
    return rows


def _measured(first: ObjectView, second: ObjectView) -> Iterator[tuple[str, str, str]]:
    for name, of_result, of_progress in _FIGURES:
        values = [
            figure(one.status.number("result", of_result) or one.status.number("progress", of_progress), 5) or ABSENT
            for one in (first, second)
        ]
        if values != [ABSENT, ABSENT] or "reward" not in name:
            yield name, values[0], values[1]
    for name, measure in (
        ("phase", lambda view: view.phase),
        ("step", lambda view: f"{view.status.text('progress', 'step')}/{view.status.text('progress', 'totalSteps')}"),
        ("took", took),
        ("attempts", lambda view: view.status.text("attempt", "number")),
        ("trained tokens", lambda view: view.status.text("result", "trainedTokens")),
        ("tokens per second", lambda view: view.status.text("progress", "tokensPerSecond")),
        ("accelerator hours", _hours),
        ("training examples", lambda view: view.status.text("dataset", "training", "examples")),
    ):
        yield name, measure(first).strip("/") or ABSENT, measure(second).strip("/") or ABSENT


def took(view: ObjectView) -> str:
    """From the start of the run to its end, without suspended time."""
    began, ended = view.status.time("startTime"), view.status.time("completionTime")
    if began is None or ended is None:
        return ""
    return duration((ended - began).total_seconds() - (view.status.number("suspendedSeconds") or 0))


def _hours(view: ObjectView) -> str:
    """Of all runs of the object in the month."""
    seconds = view.status.number("usage", "acceleratorSeconds")
    return "" if seconds is None else f"{seconds / 3600:.2f} ({view.status.text('usage', 'month')})"


def _flat(value: Fields, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value of an object by its path."""
    if isinstance(value.value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value.value, list):
        yield prefix, ", ".join(item.text() or "{...}" for item in value)
    elif value.value is not None:
        yield prefix, value.text()


def scores_of(evaluations: list[ObjectView], job: ObjectView) -> list[str]:
    """What Evaluations measured of the job's result: one line for each candidate and grader."""
    return [
        f"{evaluation.name}: {score_line(score)}"
        for evaluation in evaluations
        for candidate in evaluation.fields.at("spec", "candidates")
        if candidate.text("model", "fineTuneJobRef", "name") == job.name and job.kind is FINE_TUNE_JOB
        for score in evaluation.status.at("results")
        if score.text("candidate") == candidate.text("name")
    ]
