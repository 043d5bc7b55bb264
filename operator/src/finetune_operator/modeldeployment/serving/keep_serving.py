"""The model that was rolled out last is kept serving, or the next one is rolled out; the status says which."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus, ServingRevision
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.core.plan import Decision, earliest
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.objects import selector_text, service_url
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model
from finetune_operator.modeldeployment.serving.desired import wanted_replicas
from finetune_operator.modeldeployment.serving.drift import (
    correction_events,
    next_drift_check,
    recent_drift,
    recent_rounds,
    with_corrections,
    with_round,
)
from finetune_operator.modeldeployment.serving.history import with_rollout
from finetune_operator.modeldeployment.serving.revisions import served_revision
from finetune_operator.modeldeployment.serving.rollout import Rollout, rollout_of
from finetune_operator.modeldeployment.serving.upkeep import outdated, upkeep
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS

DeploymentDecision = Decision[ModelDeploymentStatus]


def keep_serving(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, waits: Readiness, now: datetime
) -> DeploymentDecision:
    """Keep serving the model that was rolled out last, while the next revision waits."""
    decision, rollout = _kept_up(observed, status, applied_model(observed), now)
    return replace(decision, readiness=_waiting(waits, applied_model(observed), rollout))


def serve(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, model: ModelSource, now: datetime
) -> DeploymentDecision:
    """Roll out this model, or keep it serving."""
    decision, rollout = _kept_up(observed, status, model, now)
    return replace(decision, readiness=_within_limits(observed, rollout))


def serve_during_canary(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, canary: Readiness, now: datetime
) -> DeploymentDecision:
    """Keep serving the model that was rolled out last, while another one proves itself, or has failed to.

    `canary`: what to say of that, if there is nothing to say of what serves; it is ready nevertheless.
    """
    decision, rollout = _kept_up(observed, status, applied_model(observed), now)
    found = _within_limits(observed, rollout)
    if not found.ready or found.reason != Reason.AVAILABLE:
        return replace(decision, readiness=replace(found, message=f"{found.message} {canary.message}"))
    return replace(decision, readiness=replace(canary, ready=True, message=f"{canary.message} {found.message}"))


def own(observed: ObservedModelDeployment, item: Object | None) -> Object | None:
    """The object, if it is this ModelDeployment's."""
    return item if item is not None and is_controlled_by(item, observed.owner.uid) else None


def exceeded_limit(observed: ObservedModelDeployment) -> str | None:
    """That the class allows fewer replicas than the spec asks for, as a message."""
    class_, asked = observed.class_, observed.spec.replicas
    if isinstance(class_, Readiness) or asked <= class_.spec.limits.replicas:
        return None
    return class_.exceeded("spec.replicas", asked, "replicas", class_.spec.limits.replicas)


def _kept_up(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, model: ModelSource | None, now: datetime
) -> tuple[DeploymentDecision, Rollout]:
    """The writes that correct the objects that serve, and how far the rollout is."""
    observed = replace(observed, status=status)
    writes = upkeep(observed, model, now)
    before = recent_drift(status.drift, now)
    drift = with_corrections(before, writes.drift, now)
    rounds = with_round(recent_rounds(status.drift_rounds, now), before, writes.drift, now)
    status = status.model_copy(update={"drift": drift, "drift_rounds": rounds})
    mine = replace(observed, deployment=own(observed, observed.deployment), status=status)
    rollout = rollout_of(mine, wanted_replicas(observed), model, writes, now)
    is_rolling_out = model is not None and not rollout.complete
    check = now + timedelta(seconds=START_CHECK_SECONDS) if is_rolling_out else None
    decision = DeploymentDecision(
        _with_rollout(mine, status, model, rollout, now),
        rollout.readiness,
        apply=writes.apply,
        merge=writes.merge,
        delete=[*writes.delete, *(outdated(observed, writes.config_maps) if rollout.complete else ())],
        events=correction_events(before, drift, writes.recreated, observed.owner.name),
        requeue_at=earliest([check, next_drift_check(drift, now, rounds)]),
        meanwhile=rollout.readiness.reason,
    )
    return decision, rollout


def _within_limits(observed: ObservedModelDeployment, rollout: Rollout) -> Readiness:
    """Where the Pods stand. An autoscaler that asks for more than the class allows does not block: it is reported."""
    exceeded = exceeded_limit(observed)
    if exceeded is None or applied_model(observed) is None or rollout.readiness.stalled:
        return rollout.readiness
    if rollout.readiness.reason == Reason.GATEWAY_UNAVAILABLE:
        return replace(rollout.readiness, message=f"{rollout.readiness.message} {exceeded}")
    return replace(rollout.readiness, reason=Reason.LIMIT_EXCEEDED, message=f"{exceeded} {rollout.readiness.message}")


def _waiting(waits: Readiness, applied: ModelSource | None, rollout: Rollout) -> Readiness:
    """What the next revision waits for, and what serves meanwhile."""
    if applied is not None and rollout.readiness.reason == Reason.GATEWAY_UNAVAILABLE and not waits.stalled:
        return replace(rollout.readiness, message=f"{rollout.readiness.message} {waits.message}")
    if applied is not None:
        return replace(waits, message=f"{waits.message} {rollout.summary}")
    return replace(waits, message=f"{waits.message} The model is not served.") if waits.stalled else waits


def _with_rollout(
    observed: ObservedModelDeployment,
    status: ModelDeploymentStatus,
    applied: ModelSource | None,
    rollout: Rollout,
    now: datetime,
) -> ModelDeploymentStatus:
    """The status with what is applied and what is served; `observed` has a Deployment only if it is our own."""
    counts = (observed.deployment or {}).get("status", {})
    served = served_revision(rollout.revisions, applied) if applied is not None else None
    model = served.model if served is not None else None
    update: dict[str, object] = {
        "revision": served.name if served is not None else None,
        "served": model.over(status.served) if model is not None else None,
        "applied": applied.over(status.applied) if applied is not None else None,
        "revisions": [
            ServingRevision(revision=one.name, replicas=one.replicas, ready_replicas=one.ready)
            for one in rollout.revisions
        ],
        "replicas": counts.get("replicas", 0),
        "ready_replicas": counts.get("readyReplicas", 0),
        "selector": selector_text(observed.owner),
    }
    if applied is not None:
        update |= {"url": service_url(observed.owner), "model_name": observed.owner.name}
        # With no replicas the rollout is complete too, but nothing has served.
        is_available = rollout.complete and wanted_replicas(observed) > 0
        update["history"] = with_rollout(status.history, applied, complete=is_available, now=now)
    if applied is not None and not isinstance(observed.class_, Readiness):
        update["class_name"] = observed.class_.name
    return status.model_copy(update=update)
