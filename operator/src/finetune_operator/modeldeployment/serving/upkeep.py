"""Every reconciliation restores the serving objects as they were applied, whatever the model or the gate is doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.managed_fields import (
    ForeignChange,
    drifted,
    is_applied,
    is_disowned,
    is_new,
    reclaimed,
    take_over,
)
from finetune_operator.core.ownership import ROLE_LABEL, is_controlled_by
from finetune_operator.core.plan import Child
from finetune_operator.kube.resources import CONFIG_MAPS, DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES, Object
from finetune_operator.modeldeployment.gateway.readiness import role_behind_service
from finetune_operator.modeldeployment.objects import service
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model, config_maps_of
from finetune_operator.modeldeployment.serving.desired import desired_objects, key_of, wanted_replicas
from finetune_operator.modeldeployment.serving.drift import next_correction_time, recent_drift, recent_rounds
from finetune_operator.pods.roles import CANARY_ROLE, SERVE_ROLE

_RESOURCES = {one.kind: one for one in (CONFIG_MAPS, DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES)}


@dataclass(frozen=True)
class Upkeep:
    """The writes that correct the objects that serve.

    `config_maps`: those that it needs. `drift`: the fields that these writes revert, and who set them. `recreated`:
    what was deleted and these writes create again. `contested`: whether an object is not as it should be and is left
    so for a while, since another client keeps changing it.
    """

    apply: tuple[Object, ...] = ()
    merge: tuple[Object, ...] = ()
    delete: tuple[Child, ...] = ()
    config_maps: tuple[Object, ...] = ()
    drift: Mapping[str, ForeignChange] = field(default_factory=dict)
    recreated: tuple[str, ...] = ()
    contested: bool = False
    is_nothing: bool = True
    """Whether all that serves is as it should be; what only a canary needs is no part of it."""


def upkeep(observed: ObservedModelDeployment, model: ModelSource | None, now: datetime) -> Upkeep:
    """The writes that keep this model served with the wanted replicas; objects that we do not own are left alone."""
    if model is None:
        return Upkeep()
    if isinstance(observed.class_, Readiness):
        return _without_class(observed)
    wanted = desired_objects(observed, observed.class_, model, now)
    desired, beside = [*wanted.serving, *wanted.canary], wanted.canary
    found = {key_of(item): item for item in _existing(observed)}
    apply, merge, delete, forged = [], [], [], []
    drift: dict[str, ForeignChange] = {}
    contested = False
    for body in desired:
        item = found.get(key_of(body))
        if item is not None and not is_controlled_by(item, observed.owner.uid):
            continue
        changes = _drift_of(body, item)
        if item is not None and not is_new(body, item) and _is_contested(observed, changes, now):
            contested = True
            continue
        drift |= changes
        if _is_forged(body, item):
            assert item is not None
            forged.append(item)
            delete.append(_child(item))  # It may be immutable: made anew once it is gone.
        elif (taken := _taken_over(item)) is not None:
            # First it is made ours, and then applied without it.
            merge.append(taken)
            apply.append(body)
        elif item is not None and is_disowned(item):
            apply.append(reclaimed(body))
        elif not is_applied(body, item):
            apply.append(body)
    keys = {key_of(body) for body in desired}
    superfluous = [item for item in observed.extras if key_of(item) not in keys]
    is_nothing = not (contested or _served(apply, beside) or _served([*merge, *forged, *superfluous], beside))
    delete += [_child(item) for item in superfluous]
    config_maps = tuple(body for body in desired if body["kind"] == "ConfigMap")
    recreated = tuple(
        f"{kind} {name!r}" for kind, name in map(key_of, apply) if _was_there(observed, model, kind, name)
    )
    return Upkeep(tuple(apply), tuple(merge), tuple(delete), config_maps, drift, recreated, contested, is_nothing)


def _served(items: Sequence[Object], beside: Sequence[Object]) -> list[Object]:
    """Those that are not only a canary's."""
    keys = {key_of(body) for body in beside}
    found = (item for item in items if key_of(item) not in keys)
    return [item for item in found if item["metadata"].get("labels", {}).get(ROLE_LABEL) != CANARY_ROLE]


