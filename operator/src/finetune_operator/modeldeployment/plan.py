"""What to do next for a ModelDeployment: a pure function of what was observed.

What serves is kept up at every look (apply.py); only the next revision waits for its model, its class and its gate.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus, Phase
from finetune_api.run import ModelSource
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Phases, Plan, earliest, planned
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.policies.applied_model import applied_model
from finetune_operator.modeldeployment.policies.apply import outdated, upkeep, wanted_replicas
from finetune_operator.modeldeployment.policies.drift import (
    correction_events,
    next_drift_check,
    recent_drift,
    with_corrections,
)
from finetune_operator.modeldeployment.policies.next_model import exceeded_limit, next_model, own
from finetune_operator.modeldeployment.policies.rollout import Rollout, rollout_of
from finetune_operator.modeldeployment.policies.status import with_rollout
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS

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


def plan(observed: ObservedModelDeployment, now: datetime) -> Plan[ModelDeploymentStatus]:
    """The writes that bring the deployment one step further, and keep up what serves already."""
    found = next_model(observed)
    applied = applied_model(observed) if isinstance(found, Readiness) else found
    writes = upkeep(observed, applied, now)
    before = recent_drift(observed.status.drift, now)
    record = with_corrections(before, writes.drift, now)
    status = observed.status.model_copy(update={"drift": record})
    mine = replace(observed, deployment=own(observed, observed.deployment), status=status)
    rollout = rollout_of(mine, wanted_replicas(observed), applied, writes, now)
    readiness = _held(found, applied, rollout) if isinstance(found, Readiness) else _within_limits(observed, rollout)
    rolls = applied is not None and not rollout.complete
    check = now + timedelta(seconds=START_CHECK_SECONDS) if rolls else None
    decided = planned(
        observed,
        with_rollout(mine, status, applied, rollout),
        PHASES.of(readiness, rollout.readiness.reason, "Waiting"),
        readiness,
        now,
        apply=writes.apply,
        merge=writes.merge,
        delete=[*writes.delete, *(outdated(observed, writes.config_maps) if rollout.complete else ())],
        requeue_at=earliest([check, next_drift_check(record, now)]),
    )
    notes = correction_events(before, record, writes.remade, observed.owner.name)
    return replace(decided, events=(*notes, *decided.events))


def _within_limits(observed: ObservedModelDeployment, rollout: Rollout) -> Readiness:
    """Where the Pods stand. An autoscaler that asks for more than the class allows does not block: it is reported."""
    exceeded = exceeded_limit(observed)
    if exceeded is None or applied_model(observed) is None or rollout.readiness.stalled:
        return rollout.readiness
    return replace(rollout.readiness, reason=Reason.LIMIT_EXCEEDED, message=f"{exceeded} {rollout.readiness.message}")


def _held(found: Readiness, applied: ModelSource | None, rollout: Rollout) -> Readiness:
    """What keeps the next revision back, and what serves meanwhile."""
    if applied is not None:
        return replace(found, message=f"{found.message} {rollout.summary}")
    return replace(found, message=f"{found.message} The model is not served.") if found.stalled else found
