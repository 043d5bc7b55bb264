"""Corrects times of a job that a wrong clock wrote (core/wrong_clock.py), also those of its attempt and progress."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.base import whole_seconds
from finetune_operator.core.wrong_clock import at_most, with_possible_end, with_possible_start
from finetune_operator.finetunejob.attempt_state import FINISHED, JobPlan
from finetune_operator.finetunejob.observed import ObservedFineTuneJob


def correct_times(observed: ObservedFineTuneJob, plan: JobPlan, now: datetime) -> JobPlan:
    """Correct times in the future, and times before the creationTimestamp of the object that they belong to."""
    times, status = observed.server_times, plan.status
    if times.proves_clock_slow(now):
        return plan
    now = whole_seconds(now)
    if status.phase in FINISHED:
        found = with_possible_end(status, times, now)
    else:
        found = with_possible_start(status, times, now, [run.completion_time for run in status.history[-1:]])
    update: dict[str, object] = {}
    if found.attempt is not None:
        update["attempt"] = found.attempt.model_copy(update={"start_time": at_most(found.attempt.start_time, now)})
    if found.progress is not None:
        reported = at_most(found.progress.last_updated_time, now)
        update["progress"] = found.progress.model_copy(update={"last_updated_time": reported})
    corrected = found.model_copy(update=update)
    return plan if corrected == status else replace(plan, status=corrected)
