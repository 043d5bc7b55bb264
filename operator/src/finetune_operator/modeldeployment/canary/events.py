"""The Events of a canary: one for each transition, so that it can be told afterwards which share held when. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import Canary, CanaryStatus, ModelDeploymentStatus
from finetune_operator.core.conditions import EventNote
from finetune_operator.modeldeployment.canary.check_text import passed
from finetune_operator.modeldeployment.canary.readiness import rolled_back
from finetune_operator.modeldeployment.canary.steps import ordered

STARTED = "CanaryStarted"
SHARE_CHANGED = "CanaryShareChanged"
PASSED = "CanaryPassed"
WITHDRAWN = "CanaryWithdrawn"
_SAID_BY: dict[str, tuple[str, ...]] = {
    Reason.CANARY_RUNNING: (STARTED, SHARE_CHANGED, PASSED, WITHDRAWN),
    Reason.ROLLED_BACK: (Reason.ROLLED_BACK,),
}
"""The Events about conditions that these say, too, and with more."""


def with_canary_events(
    events: Sequence[EventNote], before: ModelDeploymentStatus, after: ModelDeploymentStatus, spec: Canary
) -> list[EventNote]:
    """The Events of a plan with those about what became of its canary, each thing told once."""
    found = _events(before, after, spec)
    reasons = {one.reason for one in found}
    return [*found, *(one for one in events if reasons.isdisjoint(_SAID_BY.get(one.reason, ())))]


def _events(before: ModelDeploymentStatus, after: ModelDeploymentStatus, spec: Canary) -> list[EventNote]:
    was, canary = before.canary, after.canary
    found = []
    if after.aborted[:1] != before.aborted[:1]:
        found.append(EventNote("Warning", Reason.ROLLED_BACK, rolled_back(after.aborted[0]).message))
    if canary is None:
        return found
    # The same one may begin again, once it has ended.
    if was is None or was.revision != canary.revision or (was.phase == "Ending" != canary.phase):
        found.append(EventNote("Normal", STARTED, _started(canary, spec)))
    if canary.split and (was is None or canary.split != was.split):
        found.append(EventNote("Normal", SHARE_CHANGED, _share(canary, was, spec)))
    has_changed = was is None or was.phase != canary.phase
    if canary.phase == "Promoting" and has_changed:
        counted = f"after {canary.canary.answered} requests that it answered: {passed(canary.checks)}"
        rest = "It gets none any more, and is rolled out as soon as its Pods have made room."
        message = f"The canary {canary.revision!r} passed step {canary.step} of {len(spec.steps)} {counted} {rest}"
        found.append(EventNote("Normal", PASSED, message))
    if canary.phase == "Ending" and canary.outcome == "Withdrawn" and has_changed:
        found.append(EventNote("Normal", WITHDRAWN, f"The canary {canary.revision!r} ends undecided: {_WITHDRAWN}"))
    return found


def _started(canary: CanaryStatus, spec: Canary) -> str:
    steps = ordered(spec)
    shares = ", ".join(f"{step.percent} %" for step in steps)
    return (
        f"The canary {canary.revision!r} begins: its Pods start. It is to get {shares} of the requests, in this order."
    )


def _share(canary: CanaryStatus, was: CanaryStatus | None, spec: Canary) -> str:
    steps = ordered(spec)
    step = steps[min(canary.step, len(steps)) - 1]
    has_passed = canary.passed is not None and was is not None and was.percent != canary.percent and canary.step > 1
    return (
        f"The canary {canary.revision!r} gets {canary.percent} % of the requests from now on: step {canary.step} of "
        f"{len(steps)}, at least {step.minimum_requests} requests."
        + (f" The step before passed: {canary.passed}" if has_passed else "")
    )


_WITHDRAWN = (
    "another model is to be served by now, its gate or class refuses it, or nothing splits the requests any more."
)
