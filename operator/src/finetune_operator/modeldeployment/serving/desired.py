"""The objects that are to be there: what serves, what a canary needs beside it, the disruption budget, the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_api.finetuneclass import FineTuneClassSpec
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.canary.objects import canary_objects
from finetune_operator.modeldeployment.canary.steps import is_drained, replicas_of
from finetune_operator.modeldeployment.gateway.objects import gateway_objects
from finetune_operator.modeldeployment.gateway.readiness import role_behind_service
from finetune_operator.modeldeployment.objects import disruption_budget, serving_objects, strategy_of
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.pods.roles import SERVE_ROLE


@dataclass(frozen=True)
class DesiredObjects:
    """`serving`: also the gateway and the disruption budget. `canary`: what only the canary needs."""

    serving: Sequence[Object]
    canary: Sequence[Object]


def desired_objects(
    observed: ObservedModelDeployment, class_: ResolvedClass, model: ModelSource, now: datetime
) -> DesiredObjects:
    """The objects with which this model is served."""
    strategy = strategy_of(observed.spec.rollout, makes_room=should_make_room(observed.deployment))
    behind = role_behind_service(observed, SERVE_ROLE)
    serving = serving_objects(observed.owner, wanted_replicas(observed), class_, model, strategy, behind)
    serving += _extras(observed, class_.spec)
    return DesiredObjects(serving, _canary(observed, class_, serving, now))


def wanted_replicas(observed: ObservedModelDeployment) -> int:
    """As many as asked for, but no more than the class allows; without a class, no more than there are."""
    class_ = observed.class_
    if isinstance(class_, Readiness):
        current: int = (observed.deployment or {}).get("spec", {}).get("replicas", 0)
        return min(observed.spec.replicas, current)
    return min(observed.spec.replicas, class_.spec.limits.replicas)


def should_make_room(deployment: Object | None) -> bool:
    """Whether Pods of the revision before are left and none answers: they may hold the accelerator of the next."""
    counts = (deployment or {}).get("status", {})
    return not counts.get("readyReplicas") and counts.get("updatedReplicas", 0) < counts.get("replicas", 0)


def key_of(item: Object) -> tuple[str, str]:
    """Kind and name."""
    return item["kind"], item["metadata"]["name"]


def _extras(observed: ObservedModelDeployment, class_spec: FineTuneClassSpec) -> list[Object]:
    """The disruption budget of several replicas, and the gateway."""
    owner, asked, image = observed.owner, observed.spec.gateway, observed.gateway_image
    found: list[Object] = []
    budget = disruption_budget(owner)
    # Of one replica it allows the eviction, so that it may stay.
    if wanted_replicas(observed) > 1 or any(key_of(item) == key_of(budget) for item in observed.extras):
        found.append(budget)
    if asked is not None and image is not None:
        is_canary = observed.spec.rollout.type == "Canary" or observed.status.canary is not None
        found += gateway_objects(owner, asked, class_spec, image, observed.progress_endpoint if is_canary else None)
    return found


def _canary(
    observed: ObservedModelDeployment, class_: ResolvedClass, others: Sequence[Object], now: datetime
) -> list[Object]:
    """What serves the next model beside what serves, as long as it may get requests."""
    canary = observed.status.canary
    if canary is None or canary.model is None or is_drained(canary, now):
        return []
    spec = observed.canary_spec
    found = canary_objects(observed.owner, replicas_of(canary, spec, wanted_replicas(observed)), class_, canary.model)
    known = {key_of(item) for item in others}
    return [item for item in found if key_of(item) not in known]
