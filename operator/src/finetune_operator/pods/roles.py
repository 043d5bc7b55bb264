"""What a FineTuneClass sets for the Pods of each role: their resources and scheduling."""

from __future__ import annotations

from finetune_api.finetuneclass import (
    Accelerator,
    FineTuneClassSpec,
    GangTopology,
    PreflightResources,
    Resources,
    RolePods,
    RoleScheduling,
)
from finetune_operator.kube.resources import Object

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""Set by the Job controller on a Job's Pods."""
PREFLIGHT_ROLE = "preflight"
TRAIN_ROLE = "train"
DELETE_ROLE = "delete"
EVALUATE_ROLE = "evaluate"
DATASET_ROLE = "dataset"
GENERATE_ROLE = "generate"
"""Of a Dataset's Pod that loads a teacher."""
SERVE_ROLE = "serve"
CANARY_ROLE = "canary"
GATEWAY_ROLE = "gateway"
POD_ROLES = frozenset(
    {
        PREFLIGHT_ROLE,
        TRAIN_ROLE,
        DELETE_ROLE,
        EVALUATE_ROLE,
        DATASET_ROLE,
        GENERATE_ROLE,
        SERVE_ROLE,
        CANARY_ROLE,
        GATEWAY_ROLE,
    }
)
"""All of them: NetworkPolicies select Pods by their role."""
LIGHT_ROLES = frozenset({PREFLIGHT_ROLE, DELETE_ROLE, GATEWAY_ROLE, DATASET_ROLE})
"""The roles whose Pods compute little and must not wait for the nodes that train."""


def resources_of(class_spec: FineTuneClassSpec, role: str) -> Resources | PreflightResources:
    """The resources of a Pod of the role."""
    return class_spec.preflight.resources if role in LIGHT_ROLES else class_spec.resources


def without_accelerator(class_spec: FineTuneClassSpec) -> FineTuneClassSpec:
    """The class for a Pod that computes little: with the resources and scheduling of a preflight."""
    update = {
        "accelerator": None,
        "resources": resources_of(class_spec, PREFLIGHT_ROLE),
        "scheduling": scheduling_of(class_spec, PREFLIGHT_ROLE),
    }
    return class_spec.model_copy(update=update)


def of_role(class_spec: FineTuneClassSpec, pods: RolePods) -> FineTuneClassSpec:
    """The class for the Pods of a role whose own settings replace those of training Pods."""
    asked, accelerator = pods.accelerator, class_spec.accelerator
    if asked is not None:
        name = asked.resource_name or (accelerator.resource_name if accelerator is not None else None)
        found = name is not None and asked.count_per_node > 0
        accelerator = Accelerator(resource_name=name, count_per_node=asked.count_per_node) if found else None
    elif accelerator is not None:
        accelerator = accelerator.model_copy(update={"additional_resources": []})
    update = {
        "accelerator": accelerator,
        "resources": Resources(**pods.resources.model_dump()) if pods.resources else class_spec.resources,
        "scheduling": pods.scheduling or class_spec.scheduling,
    }
    return class_spec.model_copy(update=update)


def scheduling_of(class_spec: FineTuneClassSpec, role: str) -> RoleScheduling:
    """Where a Pod of the role may run."""
    if role not in LIGHT_ROLES:
        return class_spec.scheduling
    of_class = class_spec.scheduling
    return class_spec.preflight.scheduling or RoleScheduling(
        tolerations=of_class.tolerations, priority_class_name=of_class.priority_class_name
    )


def node_affinity(scheduling: RoleScheduling) -> Object:
    """The requirements that a node must meet, in one term: all of them."""
    if not scheduling.node_requirements:
        return {}
    term = {"matchExpressions": [one.to_wire() for one in scheduling.node_requirements]}
    required = {"nodeSelectorTerms": [term]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def close_together(topology: GangTopology, job: str) -> Object:
    """The podAffinity of a Job's Pods to each other. The scheduler lets the first one go anywhere."""
    term = {"topologyKey": topology.topology_key, "labelSelector": {"matchLabels": {JOB_NAME_LABEL: job}}}
    if topology.policy == "Required":
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
