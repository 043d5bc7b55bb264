"""The model that is to be served now, and all that the next revision waits for, in order."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.conditions import Reason
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.policies.applied_model import applied_model
from finetune_operator.modeldeployment.policies.gate import gate_readiness
from finetune_operator.models.resolve import ResolvedModel


def next_model(observed: ObservedModelDeployment) -> ModelSource | Readiness:
    """The model, or the first thing that it waits for."""
    for prerequisite in PREREQUISITES:
        found = prerequisite(observed)
        if found is not None:
            return found
    assert isinstance(observed.model, ResolvedModel), "_no_model says so before"
    return observed.model.source


def own(observed: ObservedModelDeployment, item: Object | None) -> Object | None:
    """The object, if it is this ModelDeployment's."""
    return item if item is not None and is_controlled_by(item, observed.owner.uid) else None


def exceeded_limit(observed: ObservedModelDeployment) -> str | None:
    """That the class allows fewer replicas than the spec asks for, as a message."""
    class_, asked = observed.class_, observed.spec.replicas
    if isinstance(class_, Readiness) or asked <= class_.spec.limits.replicas:
        return None
    return f"spec.replicas is {asked}; FineTuneClass {class_.name!r} allows {class_.spec.limits.replicas}."


def _name_taken(observed: ObservedModelDeployment) -> Readiness | None:
    """Never take over a Service or Deployment that somebody else made under our name."""
    for kind, item in (("Deployment", observed.deployment), ("Service", observed.service)):
        if item is not None and own(observed, item) is None:
            return stalled(
                Reason.NAME_CONFLICT,
                f"A {kind} named {observed.owner.name!r} exists already and is not of this ModelDeployment. Delete it, "
                "or give the ModelDeployment another name.",
            )
    return None


def _no_class(observed: ObservedModelDeployment) -> Readiness | None:
    return observed.class_ if isinstance(observed.class_, Readiness) else None


def _too_many_replicas(observed: ObservedModelDeployment) -> Readiness | None:
    """Of the first revision only: what serves is scaled no further than the class allows, and reported (rollout)."""
    exceeded = exceeded_limit(observed)
    if exceeded is None or applied_model(observed) is not None:
        return None
    return stalled(Reason.LIMIT_EXCEEDED, exceeded)


def _source_not_allowed(observed: ObservedModelDeployment) -> Readiness | None:
    uri = observed.spec.model.uri
    if isinstance(observed.class_, Readiness):
        return None
    return source_violation(observed.class_.spec, models=[uri] if uri else [], datasets=[])


def _no_model(observed: ObservedModelDeployment) -> Readiness | None:
    return observed.model if isinstance(observed.model, Readiness) else None


def _gate_closed(observed: ObservedModelDeployment) -> Readiness | None:
    spec, model = observed.spec, observed.model
    if isinstance(model, Readiness):
        return None
    return gate_readiness(observed.gate, spec.gate.evaluation_ref.name if spec.gate else "", spec.model, model)


PREREQUISITES: tuple[Callable[[ObservedModelDeployment], Readiness | None], ...] = (
    _name_taken,
    _no_class,
    _too_many_replicas,
    _source_not_allowed,
    _no_model,
    _gate_closed,
)
