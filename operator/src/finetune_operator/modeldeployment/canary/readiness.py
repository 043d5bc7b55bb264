"""How far a canary is, as the condition Ready has it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import AbortedRevision, Canary, CanaryStatus, CanaryStep
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.modeldeployment.canary.check_text import passed, undecided
from finetune_operator.modeldeployment.canary.steps import ordered
from finetune_operator.modeldeployment.serving.health import UNAVAILABLE_SECONDS

NO_REPORT_SECONDS = 60


def canary_readiness(canary: CanaryStatus, spec: Canary, failing: str, now: datetime) -> Readiness:
    """The readiness while a canary runs. `failing`: why its Pods don't answer."""
    name, steps = repr(canary.revision), ordered(spec)
    if canary.phase == "Ending":
        return progressing(Reason.CANARY_RUNNING, f"The canary {name} ends ({canary.outcome}).")
    if canary.phase == "Promoting":
        message = f"The canary {name} passed. It is rolled out as soon as its Pods have made room."
        return progressing(Reason.CANARY_RUNNING, message)
    step = steps[min(canary.step, len(steps)) - 1]
    if canary.phase == "Starting":
        message = f"Pods of the canary {name} start for step {canary.step} of {len(steps)}, {step.percent} %."
        return progressing(Reason.CANARY_RUNNING, f"{message} {failing}".strip())
    if canary.phase == "WaitingForApproval":
        message = f"The canary {name} passed its last step. {_approval(canary, spec)} {passed(canary.checks)}"
        return progressing(Reason.WAITING_FOR_APPROVAL, f"{message} {failing}".strip())
    return progressing(Reason.CANARY_RUNNING, f"{_counted(canary, step, len(steps), now)} {failing}".strip())


def _counted(canary: CanaryStatus, step: CanaryStep, steps: int, now: datetime) -> str:
    """How far the step is, and what it lacks."""
    found = canary.canary
    unreported = no_report_time(canary)
    others = f" ({found.requests} with those refused or left)" if found.answered < found.requests else ""
    return (
        f"The canary {canary.revision!r} is in step {canary.step} of {steps}, {step.percent} % of the requests: "
        f"{canary.verdict} after {found.answered} of at least {step.minimum_requests}{others}"
        + (f"; looked at next at {canary.next_look_requests}." if canary.next_look_requests else ".")
        + (f" {lacks}" if (lacks := undecided(canary.checks)) else "")
        + (_no_report(canary) if unreported is not None and now >= unreported else "")
    )


def _approval(canary: CanaryStatus, spec: Canary) -> str:
    """What the approval lacks."""
    field = "spec.rollout.canary.approvedRevision"
    if canary.ignores_approval:
        return f"{field} named it before this canary began, which approves nothing: remove it, then set it again."
    if spec.approved_revision:
        return f"Set {field} to it, which is {spec.approved_revision!r}."
    return f"Set {field} to it."


def rolled_back(aborted: AbortedRevision) -> Readiness:
    """The readiness while the next model is one that was rolled back."""
    message = (
        f"The canary {aborted.revision!r} was rolled back: {aborted.message} It is not tried again. Roll out another "
        "model (a new runId), or change spec.rollout.canary."
    )
    return stalled(Reason.ROLLED_BACK, message)


def without_gateway(following: ModelSource) -> Readiness:
    """The readiness while there is nothing that could split the requests."""
    message = (
        f"{following.revision!r} is not rolled out: a canary needs replicas, the operator's image for the gateway "
        "(--gateway-image) and its progress endpoint (--progress-url)."
    )
    return progressing(Reason.CANARY_RUNNING, message)


def waiting_for_stable(following: ModelSource) -> Readiness:
    """The readiness while no Pod answers that a canary could be compared with."""
    message = (
        f"The canary {following.revision!r} begins once a Pod of what serves is ready. If none is for "
        f"{UNAVAILABLE_SECONDS // 60} minutes, the model is rolled out without one."
    )
    return progressing(Reason.CANARY_RUNNING, message)


def no_report_time(canary: CanaryStatus) -> datetime | None:
    """When it is told that no gateway has reported a request; None if one has, or none is awaited."""
    if canary.phase != "Analysing" or canary.sources:
        return None
    return canary.phase_time + timedelta(seconds=NO_REPORT_SECONDS)


def _no_report(canary: CanaryStatus) -> str:
    return (
        f" No gateway has reported a request since {canary.phase_time:%Y-%m-%dT%H:%M:%SZ}: there was none, or a "
        "NetworkPolicy keeps the gateway from the operator's port 8443."
    )
