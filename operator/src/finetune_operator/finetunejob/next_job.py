"""Which Job is made next: a preflight until one has succeeded, and then attempts, one after the other."""

from __future__ import annotations

from typing import NamedTuple

from finetune_api.finetunejob import FineTuneJobStatus
from finetune_operator.core.ownership import Owner
from finetune_operator.finetunejob.attempt_state import preflight_succeeded
from finetune_operator.finetunejob.objects import preflight_job_name, train_job_name
from finetune_operator.finetunejob.run_key import run_key


class NextJob(NamedTuple):
    """The Job after the newest one; `number` is counted from 1, preflights and attempts each by themselves."""

    number: int
    name: str


def next_job(owner: Owner, status: FineTuneJobStatus) -> NextJob:
    """The Job that the run makes next: deterministic, so that one that a crash left behind is found by its name."""
    run = run_key(status)
    if not preflight_succeeded(status):
        number = 1 + (status.preflight.try_number if status.preflight is not None else 0)
        return NextJob(number, preflight_job_name(owner, run, number))
    newest = status.attempt.number if status.attempt is not None else 0
    number = 1 + max(newest, *(end.number for end in status.ended_attempts), 0)
    return NextJob(number, train_job_name(owner, run, number))
