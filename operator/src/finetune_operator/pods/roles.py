"""What a FineTuneClass says of the Pods of each role: what they request, and where they may run."""

from __future__ import annotations

from finetune_api.finetuneclass import FineTuneClassSpec, PreflightResources, Resources, RoleScheduling

PREFLIGHT_ROLE = "preflight"
DELETE_ROLE = "delete"
LIGHT_ROLES = frozenset({PREFLIGHT_ROLE, DELETE_ROLE})
"""They compute little, and must not wait for the nodes that train."""


def resources_of(class_spec: FineTuneClassSpec, role: str) -> Resources | PreflightResources:
    """What a Pod of the role requests."""
    return class_spec.preflight.resources if role in LIGHT_ROLES else class_spec.resources


def without_accelerator(class_spec: FineTuneClassSpec) -> FineTuneClassSpec:
    """The class for a Pod of any role that computes little: it is made and placed as a preflight is."""
    update = {
        "accelerator": None,
        "resources": resources_of(class_spec, PREFLIGHT_ROLE),
        "scheduling": scheduling_of(class_spec, PREFLIGHT_ROLE),
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
