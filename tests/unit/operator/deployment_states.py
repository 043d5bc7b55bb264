"""Observed states of a ModelDeployment for the tests of its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import Plan
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import GateEvaluation, ObservedModelDeployment
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import PodView
from tests.unit.operator.evaluation_states import evaluated_status, evaluation_spec, tuned
from tests.unit.operator.states import ago, merged, pod, resolved_class

DEPLOYMENT = Owner("ModelDeployment", "team-a", "router", "c4b80a12-2222-4bb1-9d2e-7a4f1c86e3d5")
DEPLOYMENT_WIRE: dict[str, Any] = {"model": {"fineTuneJobRef": {"name": "router"}}}
GATED = {"gate": {"evaluationRef": {"name": "router-eval"}}}


def deployment_spec(**changes: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.from_wire(merged(DEPLOYMENT_WIRE, changes))


def verdict(passed: bool | None, *, digest: str = "sha256:aa", run_id: str = "1", seen: int = 1) -> GateEvaluation:
    """The gating evaluation: its verdict, and what it was a verdict on."""
    conditions = []
    if passed is not None:
        conditions = [
            Condition(
                type=ConditionType.PASSED,
                status="True" if passed else "False",
                reason=Reason.GATES_PASSED if passed else Reason.GATE_FAILED,
                message="" if passed else "1 of 1 gates failed: tuned by exact: score 0.600, at least 0.800 demanded.",
                observed_generation=seen,
                last_transition_time=ago(5),
            )
        ]
    status = evaluated_status(
        candidate_digests={"tuned": digest}, run_id=run_id, observed_generation=seen, conditions=conditions
    )
    return GateEvaluation(generation=1, spec=evaluation_spec(), status=status)


def observed_deployment(
    status: ModelDeploymentStatus | None = None,
    *,
    spec: ModelDeploymentSpec | None = None,
    model: ResolvedModel | Readiness | None = None,
    **changes: Any,
) -> ObservedModelDeployment:
    return ObservedModelDeployment(
        **{
            "owner": DEPLOYMENT,
            "generation": 1,
            "spec": spec or deployment_spec(),
            "status": status or ModelDeploymentStatus(),
            "class_": resolved_class(),
            "model": tuned() if model is None else model,
            **changes,
        }
    )


def stored(body: Object, number: int = 0) -> Object:
    """An applied object as the API server holds it."""
    known = {
        "uid": f"uid-of-{body['metadata']['name']}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": f"2026-11-22T11:00:0{number}Z",
        "managedFields": [applied_by_us(body)],
    }
    return {**body, "metadata": {**body["metadata"], **known}}


def applied_by_us(body: Object) -> Object:
    """The API server's note that each of these fields is ours."""
    entry = {"manager": "finetune-operator", "operation": "Apply", "fieldsType": "FieldsV1"}
    return {**entry, "fieldsV1": _fields_v1(body)}


def _fields_v1(value: Any) -> Object:
    """A tree of the fields; of lists only those that are keyed by a name have members."""
    if isinstance(value, dict):
        return {f"f:{name}": _fields_v1(item) for name, item in value.items()}
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        return {f'k:{{"name":"{item["name"]}"}}': _fields_v1(item) for item in value}
    return {}


def rolled_out(deployment: Object, replicas: int = 1, **changes: Any) -> Object:
    """A Deployment of which every replica is up to date and ready."""
    counts = {name: replicas for name in ("replicas", "updatedReplicas", "readyReplicas")}
    return {**deployment, "status": {"observedGeneration": 1, **counts, **changes}}


def answering(deployment: Object, number: int = 1, **changes: Any) -> tuple[PodView, ...]:
    """Pods of a Deployment's template that answer."""
    (config_map,) = [
        volume["configMap"]["name"]
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "run"
    ]
    told = {"ready": True, "run_config": config_map, **changes}
    return tuple(pod(f"of-{config_map}", index, **told) for index in range(number))


def after(observed: ObservedModelDeployment, plan: Plan[ModelDeploymentStatus]) -> ObservedModelDeployment:
    """The state once the writes of a plan are done; what was not applied stays."""
    name = observed.owner.name
    applied = {
        item["kind"]: stored(item)
        for item in plan.apply
        if item["kind"] == "ConfigMap" or item["metadata"]["name"] == name
    }
    gone = {child.name for child in plan.delete}
    config_maps: Sequence[Object] = [item for item in observed.config_maps if item["metadata"]["name"] not in gone]
    if "ConfigMap" in applied:
        config_maps = [*config_maps, applied["ConfigMap"]]
    deployment = observed.deployment
    if "Deployment" in applied:
        deployment = applied["Deployment"]
        if observed.deployment is not None:
            deployment["metadata"]["generation"] = observed.deployment["metadata"]["generation"] + 1
            deployment["status"] = observed.deployment.get("status", {})
    return replace(
        observed,
        status=plan.status,
        deployment=deployment,
        service=applied.get("Service", observed.service),
        extras=tuple(_extras(observed, plan).values()),
        config_maps=tuple(config_maps),
    )


def _extras(observed: ObservedModelDeployment, plan: Plan[ModelDeploymentStatus]) -> dict[str, Object]:
    """What there is beside the Deployment, the Service and the run configurations."""
    known = {f"{item['kind']}/{item['metadata']['name']}": item for item in observed.extras}
    for item in plan.apply:
        if item["kind"] != "ConfigMap" and item["metadata"]["name"] != observed.owner.name:
            known[f"{item['kind']}/{item['metadata']['name']}"] = stored(item)
    gone = {f"{child.resource.kind}/{child.name}" for child in plan.delete}
    return {name: item for name, item in known.items() if name not in gone}
