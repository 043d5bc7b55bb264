"""The model that was rolled out last and is kept up, as the status has it, or as an older operator left it."""

from __future__ import annotations

from finetune_api.pod_contracts.run import CheckpointSource, ModelSource
from finetune_operator.core.ownership import is_controlled_by
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.revisions import model_of, name_of


def applied_model(observed: ObservedModelDeployment) -> ModelSource | None:
    """What the Deployment serves or is to serve; None where nothing was rolled out."""
    # An older operator had one field for this and for what serves.
    known = observed.status.applied or observed.status.served
    if known is None:
        return _applied_by_an_older_version(observed)
    return as_known(known)


def as_known(model: ModelSource) -> ModelSource:
    """What this version knows of a model in a status: Pods get nothing else."""
    of = model.checkpoint
    checkpoint = of and CheckpointSource(uri=of.uri, step=of.step, digest=of.digest, adapter=of.adapter)
    return ModelSource(uri=model.uri, adapter_uri=model.adapter_uri, digest=model.digest, checkpoint=checkpoint)


def _applied_by_an_older_version(observed: ObservedModelDeployment) -> ModelSource | None:
    """An older operator wrote only the revision down: the Deployment's run configuration says the rest of it."""
    deployment = observed.deployment
    if deployment is None or not is_controlled_by(deployment, observed.owner.uid):
        return None
    mounted = config_maps_of(deployment)
    models = (model_of(observed.owner, item) for item in observed.config_maps if item["metadata"]["name"] in mounted)
    return next((one for one in models if one is not None and name_of(one) == observed.status.revision), None)


def config_maps_of(deployment: Object) -> set[str]:
    """The names of those that its Pods mount."""
    volumes = deployment["spec"]["template"]["spec"].get("volumes", [])
    return {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
