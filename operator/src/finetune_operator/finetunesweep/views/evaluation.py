"""What counts of a trial's Evaluation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.finetunejob import Phase
from finetune_api.finetunesweep import TrialStatus
from finetune_operator.core.references import Unreadable, read_referenced
from finetune_operator.finetunesweep.objects import CANDIDATE
from finetune_operator.finetunesweep.observed import TrialJob
from finetune_operator.finetunesweep.trials import ENDED
from finetune_operator.finetunesweep.views.job import FIRST_RUN_ID, SPEC_CHANGED
from finetune_operator.finetunesweep.views.taken_over import measures_something_else
from finetune_operator.kube.resources import Object

_JUDGED = ("Passed", "GateFailed", "Inconclusive")
_EVALUATED: Mapping[str, Phase] = {
    **dict.fromkeys(_JUDGED, "Succeeded"),
    **{phase: phase for phase in ("Failed", "Cancelled", "Suspended")},
}


def with_evaluation(
    job: TrialJob, body: Object | None, grader: str, made: Mapping[str, Any] | None, now: datetime
) -> TrialJob:
    """The trial that has trained, and what its Evaluation has found.

    `made`: the spec that the sweep makes it with; None: that of another run, which is not known.
    """
    if job.phase != "Succeeded":
        return job
    job = replace(job, phase="Evaluating", has_trained=True, completed=None)
    if body is None:
        return job
    meta = body["metadata"]
    job = replace(job, evaluation_name=meta["name"], resource_version=meta["resourceVersion"])
    read = read_referenced(body, EvaluationSpec, EvaluationStatus)
    if isinstance(read, Unreadable):
        return replace(job, message=read.message, is_stalled=True)
    spec, status = read
    is_first = spec.run_id == FIRST_RUN_ID and status.run_id in (None, FIRST_RUN_ID)
    if not is_first or (made is not None and measures_something_else(body["spec"], made)):
        return replace(job, phase="Failed", reason=SPEC_CHANGED, is_ours=False, completed=now)
    measured = status.candidate_digests.get(CANDIDATE)
    if job.digest is not None and measured not in (None, job.digest):
        # The trial's job was made again: the Evaluation starts over with what it has trained now.
        return replace(job, is_suspended=spec.suspend, is_cancelled=spec.cancel)
    by_type = {condition.type: condition for condition in status.conditions}
    is_ready, is_stalled = by_type.get(ConditionType.READY), by_type.get(ConditionType.STALLED)
    is_trials = [one for one in status.results if (one.candidate, one.grader) == (CANDIDATE, grader)]
    return replace(
        job,
        phase=_EVALUATED.get(status.phase or "", "Evaluating"),
        reason=is_ready.reason if is_ready else "",
        message=is_ready.message if is_ready else "",
        is_stalled=is_stalled is not None and is_stalled.status == "True",
        is_suspended=spec.suspend,
        is_cancelled=spec.cancel,
        completed=status.completion_time,
        score=next(iter(is_trials), None),
        verdict=status.phase if spec.gates and status.phase in _JUDGED else None,
        outputs=next((one for one in status.outputs if one.candidate == CANDIDATE), None) if spec.gates else None,
    )


def on_holdout(
    trial: TrialStatus,
    trained: TrialJob | None,
    body: Object,
    grader: str,
    made: Mapping[str, Any] | None,
    now: datetime,
) -> TrialJob:
    """The Evaluation of a trial, which has ended, on other examples; `trained`: its FineTuneJob, if that is there.

    It can't measure what the trial had trained once that is gone or replaced.
    """
    found = with_evaluation(TrialJob("", "Succeeded", digest=trial.digest), body, grader, made, now)
    if found.phase in ENDED:
        return found
    if trained is None:
        return replace(found, phase="Failed", reason=Reason.REFERENCE_NOT_FOUND)
    is_another = None not in (trained.digest, trial.digest) and trained.digest != trial.digest
    return replace(found, phase="Failed", reason=SPEC_CHANGED) if is_another or not trained.is_ours else found
