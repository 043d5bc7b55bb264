"""What has served before is rolled out again at once: what spec.rollout.rollbackTo names, whatever spec.model is, and a
spec.model that goes back within rollbackWindowSeconds of a canary."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import ModelDeploymentStatus
from finetune_operator.core.conditions import EventNote, Readiness, stalled
from finetune_operator.finetuneclass.resolve import source_violation
from finetune_operator.modeldeployment.canary.steps import ending, is_running
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.serving.applied_model import applied_model, as_known
from finetune_operator.modeldeployment.serving.history import RETURNED, earlier_model, replaced_time, with_aborted
from finetune_operator.modeldeployment.serving.keep_serving import DeploymentDecision, keep_serving, serve


def roll_back(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out the revision that is named, whatever spec.model is, and keep it as long as it is named."""
    revision = observed.spec.rollout.rollback_to
    if not revision:
        return None
    canary = status.canary
    if canary is not None and is_running(canary):
        status = status.model_copy(update={"canary": ending(canary, "Withdrawn", now)})
    model = earlier_model(status.history, revision)
    if model is None:
        known = ", ".join(dict.fromkeys(repr(one.revision) for one in status.history if one.available_time))
        message = f"spec.rollout.rollbackTo is {revision!r}, which is no revision of status.history that has served."
        named = f"These have: {known}." if known else "None has."
        return keep_serving(observed, status, stalled(Reason.INVALID_SPEC, f"{message} {named}"), now)
    class_ = observed.class_
    assert not isinstance(class_, Readiness), "wait_for_class decides before"
    refused = source_violation(class_.spec, models=[] if model.identity else [model.uri], datasets=[])
    if refused is not None:
        return keep_serving(observed, status, refused, now)
    before = applied_model(observed)
    undone = before.revision if before is not None and before.revision != revision else None
    is_canary = observed.spec.rollout.type == "Canary"
    if undone is not None and is_canary:
        spec, why = observed.canary_spec, "It served, and spec.rollout.rollbackTo undid that."
        status = status.model_copy(update={"aborted": with_aborted(status.aborted, undone, spec, why, now)})
    decision = serve(observed, status, as_known(model), now)
    readiness = decision.readiness
    assert readiness is not None, "serve says where it stands"
    note = f"spec.rollout.rollbackTo keeps {revision!r}: spec.model is not looked at until it is removed."
    events = list(decision.events)
    if undone is not None and not is_canary:  # Of a canary, RolledBack says it.
        message = f"{revision!r} is rolled out again in place of {undone!r}, by spec.rollout.rollbackTo."
        events.append(EventNote("Normal", RETURNED, message))
    return replace(decision, events=events, readiness=replace(readiness, message=f"{readiness.message} {note}"))


def return_to_earlier(
    observed: ObservedModelDeployment, status: ModelDeploymentStatus, now: datetime
) -> DeploymentDecision | None:
    """Roll out at once what served until a short while ago: whoever goes back to it can't wait for a canary."""
    model, window = observed.resolved_model.source, timedelta(seconds=observed.canary_spec.rollback_window_seconds)
    replaced = replaced_time(status.history, model.revision)
    if is_running(status.canary) or replaced is None or now >= replaced + window:
        return None
    message = f"{model.revision!r} served until {replaced:%Y-%m-%dT%H:%M:%SZ}: it is rolled out again without a canary."
    decision = serve(observed, status, model, now)
    return replace(decision, events=[*decision.events, EventNote("Normal", RETURNED, message)])
