"""rollout.type Canary: the next model replaces what serves only after a share of the requests has shown it no worse."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.canary import AbortedRevision, Canary, CanaryStatus
from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.core.digest import digest
from finetune_operator.core.plan import Plan, earliest
from finetune_operator.modeldeployment.canary.machine import Seen, begun, due, ended, ordered, turn
from finetune_operator.modeldeployment.gateway.readiness import ready_gateways, role_behind_service
from finetune_operator.modeldeployment.objects import SERVE_ROLE
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, serve, serve_beside
from finetune_operator.modeldeployment.serving.upkeep import wanted_replicas
from finetune_operator.pods.roles import GATEWAY_ROLE
from finetune_operator.pods.start_diagnosis import diagnose_start

TELL_SECONDS = 1
DeploymentPlan = Plan[ModelDeploymentStatus]


def follow_canary(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """What is known of a canary is counted and judged, whatever else the next revision waits for."""
    canary = plan.status.canary
    if canary is None:
        return plan
    found = turn(canary, _spec(observed), wanted_replicas(observed), _seen(observed, canary, now), now)
    update: dict[str, object] = {"canary": found.canary}
    if found.rolled_back is not None:
        update["aborted"] = AbortedRevision(
            revision=canary.revision,
            canary_spec=_digest(observed),
            message=found.rolled_back[:LINE_LENGTH],
            time=whole_seconds(now),
        )
    return replace(plan, status=plan.status.model_copy(update=update))


def look_again(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """When a canary is to be looked at, though nothing happens."""
    canary, before = plan.status.canary, observed.status.canary
    # The gateways are told what the status says once it is read again.
    told = now + timedelta(seconds=TELL_SECONDS) if _told(canary) != _told(before) else None
    following = None if canary is None else due(canary, _spec(observed), now)
    return replace(plan, requeue_at=earliest([plan.requeue_at, following, told]))


def _told(canary: CanaryStatus | None) -> object:
    return None if canary is None else (canary.split, canary.percent, canary.sources)


def prove_next_revision(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Let the next model prove itself; None: it needs not, or has, and is rolled out."""
    canary, following, serves = status.canary, observed.resolved_model.source, applied_model(observed)
    is_asked = observed.spec.rollout.type == "Canary" and observed.spec.gateway is not None
    is_ending = canary is not None and canary.phase == "Ending"
    if serves is None or serves.revision == following.revision or not is_asked or not _answers(observed):
        if canary is not None and not is_ending and not (canary.phase == "Promoting" and _is(canary, serves)):
            status = status.model_copy(update={"canary": ended(canary, "Withdrawn", now)})
        return serve(observed, status, following, now) if canary is not None else None
    aborted = status.aborted
    is_of_another = canary is not None and not is_ending and canary.revision != following.revision
    if canary is not None and is_of_another:
        status = status.model_copy(update={"canary": ended(canary, "Withdrawn", now)})
    if aborted is not None and (aborted.revision, aborted.canary_spec) == (following.revision, _digest(observed)):
        return serve_beside(observed, status, stalled(Reason.ROLLED_BACK, _rolled_back(aborted)), now)
    if canary is None:
        status = status.model_copy(update={"canary": begun(following, now)})
    elif not is_of_another and canary.phase == "Promoting":
        return serve(observed, status, following, now)
    return serve_beside(observed, status, _readiness(observed, status, now), now)


def _is(canary: CanaryStatus, serves: object) -> bool:
    return getattr(serves, "revision", None) == canary.revision


def _answers(observed: ObservedModelDeployment) -> bool:
    """Whether there is something to compare with: what does not serve, or is scaled to zero, is replaced at once."""
    is_under_way = observed.status.canary is not None and observed.status.canary.phase != "Ending"
    return wanted_replicas(observed) > 0 and (is_under_way or any(pod.ready for pod in observed.pods))


def _spec(observed: ObservedModelDeployment) -> Canary:
    return observed.spec.rollout.canary or Canary()


def _digest(observed: ObservedModelDeployment) -> str:
    """Of how it was to prove itself: asked for otherwise, it is tried again."""
    spec = _spec(observed).model_copy(update={"approved_revision": None})
    return digest(spec.to_wire(), 16)


def _seen(observed: ObservedModelDeployment, canary: CanaryStatus, now: datetime) -> Seen:
    # A Pod of the Deployment's template before is not of this model.
    pods = [pod for pod in observed.canary_pods if not pod.terminating]
    blocked = diagnose_start(None, tuple(pods), observed.warnings, now)
    newest = observed.status.history[0] if observed.status.history else None
    is_promoted = newest is not None and newest.revision == canary.revision and newest.available_time is not None
    return Seen(
        ready=sum(pod.ready for pod in pods),
        splits=ready_gateways(observed) > 0 and role_behind_service(observed, SERVE_ROLE) == GATEWAY_ROLE,
        reports=observed.reports,
        is_promoted=is_promoted,
        failing="" if blocked is None else blocked.readiness.message,
    )


def _readiness(observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime) -> Readiness:
    canary = status.canary
    assert canary is not None
    name, steps = repr(canary.revision), ordered(_spec(observed))
    if canary.phase == "Ending":
        return progressing(Reason.CANARY_RUNNING, f"The canary {name} ends ({canary.outcome}).")
    step = steps[min(canary.step, len(steps)) - 1]
    if canary.phase == "Starting":
        failing = _seen(observed, canary, now).failing
        message = f"Pods of the canary {name} start for step {canary.step} of {len(steps)}, {step.percent} %."
        return progressing(Reason.CANARY_RUNNING, f"{message} {failing}".strip())
    if canary.phase == "WaitingForApproval":
        message = f"The canary {name} passed its last step. Set spec.rollout.canary.approvedRevision to it."
        return progressing(Reason.WAITING_FOR_APPROVAL, message)
    return progressing(
        Reason.CANARY_RUNNING,
        f"The canary {name} is in step {canary.step} of {len(steps)}, {step.percent} % of the requests: "
        f"{canary.verdict} after {canary.canary.requests} of at least {step.minimum_requests}.",
    )


def _rolled_back(aborted: AbortedRevision) -> str:
    return (
        f"The canary {aborted.revision!r} was rolled back: {aborted.message} It is not tried again. Roll out another "
        "model (a new runId), or change spec.rollout.canary."
    )
