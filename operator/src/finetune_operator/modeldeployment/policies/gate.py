"""spec.gate: only a model that its Evaluation has judged and passed is served."""

from __future__ import annotations

from datetime import datetime

from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.modeldeployment.gate import gate_readiness
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, keep_serving


def wait_for_gate(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out no model that its evaluation has not passed."""
    closed = gate_readiness(observed, observed.resolved_model)
    return None if closed is None else keep_serving(observed, status, closed, now)
