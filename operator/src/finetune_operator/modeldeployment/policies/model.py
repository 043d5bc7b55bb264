"""spec.model: rolled out once it is there."""

from __future__ import annotations

from datetime import datetime

from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, keep_serving


def wait_for_model(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out nothing before the job that produces the model has a result."""
    model = observed.model
    return keep_serving(observed, status, model, now) if isinstance(model, Readiness) else None
