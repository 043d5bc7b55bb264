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


def scheduling_of(class_spec: FineTuneClassSpec, role: str) -> RoleScheduling:
    """Where a Pod of the role may run."""
    if role not in LIGHT_ROLES:
        return class_spec.scheduling
    of_class = class_spec.scheduling
    return class_spec.preflight.scheduling or RoleScheduling(
        tolerations=of_class.tolerations, priority_class_name=of_class.priority_class_name
    )
