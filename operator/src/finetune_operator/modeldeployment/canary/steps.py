"""The steps of a canary: what is known of it decides how it continues. Pure; all that it remembers is in the status.

Starting -> Analysing -> the next step's Starting, until the last step passed -> (WaitingForApproval ->) Promoting: its
Pods go, which makes room, and then the model is rolled out. It is watched until then, whatever that waits for. From
everywhere it can be ended (Ending): rolled back, or withdrawn since the spec asks for another model by now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.modeldeployment import Canary, CanaryOutcome, CanaryPhase, CanaryStatus, CanaryStep
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.digest import digest
from finetune_operator.core.plan import earliest
from finetune_operator.modeldeployment.canary.check_text import passed, worse
from finetune_operator.modeldeployment.canary.checks import check_results, overall
from finetune_operator.modeldeployment.canary.counting import counted
from finetune_operator.modeldeployment.canary.observation import CanaryObservation
from finetune_operator.modeldeployment.canary.outage import outage, windowed
from finetune_operator.modeldeployment.canary.requests_needed import requests_needed

FIRST_LOOK_REQUESTS = 20
LOOK_GROWTH = 1.5
"""Each look at the checks needs half as many requests more than the one before."""
MOST_BETWEEN_LOOKS = 1000
START_SECONDS = 1800
UNREADY_SECONDS = 60
"""Of Pods that had requests and do not start again, and it is the model's fault; others have START_SECONDS."""
CRASH_SECONDS = 300
"""Of Pods that had no request yet, and it is the model's fault: a storage that is away for a moment is not."""
REPORT_SECONDS = 15
"""After a deadline: what gateways counted while the operator was away comes within it."""
DRAIN_SECONDS = 15
"""Longer than a gateway takes to ask again, so that what is removed gets no requests any more."""


@dataclass(frozen=True)
class Advance:
    """The canary after a step, or without one; None: it is over. `rolled_back`: why, if it was just now."""

    canary: CanaryStatus | None
    rolled_back: str | None = None


def is_running(canary: CanaryStatus | None) -> bool:
    """Whether there is a canary that has not ended."""
    return canary is not None and canary.phase != "Ending"


def new_canary(model: ModelSource, spec: Canary, now: datetime) -> CanaryStatus:
    """A canary of this model. An approval that is there already is one of an earlier canary."""
    return CanaryStatus(
        revision=model.revision,
        model=model,
        phase="Starting",
        phase_time=whole_seconds(now),
        ignores_approval=spec.approved_revision == model.revision,
    )


def ending(canary: CanaryStatus, outcome: CanaryOutcome, now: datetime) -> CanaryStatus:
    """It gets nothing any more."""
    return _without_requests(_in_phase(canary, "Ending", now)).model_copy(update={"outcome": outcome})


def is_proved(canary: CanaryStatus, spec: Canary) -> bool:
    """Whether it has passed everything, and may replace what serves as soon as nothing else holds that back."""
    if canary.step < len(spec.steps) or canary.phase not in ("Analysing", "WaitingForApproval"):
        return False
    return _is_approved(canary, spec) and (canary.phase == "WaitingForApproval" or canary.verdict == "Pass")


def _is_approved(canary: CanaryStatus, spec: Canary) -> bool:
    if spec.approval == "Automatic":
        return True
    return spec.approved_revision == canary.revision and not canary.ignores_approval


def promoting(canary: CanaryStatus, now: datetime) -> CanaryStatus:
    """It gets nothing any more, so that its accelerators are there for the rollout."""
    return _without_requests(_in_phase(canary, "Promoting", now))


def is_drained(canary: CanaryStatus, now: datetime) -> bool:
    """Whether no gateway sends it anything any more."""
    return canary.phase in ("Ending", "Promoting") and now >= canary.phase_time + timedelta(seconds=DRAIN_SECONDS)


def _without_requests(canary: CanaryStatus) -> CanaryStatus:
    update = {"percent": 0, "split": "", "sources": [], "unready_time": None, "failing_time": None}
    return canary.model_copy(update=update)


def replicas_of(canary: CanaryStatus, spec: Canary, replicas: int) -> int:
    """As many Pods as its share needs, of so many that all requests have."""
    return max(1, math.ceil(replicas * _step_of(canary, spec).percent / 100))