def _taken_over(item: Object | None) -> Object | None:
    return None if item is None else take_over(item)


def _drift_of(body: Object, item: Object | None) -> dict[str, ForeignChange]:
    """What others changed in an object of ours."""
    if item is None:
        return {}
    if _is_forged(body, item):
        return {"ConfigMap data": ForeignChange(None, f"object {item['metadata']['uid']}")}
    meta = body["metadata"]
    is_extra = meta["name"] != meta["ownerReferences"][0]["name"] and body["kind"] != "ConfigMap"
    whose = f"{body['kind']} {meta['name']}" if is_extra else body["kind"]
    return {f"{whose} {name}": change for name, change in drifted(body, item).items()}


def _was_there(observed: ObservedModelDeployment, model: ModelSource, kind: str, name: str) -> bool:
    """Whether an object that is not there has been: all of it is made with the model, whose status tells of it.

    But for what comes with a second replica or with a gateway.
    """
    if (kind != "ConfigMap" and name != observed.owner.name) or applied_model(observed) != model:
        return False
    if any(key_of(item) == (kind, name) for item in _existing(observed)):
        return False
    deployment = observed.deployment
    return kind != "ConfigMap" or (deployment is not None and name in config_maps_of(deployment))


def _is_forged(body: Object, item: Object | None) -> bool:
    return body["kind"] == "ConfigMap" and item is not None and item.get("data") != body["data"]


def _is_contested(observed: ObservedModelDeployment, changes: Mapping[str, ForeignChange], now: datetime) -> bool:
    """Whether it is too early to put these back. What is new is applied at once: a person waits for it."""
    status = observed.status
    rounds = recent_rounds(status.drift_rounds, now)
    due = next_correction_time(recent_drift(status.drift, now), changes, rounds)
    return due is not None and now < due


def outdated(observed: ObservedModelDeployment, needed: Sequence[Object]) -> tuple[Child, ...]:
    """The run configurations of revisions that are not served any more."""
    names = {item["metadata"]["name"] for item in needed}
    return tuple(_child(item) for item in observed.config_maps if item["metadata"]["name"] not in names)


def _without_class(observed: ObservedModelDeployment) -> Upkeep:
    """Pods are rendered from the class. Without it, what there is keeps its address, and may become less."""
    body = service(observed.owner, role_behind_service(observed, SERVE_ROLE))
    found, uid = observed.service, observed.owner.uid
    mine = found is None or is_controlled_by(found, uid)
    taken = _taken_over(found) if mine else None
    apply: tuple[Object, ...] = ()
    if mine and found is not None and is_disowned(found):
        apply = (reclaimed(body),)
    elif mine and (taken is not None or not is_applied(body, found)):
        apply = (body,)
    deployment = observed.deployment
    merge: tuple[Object, ...] = () if taken is None else (taken,)
    is_ours = deployment is not None and is_controlled_by(deployment, uid)
    if deployment is not None and is_ours and deployment["spec"]["replicas"] != wanted_replicas(observed):
        meta = {name: deployment["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
        kind = {name: deployment[name] for name in ("apiVersion", "kind")}
        merge = (*merge, {**kind, "metadata": meta, "spec": {"replicas": wanted_replicas(observed)}})
    return Upkeep(apply, merge, config_maps=observed.config_maps, is_nothing=not (apply or merge))


def _existing(observed: ObservedModelDeployment) -> list[Object]:
    found = [*observed.config_maps, observed.deployment, observed.service, *observed.extras]
    return [item for item in found if item is not None]


def _child(item: Object) -> Child:
    meta = item["metadata"]
    return Child(_RESOURCES[item["kind"]], meta["namespace"], meta["name"], meta["uid"])
