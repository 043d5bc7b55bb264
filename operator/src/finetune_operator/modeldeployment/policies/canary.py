"""spec.rollout.type Canary: the next model replaces what serves only after a share of the requests has shown it no
worse."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import CanaryStatus, ModelDeploymentStatus
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.plan import Plan, earliest
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.modeldeployment.canary.events import with_canary_events
from finetune_operator.modeldeployment.canary.observation import is_gone, observation_of
from finetune_operator.modeldeployment.canary.readiness import (
    canary_readiness,
    no_report_time,
    rolled_back,
    waiting_for_stable,
    without_gateway,
)
from finetune_operator.modeldeployment.canary.steps import (
    advance,
    due,
    ending,
    is_drained,
    is_proved,
    is_running,
    new_canary,
    promoting,
)
from finetune_operator.modeldeployment.gate import gate_readiness
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model
from finetune_operator.modeldeployment.serving.desired import wanted_replicas
from finetune_operator.modeldeployment.serving.health import broken_time, is_broken, unready_time
from finetune_operator.modeldeployment.serving.history import asked_as, with_aborted
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, serve, serve_during_canary
from finetune_operator.models.resolve import ResolvedModel

RESYNC_SECONDS = 1
"""After this, the status is read again, and gateways get what it says."""
DeploymentPlan = Plan[ModelDeploymentStatus]


def follow_canary(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """Count and judge what is known of a canary, whatever else the next revision waits for."""
    status = plan.status.model_copy(update={"unready_time": unready_time(observed, now)})
    canary = status.canary
    if canary is None:
        return replace(plan, status=status)
    found = advance(canary, observed.canary_spec, wanted_replicas(observed), observation_of(observed, canary, now), now)
    update: dict[str, object] = {"canary": found.canary}
    if found.rolled_back is not None:
        update["aborted"] = with_aborted(status.aborted, canary.revision, observed.canary_spec, found.rolled_back, now)
    elif found.canary is not None and found.canary.phase != "Ending" and _is_refused(observed, canary):
        update["canary"] = ending(found.canary, "Withdrawn", now)
    return replace(plan, status=status.model_copy(update=update))


def wake_for_canary(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """Requeue when something of a canary is due, though nothing happens."""
    canary, before = plan.status.canary, observed.status.canary
    following = None if canary is None else due(canary, observed.canary_spec, now)
    resync = now + timedelta(seconds=RESYNC_SECONDS) if _published(canary) != _published(before) else None
    unreported = None if canary is None else no_report_time(canary)
    later = [moment for moment in (unreported, broken_time(plan.status)) if moment is not None and moment > now]
    return replace(plan, requeue_at=earliest([plan.requeue_at, following, resync, *later]))


def record_canary_events(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """Say what became of a canary, whichever condition the object is in."""
    events = with_canary_events(plan.events, observed.status, plan.status, observed.canary_spec)
    return replace(plan, events=tuple(events))


def withdraw_canary(observed: ObservedModelDeployment, plan: DeploymentPlan, now: datetime) -> DeploymentPlan:
    """End the canary of a model that is not the next one any more, or that can't be compared any more."""
    canary = plan.status.canary
    if canary is None or canary.phase == "Ending":
        return plan
    goes_on = _needs_canary(observed) and _may_run(observed)
    if goes_on and canary.revision == observed.resolved_model.source.revision:
        return plan
    return replace(plan, status=plan.status.model_copy(update={"canary": ending(canary, "Withdrawn", now)}))


def serve_without_canary(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll the model out, or keep it serving, where it needs no canary."""
    return None if _needs_canary(observed) else serve(observed, status, observed.resolved_model.source, now)


def hold_rolled_back(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Try no canary again that was rolled back, as long as the same is asked for."""
    revision = observed.resolved_model.source.revision
    aborted = next((one for one in status.aborted if one.revision == revision), None)
    if aborted is None or aborted.canary_spec != asked_as(observed.canary_spec):
        return None
    return serve_during_canary(observed, status, rolled_back(aborted), now)


def wait_for_gateway(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Start no canary where nothing can split the requests."""
    if _may_run(observed):
        return None
    return serve_during_canary(observed, status, without_gateway(observed.resolved_model.source), now)


def replace_broken(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll the model out without a canary where what serves has not answered for long."""
    if is_running(status.canary) or not is_broken(observed, status, now):
        return None
    return serve(observed, status, observed.resolved_model.source, now)


def wait_for_stable(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Start no canary while no Pod answers that it could be compared with."""
    if is_running(status.canary) or status.unready_time is None:
        return None
    return serve_during_canary(observed, status, waiting_for_stable(observed.resolved_model.source), now)


def promote_canary(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll the model out once the canary has passed and its Pods have made room."""
    canary = status.canary
    if canary is None or canary.phase != "Promoting" or not (is_drained(canary, now) and is_gone(observed)):
        return None
    return serve(observed, status.model_copy(update={"canary": None}), observed.resolved_model.source, now)


def run_canary(observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime) -> DeploymentDecision:
    """Begin the canary, or keep it up until it has passed."""
    canary = status.canary
    if canary is None:
        canary = new_canary(observed.resolved_model.source, observed.canary_spec, now)
    elif is_proved(canary, observed.canary_spec):
        canary = promoting(canary, now)
    failing = observation_of(observed, canary, now).failing
    readiness = canary_readiness(canary, observed.canary_spec, failing, now)
    return serve_during_canary(observed, status.model_copy(update={"canary": canary}), readiness, now)


def _needs_canary(observed: ObservedModelDeployment) -> bool:
    """Whether the next model has to prove itself against another one that serves."""
    stable = applied_model(observed)
    is_next = stable is not None and stable.revision != observed.resolved_model.source.revision
    return is_next and observed.spec.rollout.type == "Canary"


def _may_run(observed: ObservedModelDeployment) -> bool:
    """Whether there can be something to compare with, and something that splits the requests."""
    has_gateway = observed.gateway_image is not None and observed.progress_endpoint is not None
    return has_gateway and wanted_replicas(observed) > 0


def _is_refused(observed: ObservedModelDeployment, canary: CanaryStatus) -> bool:
    """Whether its gate has failed by now, or its class does not allow it any more."""
    model, class_, uri = observed.model, observed.class_, observed.spec.model.uri
    models = [uri] if uri else []
    if not isinstance(class_, Readiness) and source_violation(class_.spec, models=models, datasets=[]) is not None:
        return True
    if not isinstance(model, ResolvedModel) or model.source.revision != canary.revision:
        return False
    closed = gate_readiness(observed, model)
    return closed is not None and closed.reason == Reason.GATE_FAILED


def _published(canary: CanaryStatus | None) -> object:
    """What gateways get of it."""
    return None if canary is None else (canary.split, canary.percent, canary.sources)
