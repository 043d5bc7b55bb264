"""The name of a ModelDeployment is that of its Deployment and its Service."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import stalled
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, keep_serving, own


def refuse_taken_name(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Never take over a Service or Deployment of the same name that is not ours."""
    for kind, item in (("Deployment", observed.deployment), ("Service", observed.service)):
        if item is not None and own(observed, item) is None:
            taken = stalled(
                Reason.NAME_CONFLICT,
                f"A {kind} named {observed.owner.name!r} already exists and does not belong to this ModelDeployment. "
                "Delete it, or give the ModelDeployment another name.",
            )
            return keep_serving(observed, status, taken, now)
    return None