def ordered(spec: Canary) -> list[CanaryStep]:
    """The steps, the smallest share first."""
    return sorted(spec.steps, key=lambda step: step.percent)


def advance(canary: CanaryStatus, spec: Canary, replicas: int, observed: CanaryObservation, now: datetime) -> Advance:
    """How a canary goes on. `replicas`: how many Pods all requests have."""
    if canary.phase == "Ending":
        return Advance(None if observed.is_gone and is_drained(canary, now) else canary)
    if canary.phase == "Promoting":
        return Advance(canary)
    canary = counted(_with_readiness(_with_approval(canary, spec), observed, now), observed.reports)
    needed = replicas_of(canary, spec, replicas)
    fault = _fault(canary, observed, needed, now)
    if fault is not None:
        return _rolled_back(canary, fault, now)
    if canary.phase != "Starting" and canary.percent != _step_of(canary, spec).percent:
        canary = _in_phase(canary, "Starting", now)  # Its share was changed: the step begins again.
    if canary.phase == "Starting":
        fault = outage(canary, spec)  # It has its share of the step before.
        if fault is not None:
            return _rolled_back(canary, fault, now)
        return Advance(_started(windowed(canary), spec, needed, observed, now))
    found = _analysed(canary, spec, now)
    if found.canary is not None and found.canary.phase == "Starting":
        # Whether there are Pods enough for the next step is known, if it needs no more of them.
        needed = replicas_of(found.canary, spec, replicas)
        return Advance(_started(found.canary, spec, needed, observed, now))
    return found


def due(canary: CanaryStatus, spec: Canary, now: datetime) -> datetime | None:
    """When it is to be looked at next, whatever happens until then."""
    if canary.phase in ("Ending", "Promoting"):
        return None if is_drained(canary, now) else canary.phase_time + timedelta(seconds=DRAIN_SECONDS)
    start = canary.phase_time + timedelta(seconds=START_SECONDS) if canary.phase == "Starting" else None
    deadline = _deadline(canary, spec) if canary.phase == "Analysing" and spec.on_not_enough_data == "Abort" else None
    if deadline is not None and canary.overdue_time is not None:
        deadline = canary.overdue_time + timedelta(seconds=REPORT_SECONDS)
    moments = (start, deadline, *_gone(canary))
    return earliest(moment for moment in moments if moment is None or moment > now)


def _with_approval(canary: CanaryStatus, spec: Canary) -> CanaryStatus:
    """Once an earlier approval is gone, the next one counts."""
    ignores = canary.ignores_approval and spec.approved_revision == canary.revision
    return canary.model_copy(update={"ignores_approval": ignores})


def _with_readiness(canary: CanaryStatus, observed: CanaryObservation, now: datetime) -> CanaryStatus:
    is_unready, moment = observed.ready == 0, whole_seconds(now)
    is_failing = is_unready and observed.is_its_fault
    return canary.model_copy(
        update={
            "unready_time": (canary.unready_time or moment) if is_unready else None,
            "failing_time": (canary.failing_time or moment) if is_failing else None,
        }
    )


def _fault(canary: CanaryStatus, observed: CanaryObservation, needed: int, now: datetime) -> str | None:
    """What its Pods lack for too long. That no gateway answers is not its fault."""
    why = f" {observed.failing}" if observed.failing else ""
    is_late = canary.phase == "Starting" and now >= canary.phase_time + timedelta(seconds=START_SECONDS)
    if is_late and observed.ready < needed:
        return f"Its Pods were not ready within {START_SECONDS // 60} minutes.{why}"
    failing = canary.failing_time
    if failing is not None and now >= failing + timedelta(seconds=_failing_seconds(canary)):
        return f"None of its Pods has been ready for {_failing_seconds(canary)} seconds.{why}"
    gone = canary.unready_time
    if canary.split and gone is not None and now >= gone + timedelta(seconds=START_SECONDS):
        return f"None of its Pods has been ready for {START_SECONDS} seconds.{why}"
    return None


