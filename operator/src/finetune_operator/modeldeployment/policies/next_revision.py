"""What the next revision waits for, in the order of plan.py. Meanwhile the current one is kept serving."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.policies.applied_model import applied_model
from finetune_operator.modeldeployment.policies.gate import gate_readiness
from finetune_operator.modeldeployment.policies.serving import (
    DeploymentDecision,
    exceeded_limit,
    keep_serving,
    own,
    serve,
)
from finetune_operator.models.resolve import ResolvedModel


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


def wait_for_class(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out nothing without a class."""
    class_ = observed.class_
    return keep_serving(observed, status, class_, now) if isinstance(class_, Readiness) else None


def refuse_replicas(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Of the first revision only: what serves is scaled no further than the class allows, and reported (serving.py)."""
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


def wait_for_model(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out nothing before the job that produces the model has a result."""
    model = observed.model
    return keep_serving(observed, status, model, now) if isinstance(model, Readiness) else None


def wait_for_gate(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out no model that its evaluation has not passed."""
    spec = observed.spec
    name = spec.gate.evaluation_ref.name if spec.gate else ""
    closed = gate_readiness(observed.gate, name, spec.model, _model(observed))
    return None if closed is None else keep_serving(observed, status, closed, now)


def serve_next_revision(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision:
    """Roll the model out, or keep it serving: nothing holds it back."""
    return serve(observed, status, _model(observed).source, now)


def _model(observed: ObservedModelDeployment) -> ResolvedModel:
    assert isinstance(observed.model, ResolvedModel), "wait_for_model decides before"
    return observed.model
