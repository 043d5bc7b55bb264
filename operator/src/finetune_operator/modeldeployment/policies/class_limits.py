"""What the class allows: the class itself, spec.replicas, spec.model.uri."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, exceeded_limit, keep_serving


def wait_for_class(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out nothing without a class."""
    class_ = observed.class_
    return keep_serving(observed, status, class_, now) if isinstance(class_, Readiness) else None


def refuse_replicas(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Of the first revision only: what serves is scaled no further than the class allows, which is reported."""
    exceeded = exceeded_limit(observed)
    if exceeded is None or applied_model(observed) is not None:
        return None
    return keep_serving(observed, status, stalled(Reason.LIMIT_EXCEEDED, exceeded), now)


def refuse_source(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out no model that the class does not allow."""
    class_, uri = observed.class_, observed.spec.model.uri
    assert not isinstance(class_, Readiness), "wait_for_class decides before"
    refused = source_violation(class_.spec, models=[uri] if uri else [], datasets=[])
    return None if refused is None else keep_serving(observed, status, refused, now)
