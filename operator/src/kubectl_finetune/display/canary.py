"""What `status` shows of a ModelDeployment's canary: how far it is, what was counted, what each check lacks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from finetune_api.modeldeployment import Canary
from finetune_view.fields import Fields
from finetune_view.object_view import ObjectView
from kubectl_finetune.display.numbers import age, counted, figure
from kubectl_finetune.display.terminal import Row

_ENDS = (("errors", "failed"), ("refused", "refused"), ("left", "left"))
_STYLES = {"Pass": "green", "Fail": "bold red"}


def canary_rows(view: ObjectView, now: datetime) -> Iterator[Row]:
    """The rows of one that is under way, and of the newest that was rolled back."""
    canary = view.status.at("canary")
    if canary:
        yield Row("Canary", [canary.text("revision"), step_line(view, now)])
        yield Row("Counted", list(_counts(view, canary)))
        for check in canary.at("checks"):
            yield Row("Check", [check_line(check)], _STYLES.get(check.text("verdict"), ""))
    elif newest := next(iter(view.status.at("aborted")), None):
        since = age(newest.time("time"), now)
        revision = newest.text("revision")
        yield Row("Rolled back", [f"{revision}{f', {since} ago' if since else ''}: {newest.text('message')}"])


def step_line(view: ObjectView, now: datetime | None = None) -> str:
    """Where it is; with `now`, since when."""
    canary = view.status.at("canary")
    since = "" if now is None else age(canary.time("phaseTime"), now)
    parts = [f"step {canary.text('step')} of {len(_steps(view))}", f"{canary.text('percent') or '0'} % of the requests"]
    parts += [f"{canary.text('phase')}{f' for {since}' if since else ''}", canary.text("verdict")]
    return ", ".join(part for part in parts if part)


def progress_line(view: ObjectView) -> str:
    """Where it is, and how much is known, in one line."""
    return f"{step_line(view)}, {_answered(view.status.at('canary', 'canary'))} answered"


def _counts(view: ObjectView, canary: Fields) -> Iterator[str]:
    steps = _steps(view)
    number = min(canary.whole("step") or 1, len(steps))
    its = canary.at("canary")
    least = steps[number - 1]
    following = canary.text("nextLookRequests")
    if canary.text("phase") == "Analysing":
        looks = f"; the checks are looked at next at {following}" if following not in ("", "0") else ""
        yield f"canary: {_answered(its)} of at least {least} answered{_ends(its)}{looks}"
    else:
        yield f"canary: {_answered(its)} answered{_ends(its)}"
    yield f"what serves: {_answered(canary.at('stable'))} answered{_ends(canary.at('stable'))}"


def _answered(counts: Fields) -> int:
    requests, refused, left = (counts.whole(name) or 0 for name in ("requests", "refused", "left"))
    return max(0, requests - refused - left)


def _ends(counts: Fields) -> str:
    found = [f"{counts.text(name)} {word}" for name, word in _ENDS if counts.text(name) not in ("", "0")]
    return f" ({', '.join(found)})" if found else ""


def check_line(check: Fields) -> str:
    """Both values, the interval beside the margin, the verdict, and how many requests it takes."""
    metric, share = check.text("metric"), check.text("share")
    scale, unit = (100, "points more") if metric == "ErrorRate" else (1, "times")
    values = [check.number(name) for name in ("canary", "stable", "low", "high", "margin")]
    its, other, low, high, margin = (None if value is None else figure(value * scale, 3) for value in values)
    percent = " %" if metric == "ErrorRate" else ""
    parts = [f"{metric} ({share})" if share and share != "Errors" else metric]
    parts.append(f"{its}{percent}, what serves {other}{percent}" if its and other else "too few samples")
    if high:
        parts.append(f"{low or '?'} to {high} {unit}")
    if margin:
        parts.append(f"{margin} allowed")
    found = f"{', '.join(parts)}: {check.text('verdict')}"
    needed = check.whole("requestsNeeded")
    return found if needed is None else f"{found}, {counted(needed, 'request')} needed as it goes"


def _steps(view: ObjectView) -> list[int]:
    """The least requests of each step, the smallest share first; of a canary that is omitted, the defaults."""
    steps = [
        (one.whole("percent") or 0, one.whole("minimumRequests") or 100)
        for one in view.fields.at("spec", "rollout", "canary", "steps")
    ]
    default = [(step.percent, step.minimum_requests) for step in Canary().steps]
    return [least for _, least in sorted(steps or default)]
