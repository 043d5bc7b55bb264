"""What counts of a trial's FineTuneJob. Pure."""

from __future__ import annotations

from datetime import datetime

from finetune_api.conditions import ConditionType
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_api.finetunesweep import Template, TrialStatus
from finetune_operator.core.references import Unreadable, read_referenced
from finetune_operator.finetunesweep.observed import TrialJob
from finetune_operator.finetunesweep.views.taken_over import trains_something_else
from finetune_operator.kube.resources import Object

FIRST_RUN_ID = "1"
"""That of every trial: a FineTuneJob whose spec changes has another one."""
SPEC_CHANGED = "SpecChanged"


def view(body: Object, trial: TrialStatus, template: Template | None, now: datetime) -> TrialJob:
    """What counts of a trial's FineTuneJob. One that trains something else by now has failed as a trial.

    `template`: of the sweep; None: that of another run, which is not known.
    """
    version = body["metadata"]["resourceVersion"]
    read = read_referenced(body, FineTuneJobSpec, FineTuneJobStatus)
    if isinstance(read, Unreadable):
        return TrialJob(version, None, message=read.message, is_stalled=True)
    spec, status = read
    is_first = spec.run_id == FIRST_RUN_ID and status.run_id in (None, FIRST_RUN_ID)
    if not is_first or trains_something_else(body["spec"], template, trial.values):
        seconds = _seconds(status, now)
        return TrialJob(version, "Failed", reason=SPEC_CHANGED, is_ours=False, seconds=seconds, completed=now)
    by_type = {condition.type: condition for condition in status.conditions}
    is_ready, is_stalled = by_type.get(ConditionType.READY), by_type.get(ConditionType.STALLED)
    result, progress = status.result, status.progress
    eval_loss, eval_step = (None, None) if result is None else (result.eval_loss, result.step)
    if eval_loss is None and progress is not None:
        eval_loss, eval_step = progress.eval_loss, progress.eval_step
    return TrialJob(
        version,
        status.phase,
        reason=is_ready.reason if is_ready else "",
        message=is_ready.message if is_ready else "",
        is_stalled=is_stalled is not None and is_stalled.status == "True",
        is_suspended=spec.suspend,
        is_cancelled=spec.cancel,
        eval_loss=eval_loss,
        eval_step=eval_step,
        eval_every=None if status.resolved is None else status.resolved.checkpoint_every_steps,
        seconds=_seconds(status, now),
        attempt_seconds=next((one.pod_seconds for one in status.ended_attempts if one.outcome == "Succeeded"), None),
        completed=status.completion_time,
        digest=None if result is None else result.digest,
        examples=status.dataset.training.examples if status.dataset and status.dataset.training else None,
    )


def _seconds(status: FineTuneJobStatus, now: datetime) -> int:
    """How long the Pods of its attempts have run; those of the last one may still."""
    ended = status.earlier_attempts_seconds + sum(one.pod_seconds for one in status.ended_attempts)
    attempt = status.attempt
    if attempt is None or any(one.number == attempt.number for one in status.ended_attempts):
        return ended
    end = status.completion_time or now
    return ended + max(0, round((end - (attempt.pods_start_time or end)).total_seconds()))
