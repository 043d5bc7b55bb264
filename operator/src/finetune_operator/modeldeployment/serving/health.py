"""Whether what serves answers: what has not for long is replaced without a comparison. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.desired import should_make_room, wanted_replicas

UNAVAILABLE_SECONDS = 600
"""What has not answered for so long is broken: a drain or a restart takes less."""


def unready_time(observed: ObservedModelDeployment, now: datetime) -> datetime | None:
    """Since when nothing answers that a canary could be compared with."""
    is_asked = observed.spec.rollout.type == "Canary" and wanted_replicas(observed) > 0
    if not is_asked or any(pod.ready for pod in observed.pods):
        return None
    return observed.status.unready_time or whole_seconds(now)


def broken_time(status: ModelDeploymentStatus) -> datetime | None:
    """When what is not ready counts as broken."""
    return None if status.unready_time is None else status.unready_time + timedelta(seconds=UNAVAILABLE_SECONDS)


def is_broken(observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime) -> bool:
    """Whether what is to serve does not, and not just for a moment: nothing ever has, or it makes room already."""
    broken = broken_time(status)
    if broken is None:
        return False
    has_served = any(one.available_time is not None for one in status.history)
    return not has_served or should_make_room(observed.deployment) or now >= broken