def _started(
    canary: CanaryStatus, spec: Canary, needed: int, observed: CanaryObservation, now: datetime
) -> CanaryStatus:
    """It waits until there are Pods enough for the step, and a gateway that sends them something."""
    if observed.ready < needed or not observed.splits:
        return canary
    steps = ordered(spec)
    step = min(canary.step, len(steps))
    moment = whole_seconds(now)
    fresh = {
        name: CanaryStatus.model_fields[name].default
        for name in ("stable", "canary", "recent_stable", "recent_canary", "overdue_time", "verdict")
    }
    update = {
        **fresh,
        "step": step,
        "percent": steps[step - 1].percent,
        "split": digest([canary.revision, step, moment.isoformat()], 16),
        "sources": [],
        "checks": [],
        "next_look_requests": FIRST_LOOK_REQUESTS,
    }
    return _in_phase(canary, "Analysing", now).model_copy(update=update)


def _analysed(canary: CanaryStatus, spec: Canary, now: datetime) -> Advance:
    step = _step_of(canary, spec)
    canary = _looked(canary, spec, step.minimum_requests)
    if canary.verdict == "Fail":
        return _rolled_back(canary, worse(canary.checks), now)
    fault = outage(canary, spec)
    if fault is not None:
        return _rolled_back(canary, fault, now)
    canary = windowed(canary)
    if canary.phase == "WaitingForApproval" or canary.verdict == "Pass":
        return _passed(canary, spec, len(spec.steps), now)
    deadline = _deadline(canary, spec)
    if deadline is not None and now >= deadline and spec.on_not_enough_data == "Abort":
        overdue = canary.overdue_time or whole_seconds(now)
        if now < overdue + timedelta(seconds=REPORT_SECONDS):
            return Advance(canary.model_copy(update={"overdue_time": overdue}))
        message = f"Step {canary.step} was undecided after {step.deadline_seconds} seconds and "
        return _rolled_back(canary, f"{message}{canary.canary.requests} requests to the canary.", now)
    return Advance(canary)


def _looked(canary: CanaryStatus, spec: Canary, minimum: int) -> CanaryStatus:
    """With the checks, if enough requests came for another look."""
    requests = canary.canary.requests
    if requests < canary.next_look_requests:
        return canary
    look = canary.looks + 1
    found = check_results(spec.checks, canary.stable, canary.canary, look, may_pass=canary.canary.answered >= minimum)
    results = [
        one.model_copy(update={"requests_needed": requests_needed(check, canary.stable, canary.canary)})
        if one.verdict == "NotEnoughData"
        else one
        for check, one in zip(spec.checks, found, strict=True)
    ]
    following = min(math.ceil(requests * LOOK_GROWTH), requests + MOST_BETWEEN_LOOKS)
    if requests < minimum < following:
        following = minimum
    return canary.model_copy(
        update={"looks": look, "next_look_requests": following, "checks": results, "verdict": overall(results)}
    )


def _passed(canary: CanaryStatus, spec: Canary, steps: int, now: datetime) -> Advance:
    if canary.step < steps:
        update = {"step": canary.step + 1, "passed": passed(canary.checks)[:LINE_LENGTH]}
        return Advance(_in_phase(canary, "Starting", now).model_copy(update=update))
    if not _is_approved(canary, spec):
        is_new = canary.phase != "WaitingForApproval"
        return Advance(_in_phase(canary, "WaitingForApproval", now) if is_new else canary)
    return Advance(canary)  # What rolls it out decides when (is_proved).


def _rolled_back(canary: CanaryStatus, why: str, now: datetime) -> Advance:
    return Advance(ending(canary, "RolledBack", now), rolled_back=why)


def _deadline(canary: CanaryStatus, spec: Canary) -> datetime | None:
    seconds = _step_of(canary, spec).deadline_seconds
    return None if seconds is None else canary.phase_time + timedelta(seconds=seconds)


def _step_of(canary: CanaryStatus, spec: Canary) -> CanaryStep:
    steps = ordered(spec)
    return steps[min(canary.step, len(steps)) - 1]


def _failing_seconds(canary: CanaryStatus) -> int:
    return UNREADY_SECONDS if canary.split else CRASH_SECONDS


def _gone(canary: CanaryStatus) -> list[datetime]:
    gone, failing = canary.unready_time, canary.failing_time
    moments = [] if gone is None else [gone + timedelta(seconds=START_SECONDS)]
    return moments if failing is None else [failing + timedelta(seconds=_failing_seconds(canary)), *moments]


def _in_phase(canary: CanaryStatus, phase: CanaryPhase, now: datetime) -> CanaryStatus:
    return canary.model_copy(update={"phase": phase, "phase_time": whole_seconds(now)})
