"""Which models the Pods have, each by the run configuration that it mounts: what serves is what answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from finetune_api.modeldeployment import UNKNOWN_REVISION
from finetune_api.pod_contracts.run import FetchRun, ModelSource
from finetune_operator.core.ownership import Owner, child_name
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import PodView
from finetune_operator.pods.roles import SERVE_ROLE

_MOST = 16


@dataclass(frozen=True)
class Revision:
    """A model and its Pods that are not going; `model` None: what it was has been deleted."""

    name: str
    model: ModelSource | None
    replicas: int
    ready: int


def name_of(model: ModelSource | None) -> str:
    """The model's revision; `unknown` of one that nothing is known of."""
    return UNKNOWN_REVISION if model is None else model.revision


def model_of(owner: Owner, config_map: Object) -> ModelSource | None:
    """The model of a run configuration; None of one that says nothing.

    Tenants may write ConfigMaps: one that is not what it is named for says nothing.
    """
    payload = config_map.get("data", {}).get("run.json", "")
    if config_map["metadata"]["name"] != child_name(owner, SERVE_ROLE, payload):
        return None
    try:
        return FetchRun.model_validate_json(payload).model
    except ValidationError:
        return None


def revisions(owner: Owner, pods: Sequence[PodView], config_maps: Sequence[Object]) -> list[Revision]:
    """The models that have Pods, the one of the most Pods first; of run configurations of one name the last counts."""
    models = {item["metadata"]["name"]: model_of(owner, item) for item in config_maps}
    found: dict[str, Revision] = {}
    for pod in pods:
        if pod.is_terminal or pod.terminating:
            continue
        model = models.get(pod.run_config)
        name = name_of(model)
        before = found.get(name, Revision(name, model, 0, 0))
        found[name] = replace(before, replicas=before.replicas + 1, ready=before.ready + pod.ready)
    return sorted(found.values(), key=lambda one: (-one.ready, -one.replicas, one.name))[:_MOST]


def served_revision(found: Sequence[Revision], applied: ModelSource) -> Revision | None:
    """The revision that is served; while several are, one that is to go. None while no Pod answers."""
    ready = [one for one in found if one.ready]
    # What has no name is named only where nothing else answers.
    ready.sort(key=lambda one: (one.model is None, one.name == name_of(applied)))
    return ready[0] if ready else None


def serving_message(found: Sequence[Revision], applied: ModelSource, replicas: int, *, reachable: bool) -> str:
    """What answers now, for a message about something else; `replicas`: how many there are to be.

    `reachable`: whether requests come to the Pods at all, or there is no gateway to pass them on.
    """
    ready = [one for one in found if one.ready]
    if not ready and replicas == 0:
        return f"Meanwhile, revision {name_of(applied)!r} is scaled to zero."
    if not reachable:
        number = sum(one.ready for one in ready)
        return (
            "Meanwhile, nothing is reachable: no Pod of the gateway is ready. "
            f"Of the serving Pods, {number} of {max(number, replicas)} are ready."
        )
    if not ready:
        return f"Meanwhile, no Pod is serving: 0 of {replicas} replicas ready."
    if [one.name for one in ready] == [name_of(applied)]:
        return f"Meanwhile, revision {ready[0].name!r} is served: {ready[0].ready} of {replicas} replicas ready."
    named = " and ".join(f"{one.name!r} ({one.ready} ready)" for one in ready)
    if len(ready) > 1:
        return f"Meanwhile, revisions {named} are served."
    return f"Meanwhile, revision {named} is served; of {name_of(applied)!r} 0 of {replicas} replicas are ready."
