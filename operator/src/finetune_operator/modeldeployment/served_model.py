"""The model that is served now, as the status has it, or as an older operator left it."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_api.run import FetchRun, ModelSource
from finetune_operator.core.ownership import child_name, is_controlled_by
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.objects import SERVE_ROLE
from finetune_operator.modeldeployment.observed import ObservedModelDeployment


def served_now(observed: ObservedModelDeployment) -> ModelSource | None:
    """What is served and kept up; None where nothing is."""
    known = observed.status.served
    if known is None:
        return _served_by_an_older_version(observed)
    # What this version knows of it: nothing else is told to Pods.
    return ModelSource(uri=known.uri, adapter_uri=known.adapter_uri, digest=known.digest)


def _served_by_an_older_version(observed: ObservedModelDeployment) -> ModelSource | None:
    """An older operator wrote only the revision down: the Deployment's run configuration says the rest of it.

    Tenants may write ConfigMaps: one that is not what it is named for, or is not of that revision, says nothing.
    """
    deployment = observed.deployment
    if deployment is None or not is_controlled_by(deployment, observed.owner.uid):
        return None
    mounted = _config_maps_of(deployment)
    for item in observed.config_maps:
        name, payload = item["metadata"]["name"], item.get("data", {}).get("run.json", "")
        if name not in mounted or name != child_name(observed.owner, SERVE_ROLE, payload):
            continue
        try:
            model = FetchRun.model_validate_json(payload).model
        except ValidationError:
            continue
        if (model.digest or model.uri) == observed.status.revision:
            return model
    return None


def _config_maps_of(deployment: Object) -> set[str]:
    volumes = deployment["spec"]["template"]["spec"].get("volumes", [])
    return {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
