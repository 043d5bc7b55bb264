"""The status of a ModelDeployment: what serves, as the Deployment and its Pods are."""

from __future__ import annotations

from finetune_api.modeldeployment import ModelDeploymentStatus, ServingRevision
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.modeldeployment.objects import selector_text, service_url
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.policies.revisions import served_revision
from finetune_operator.modeldeployment.policies.rollout import Rollout


def with_rollout(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, applied: ModelSource | None, rollout: Rollout
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
    if applied is not None and not isinstance(observed.class_, Readiness):
        update["class_name"] = observed.class_.name
    return status.model_copy(update=update)
