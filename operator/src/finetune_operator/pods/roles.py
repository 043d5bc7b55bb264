"""What a FineTuneClass says of the Pods of each role: what they request, and where they may run."""

from __future__ import annotations

from finetune_api.finetuneclass import FineTuneClassSpec, PreflightResources, Resources, RoleScheduling

PREFLIGHT_ROLE = "preflight"
DELETE_ROLE = "delete"
LIGHT_ROLES = frozenset({PREFLIGHT_ROLE, DELETE_ROLE})
"""They compute little, and must not wait for the nodes that train."""


def resources_of(platform: FineTuneClassSpec, role: str) -> Resources | PreflightResources:
    """What a Pod of the role requests."""
    return platform.preflight.resources if role in LIGHT_ROLES else platform.resources


def scheduling_of(platform: FineTuneClassSpec, role: str) -> RoleScheduling:
    """Where a Pod of the role may run."""
    if role not in LIGHT_ROLES:
        return platform.scheduling
    of_class = platform.scheduling
    return platform.preflight.scheduling or RoleScheduling(
        tolerations=of_class.tolerations, priority_class_name=of_class.priority_class_name
    )
