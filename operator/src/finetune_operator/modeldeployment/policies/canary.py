"""rollout.type Canary: the next model replaces what serves only after a share of the requests has shown it no worse."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.base import LINE_LENGTH, whole_seconds
from finetune_api.canary import MOST_ABORTED, AbortedRevision, Canary, CanaryStatus
from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness, progressing, stalled
from finetune_operator.core.digest import digest, without
from finetune_operator.core.plan import Plan, earliest
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.modeldeployment.canary.machine import (
    Seen,
    begun,
    due,
    ended,
    is_drained,
    is_proved,
    ordered,
    promoting,
    turn,
)
from finetune_operator.modeldeployment.gate import gate_readiness
from finetune_operator.modeldeployment.gateway.readiness import ready_gateways, role_behind_service
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, serve, serve_beside
from finetune_operator.modeldeployment.serving.revisions import model_of, name_of
from finetune_operator.modeldeployment.serving.upkeep import should_make_room, wanted_replicas
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.roles import CANARY_ROLE, GATEWAY_ROLE, SERVE_ROLE
from finetune_operator.pods.start_diagnosis import diagnose_start

TELL_SECONDS = 1
UNHEARD_SECONDS = 60
BROKEN_SECONDS = 600
"""What has not answered for so long is replaced without a comparison: a drain or a restart takes less."""
DeploymentPlan = Plan[ModelDeploymentStatus]


def follow_canary(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """What is known of a canary is counted and judged, whatever else the next revision waits for."""
    unready = {"unready_time": _unready_time(observed, now)}
    plan = replace(plan, status=plan.status.model_copy(update=unready))
    canary = plan.status.canary
    if canary is None:
        return plan
    found = turn(canary, _spec(observed), wanted_replicas(observed), _seen(observed, canary, now), now)
    update: dict[str, object] = {"canary": found.canary}
    if found.rolled_back is not None:
        aborted = AbortedRevision(
            revision=canary.revision,
            canary_spec=_digest(observed),
            message=found.rolled_back[:LINE_LENGTH],
            time=whole_seconds(now),
        )
        others = [one for one in plan.status.aborted if one.revision != canary.revision]
        update["aborted"] = [aborted, *others][:MOST_ABORTED]
    elif found.canary is not None and found.canary.phase != "Ending" and _is_refused(observed, canary):
        update["canary"] = ended(found.canary, "Withdrawn", now)
    return replace(plan, status=plan.status.model_copy(update=update))


def look_again(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """When a canary is to be looked at, though nothing happens."""
    canary, before = plan.status.canary, observed.status.canary
    # The gateways are told what the status says once it is read again.
    told = now + timedelta(seconds=TELL_SECONDS) if _told(canary) != _told(before) else None
    following = None if canary is None else due(canary, _spec(observed), now)
    unheard = None if canary is None or not _is_unheard(canary) else _unheard_time(canary)
    broken = _broken_time(plan.status)
    later = [moment for moment in (unheard, broken) if moment is not None and moment > now]
    return replace(plan, requeue_at=earliest([plan.requeue_at, following, told, *later]))


def prove_next_revision(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Let the next model prove itself; None: it needs not, and is rolled out."""
    following, serves = observed.resolved_model.source, applied_model(observed)
    if serves is None or serves.revision == following.revision or observed.spec.rollout.type != "Canary":
        status = _withdrawn(status, now)
        return serve(observed, status, following, now) if status.canary is not None else None
    aborted = next((one for one in status.aborted if one.revision == following.revision), None)
    if aborted is not None and aborted.canary_spec == _digest(observed):
        told = stalled(Reason.ROLLED_BACK, _rolled_back(aborted))
        return serve_beside(observed, _withdrawn(status, now, unless=following), told, now)
    if not _may_run(observed):
        told = progressing(Reason.CANARY_RUNNING, f"{following.revision!r} is not rolled out: {_MAY_NOT_RUN}")
        return serve_beside(observed, _withdrawn(status, now), told, now)
    status = _withdrawn(status, now, unless=following)
    canary = status.canary
    if canary is None or canary.phase == "Ending":
        if _is_broken(observed, status, now):
            return serve(observed, status, following, now)
        if status.unready_time is not None:
            return serve_beside(observed, status, progressing(Reason.CANARY_RUNNING, _waits(following)), now)
    if canary is None:
        canary = begun(following, now)
    elif is_proved(canary, _spec(observed)):
        canary = promoting(canary, now)
    elif canary.phase == "Promoting" and is_drained(canary, now) and _is_gone(observed):
        return serve(observed, status.model_copy(update={"canary": None}), following, now)
    status = status.model_copy(update={"canary": canary})
    return serve_beside(observed, status, _readiness(observed, canary, now), now)


_MAY_NOT_RUN = (
    "a canary needs replicas, the operator's image for the gateway (--gateway-image) and its progress endpoint "
    "(--progress-url)."
)


def _may_run(observed: ObservedModelDeployment) -> bool:
    """Whether there can be something to compare with, and something that splits the requests."""
    has_gateway = observed.gateway_image is not None and observed.progress_endpoint is not None
    return has_gateway and wanted_replicas(observed) > 0


def _withdrawn(
    status: ModelDeploymentStatus, now: datetime, unless: ModelSource | None = None
) -> ModelDeploymentStatus:
    """A canary ends, but for one of this model."""
    canary = status.canary
    if canary is None or canary.phase == "Ending" or (unless is not None and canary.revision == unless.revision):
        return status
    return status.model_copy(update={"canary": ended(canary, "Withdrawn", now)})


