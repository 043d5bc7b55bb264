"""status.phase of a ModelDeployment: it follows from the reason of its conditions, by one table."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import Phase
from finetune_operator.core.phases import Phases

PHASES: Phases[Phase] = Phases(
    {
        Reason.WAITING_FOR_MODEL: "Waiting",
        Reason.WAITING_FOR_GATE: "Waiting",
        Reason.QUEUED: "RollingOut",
        Reason.ROLLING_OUT: "RollingOut",
        Reason.AVAILABLE: "Available",
    },
    stalled="Blocked",
)
"""A diagnosis that stalls nothing (an autoscaler that asks for too much) leaves the phase to the rollout's reason."""
