"""What the kinds have in common: a status, a run with limits, and how Pods end badly."""

from finetune_api.lifecycle.failure import Disruption, FailureStatus
from finetune_api.lifecycle.kind_status import KindStatus, UnreadableStatusError
from finetune_api.lifecycle.run import (
    CHANGEABLE_WITHIN_A_RUN,
    RetriedRunStatus,
    RunId,
    RunLimits,
    RunSpec,
    RunStatus,
    a_change_is_a_new_run,
)

__all__ = [
    "CHANGEABLE_WITHIN_A_RUN",
    "Disruption",
    "FailureStatus",
    "KindStatus",
    "RetriedRunStatus",
    "RunId",
    "RunLimits",
    "RunSpec",
    "RunStatus",
    "UnreadableStatusError",
    "a_change_is_a_new_run",
]
