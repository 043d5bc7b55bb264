"""Everything that the plan of a ModelDeployment looks at, read once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import ROLE_LABEL, Owner, is_controlled_by, owner_of, owner_selector
from finetune_operator.core.references import Unreadable, read_referenced
from finetune_operator.environment import Environment
from finetune_operator.finetuneclass.observe import observe_class
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVALUATIONS,
    POD_DISRUPTION_BUDGETS,
    SERVICES,
    Object,
)
from finetune_operator.modeldeployment.observed import GateEvaluation, ObservedModelDeployment
from finetune_operator.models.observe import resolve_model
from finetune_operator.pods.observe import observe_warnings, owned_pods_of_deployment
from finetune_operator.pods.observed import PodView, pod_view
from finetune_operator.pods.roles import CANARY_ROLE, GATEWAY_ROLE, SERVE_ROLE


async def observe(reader: Reader, parent: Object, *, environment: Environment) -> ObservedModelDeployment:
    """Read everything. Raises pydantic.ValidationError when the spec does not parse, UnreadableStatusError."""
    owner = owner_of(parent)
    spec = spec_of(ModelDeploymentSpec, parent)
    deployment = await reader.get(DEPLOYMENTS, owner.namespace, owner.name)
    pods = [pod_view(item) for item in await owned_pods_of_deployment(reader, owner, deployment)]
    config_maps = await reader.list(CONFIG_MAPS, owner.namespace, {**owner_selector(owner.uid), ROLE_LABEL: SERVE_ROLE})
    extras = await _extras(reader, owner)
    gateway, canary = (_deployment_of(extras, role) for role in (GATEWAY_ROLE, CANARY_ROLE))
    gateway_pods: list[PodView] = []
    if gateway is not None and gateway.get("status", {}).get("readyReplicas", 0) < gateway["spec"]["replicas"]:
        gateway_pods = [pod_view(item) for item in await owned_pods_of_deployment(reader, owner, gateway)]
    status = status_of(ModelDeploymentStatus, parent)
    environment.traffic.publish(owner.key, status.canary)
    canary_pods = [pod_view(item) for item in await owned_pods_of_deployment(reader, owner, canary)]
    # What is served goes on by the class that it began with, whichever is the default by now.
    is_served = deployment is not None and is_controlled_by(deployment, owner.uid)
    class_name = spec.class_name or (status.class_name if is_served else None)
    return ObservedModelDeployment(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        class_=await observe_class(reader, class_name, environment.trainer_image),
        model=await resolve_model(reader, owner.namespace, spec.model),
        gate=await _gate(reader, owner.namespace, spec.gate.evaluation_ref.name) if spec.gate else None,
        deployment=deployment,
        service=await reader.get(SERVICES, owner.namespace, owner.name),
        extras=extras,
        gateway_image=environment.gateway_image,
        gateway_pods=tuple(gateway_pods),
        canary_pods=tuple(canary_pods),
        reports=environment.traffic.reports(owner.key) if status.canary is not None else (),
        progress_endpoint=environment.progress_endpoint,
        config_maps=tuple(item for item in config_maps if is_controlled_by(item, owner.uid)),
        pods=tuple(pods),
        warnings=await observe_warnings(
            reader, owner.namespace, (), [*pods, *gateway_pods, *canary_pods], datetime.now(UTC)
        ),
    )


_EXTRAS = (
    (POD_DISRUPTION_BUDGETS, SERVE_ROLE),
    (SERVICES, SERVE_ROLE),
    (DEPLOYMENTS, GATEWAY_ROLE),
    (DEPLOYMENTS, CANARY_ROLE),
)


def _deployment_of(extras: Sequence[Object], role: str) -> Object | None:
    of_role = (one for one in extras if one["metadata"]["labels"].get(ROLE_LABEL) == role)
    return next((one for one in of_role if one["kind"] == DEPLOYMENTS.kind), None)


async def _extras(reader: Reader, owner: Owner) -> tuple[Object, ...]:
    """By their labels, so that none has to be asked for where there is none."""
    found: list[Object] = []
    for resource, role in _EXTRAS:
        found += await reader.list(resource, owner.namespace, {**owner_selector(owner.uid), ROLE_LABEL: role})
    return tuple(item for item in found if item["metadata"]["name"] != owner.name and is_controlled_by(item, owner.uid))


async def _gate(reader: Reader, namespace: str, name: str) -> GateEvaluation | Readiness:
    found = await reader.get(EVALUATIONS, namespace, name)
    if found is None:
        return stalled(
            Reason.REFERENCE_NOT_FOUND, f"Evaluation {name!r} does not exist in namespace {namespace!r}. Create it."
        )
    read = read_referenced(found, EvaluationSpec, EvaluationStatus)
    if isinstance(read, Unreadable):
        message = f"Evaluation {name!r} {read.message} Nothing new is served by it."
        return stalled(Reason.WAITING_FOR_GATE, message)
    return GateEvaluation(found["metadata"]["generation"], *read)
