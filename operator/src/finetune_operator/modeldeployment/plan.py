"""What to do next for a ModelDeployment: a pure function of what was observed.

What serves is kept up at every look (apply.py); only the next revision waits for its model, its class and its gate.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus, ServingRevision
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.core.plan import Plan, earliest, planned
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.applied_model import applied_model
from finetune_operator.modeldeployment.apply import outdated, upkeep, wanted_replicas
from finetune_operator.modeldeployment.contest import corrected, corrections, look_again, remembered
from finetune_operator.modeldeployment.gate import gate_readiness
from finetune_operator.modeldeployment.objects import selector_text, service_url
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.revisions import served_revision
from finetune_operator.modeldeployment.rollout import Rollout, rollout_of
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS


def plan(observed: ObservedModelDeployment, now: datetime) -> Plan[ModelDeploymentStatus]:
    """The writes that bring the deployment one step further, and keep up what serves already."""
    strangers = _name_taken(observed)
    own = observed if strangers is None else replace(observed, deployment=_own(observed, observed.deployment))
    found = strangers or _next_model(observed)
    applied = applied_model(observed) if isinstance(found, Readiness) else found
    writes = upkeep(observed, applied, now)
    before = remembered(observed.status.drift, now)
    record = corrected(before, writes.drift, now)
    own = replace(own, status=own.status.model_copy(update={"drift": record}))
    rollout = rollout_of(own, wanted_replicas(observed), applied, writes, now)
    readiness = _held(found, applied, rollout) if isinstance(found, Readiness) else _within_limits(observed, rollout)
    rolls = applied is not None and not rollout.complete
    decided = planned(
        observed,
        _as_it_is(own, applied, rollout),
        _phase(found, rollout),
        readiness,
        now,
        apply=writes.apply,
        merge=writes.merge,
        delete=[*writes.delete, *(outdated(observed, writes.config_maps) if rollout.complete else ())],
        requeue_at=earliest([now + timedelta(seconds=START_CHECK_SECONDS) if rolls else None, look_again(record, now)]),
    )
    notes = corrections(before, record, writes.remade, observed.owner.name)
    return replace(decided, events=(*notes, *decided.events))


def _next_model(observed: ObservedModelDeployment) -> ModelSource | Readiness:
    """The model that is to be served now, or what the next revision waits for."""
    spec, platform, model = observed.spec, observed.platform, observed.model
    if isinstance(platform, Readiness):
        return platform
    exceeded = _exceeded_limit(observed)
    if exceeded is not None and applied_model(observed) is None:
        return stalled(Reason.LIMIT_EXCEEDED, exceeded)
    refused = source_violation(platform.spec, models=[spec.model.uri] if spec.model.uri else [], datasets=[])
    if refused is not None:
        return refused
    if isinstance(model, Readiness):
        return model
    held = gate_readiness(observed.gate, spec.gate.evaluation_ref.name if spec.gate else "", spec.model, model)
    return model.source if held is None else held


def _exceeded_limit(observed: ObservedModelDeployment) -> str | None:
    """That the class allows fewer replicas than the spec asks for, as a message."""
    platform, asked = observed.platform, observed.spec.replicas
    if isinstance(platform, Readiness) or asked <= platform.spec.limits.replicas:
        return None
    return f"spec.replicas is {asked}; FineTuneClass {platform.name!r} allows {platform.spec.limits.replicas}."


def _within_limits(observed: ObservedModelDeployment, rollout: Rollout) -> Readiness:
    """Where the Pods stand. An autoscaler that asks for more than the class allows does not block: it is reported."""
    exceeded = _exceeded_limit(observed)
    if exceeded is None or applied_model(observed) is None or rollout.readiness.stalled:
        return rollout.readiness
    return replace(rollout.readiness, reason=Reason.LIMIT_EXCEEDED, message=f"{exceeded} {rollout.readiness.message}")


def _held(found: Readiness, applied: ModelSource | None, rollout: Rollout) -> Readiness:
    """What keeps the next revision back, and what serves meanwhile."""
    if applied is not None:
        return replace(found, message=f"{found.message} {rollout.summary}")
    return replace(found, message=f"{found.message} The model is not served.") if found.stalled else found


def _phase(found: ModelSource | Readiness, rollout: Rollout) -> str:
    if isinstance(found, Readiness):
        return "Blocked" if found.stalled else "Waiting"
    if rollout.readiness.stalled:
        return "Blocked"
    return "Available" if rollout.complete else "RollingOut"


def _as_it_is(own: ObservedModelDeployment, applied: ModelSource | None, rollout: Rollout) -> ModelDeploymentStatus:
    """The status, true to the Pods that there are."""
    counts = (own.deployment or {}).get("status", {})
    served = served_revision(rollout.revisions, applied) if applied is not None else None
    update: dict[str, object] = {
        "revision": served.name if served is not None else None,
        "served": served.model.over(own.status.served) if served is not None and served.model is not None else None,
        "applied": applied.over(own.status.applied) if applied is not None else None,
        "revisions": [
            ServingRevision(revision=one.name, replicas=one.replicas, ready_replicas=one.ready)
            for one in rollout.revisions
        ],
        "replicas": counts.get("replicas", 0),
        "ready_replicas": counts.get("readyReplicas", 0),
        "selector": selector_text(own.owner),
    }
    if applied is not None:
        update |= {"url": service_url(own.owner), "model_name": own.owner.name}
    if applied is not None and not isinstance(own.platform, Readiness):
        update["class_name"] = own.platform.name
    return own.status.model_copy(update=update)


def _name_taken(observed: ObservedModelDeployment) -> Readiness | None:
    """Never take over a Service or Deployment that somebody else made under our name."""
    for kind, item in (("Deployment", observed.deployment), ("Service", observed.service)):
        if item is not None and _own(observed, item) is None:
            return stalled(
                Reason.NAME_CONFLICT,
                f"A {kind} named {observed.owner.name!r} exists already and is not of this ModelDeployment. Delete it, "
                "or give the ModelDeployment another name.",
            )
    return None


def _own(observed: ObservedModelDeployment, item: Object | None) -> Object | None:
    return item if item is not None and is_controlled_by(item, observed.owner.uid) else None