def _told(canary: CanaryStatus | None) -> object:
    return None if canary is None else (canary.split, canary.percent, canary.sources)


def _is_refused(observed: ObservedModelDeployment, canary: CanaryStatus) -> bool:
    """Whether its gate has failed by now, or its class does not allow it any more."""
    model, class_, uri = observed.model, observed.class_, observed.spec.model.uri
    models = [uri] if uri else []
    if not isinstance(class_, Readiness) and source_violation(class_.spec, models=models, datasets=[]) is not None:
        return True
    if not isinstance(model, ResolvedModel) or model.source.revision != canary.revision:
        return False
    closed = gate_readiness(observed, model)
    return closed is not None and closed.reason == Reason.GATE_FAILED


def _unready_time(observed: ObservedModelDeployment, now: datetime) -> datetime | None:
    """Since when nothing answers that a canary could be compared with."""
    is_asked = observed.spec.rollout.type == "Canary" and wanted_replicas(observed) > 0
    if not is_asked or any(pod.ready for pod in observed.pods):
        return None
    return observed.status.unready_time or whole_seconds(now)


def _is_broken(observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime) -> bool:
    """Whether what is to serve does not, and not just for a moment: nothing ever has, or it makes room already."""
    broken = _broken_time(status)
    if broken is None:
        return False
    has_served = any(one.available_time is not None for one in status.history)
    return not has_served or should_make_room(observed.deployment) or now >= broken


def _broken_time(status: ModelDeploymentStatus) -> datetime | None:
    """When what is not ready counts as broken."""
    return None if status.unready_time is None else status.unready_time + timedelta(seconds=BROKEN_SECONDS)


def _waits(following: ModelSource) -> str:
    return (
        f"The canary {following.revision!r} begins once a Pod of what serves is ready. If none is for "
        f"{BROKEN_SECONDS // 60} minutes, the model is rolled out without one."
    )


def _spec(observed: ObservedModelDeployment) -> Canary:
    return observed.spec.rollout.canary or Canary()


def _digest(observed: ObservedModelDeployment) -> str:
    """Of how it was to prove itself: asked for otherwise, it is tried again. A field that is new is no difference."""
    return digest(without(_spec(observed), {"approvedRevision"}), 16)


def _is_gone(observed: ObservedModelDeployment) -> bool:
    return observed.of_role("Deployment", CANARY_ROLE) is None


def _pods_of(observed: ObservedModelDeployment, canary: CanaryStatus) -> list[PodView]:
    """Those of its model: the Deployment may have some of another one."""
    models = {item["metadata"]["name"]: model_of(observed.owner, item) for item in observed.config_maps}
    pods = (pod for pod in observed.canary_pods if not pod.terminating)
    return [pod for pod in pods if name_of(models.get(pod.run_config)) == canary.revision]


def _seen(observed: ObservedModelDeployment, canary: CanaryStatus, now: datetime) -> Seen:
    pods = _pods_of(observed, canary)
    blocked = diagnose_start(None, tuple(pods), observed.warnings, now)
    return Seen(
        ready=sum(pod.ready for pod in pods),
        splits=ready_gateways(observed) > 0 and role_behind_service(observed, SERVE_ROLE) == GATEWAY_ROLE,
        reports=observed.reports,
        is_gone=_is_gone(observed),
        failing="" if blocked is None else blocked.readiness.message,
    )


def _readiness(observed: ObservedModelDeployment, canary: CanaryStatus, now: datetime) -> Readiness:
    name, steps = repr(canary.revision), ordered(_spec(observed))
    if canary.phase == "Ending":
        return progressing(Reason.CANARY_RUNNING, f"The canary {name} ends ({canary.outcome}).")
    if canary.phase == "Promoting":
        message = f"The canary {name} passed. It is rolled out as soon as its Pods have made room."
        return progressing(Reason.CANARY_RUNNING, message)
    step = steps[min(canary.step, len(steps)) - 1]
    if canary.phase == "Starting":
        failing = _seen(observed, canary, now).failing
        message = f"Pods of the canary {name} start for step {canary.step} of {len(steps)}, {step.percent} %."
        return progressing(Reason.CANARY_RUNNING, f"{message} {failing}".strip())
    if canary.phase == "WaitingForApproval":
        message = f"The canary {name} passed its last step. Set spec.rollout.canary.approvedRevision to it."
        return progressing(Reason.WAITING_FOR_APPROVAL, message)
    is_unheard = _is_unheard(canary) and now >= _unheard_time(canary)
    return progressing(
        Reason.CANARY_RUNNING,
        f"The canary {name} is in step {canary.step} of {len(steps)}, {step.percent} % of the requests: "
        f"{canary.verdict} after {canary.canary.requests} of at least {step.minimum_requests}."
        + (_unheard(canary) if is_unheard else ""),
    )


def _is_unheard(canary: CanaryStatus) -> bool:
    return canary.phase == "Analysing" and not canary.sources


def _unheard_time(canary: CanaryStatus) -> datetime:
    return canary.phase_time + timedelta(seconds=UNHEARD_SECONDS)


def _unheard(canary: CanaryStatus) -> str:
    return (
        f" No gateway has reported a request since {canary.phase_time:%Y-%m-%dT%H:%M:%SZ}: there was none, or a "
        "NetworkPolicy keeps the gateway from the operator's port 8443."
    )


def _rolled_back(aborted: AbortedRevision) -> str:
    return (
        f"The canary {aborted.revision!r} was rolled back: {aborted.message} It is not tried again. Roll out another "
        "model (a new runId), or change spec.rollout.canary."
    )
