"""Reads everything that the plan of a FineTuneSweep depends on, once."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from finetune_api.conditions import ConditionType
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, Phase
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus, TrialStatus, has_values
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner, is_controlled_by, owner_of, owner_selector
from finetune_operator.core.references import Unreadable, read_referenced
from finetune_operator.finetuneclass.observe import observe_class
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.finetunesweep.objects import CANDIDATE, evaluation_name
from finetune_operator.finetunesweep.observed import ObservedFineTuneSweep, TrialJob
from finetune_operator.finetunesweep.refusal import search_refusal
from finetune_operator.finetunesweep.smallest_model.candidates import candidates
from finetune_operator.finetunesweep.trials import running, stopping
from finetune_operator.kube.parsed import spec_of, status_of
from finetune_operator.kube.reader import Reader
from finetune_operator.kube.resources import EVALUATIONS, FINE_TUNE_JOBS, Object

FIRST_RUN_ID = "1"
"""That of every trial: a FineTuneJob whose spec changes has another one."""
SPEC_CHANGED = "SpecChanged"


async def observe(reader: Reader, parent: Object, *, trainer_image: str | None) -> ObservedFineTuneSweep:
    """Read everything. Raises pydantic.ValidationError if the spec does not parse, and UnreadableStatusError.

    The jobs of trials that have ended are not read: what counts of them is in the status.
    """
    owner = owner_of(parent)
    spec, status = spec_of(FineTuneSweepSpec, parent), status_of(FineTuneSweepStatus, parent)
    is_over = status.run_id == spec.run_id and status.completion_time is not None
    is_new = status.run_id != spec.run_id or not status.trials
    if not is_over and spec.search is not None and spec.search.algorithm != "Grid":
        # Its import takes a second or more, in which other objects must not wait.
        await asyncio.to_thread(importlib.import_module, "optuna")
    class_ = None if is_over else await observe_class(reader, spec.template.spec.class_name, trainer_image)
    refusal = None
    if is_new and not is_over:
        # Schemas of graders are untrusted and may take long to check: other objects must not wait for them.
        refusal = await asyncio.to_thread(search_refusal, spec)
    models = None
    if spec.smallest_model is not None and class_ is not None and (is_new or not status.models):
        models = class_ if isinstance(class_, Readiness) else candidates(class_, spec)
    return ObservedFineTuneSweep(
        owner=owner,
        generation=parent["metadata"]["generation"],
        spec=spec,
        status=status,
        jobs=await _jobs(reader, owner, spec, status),
        holdout=None if is_over else await _holdout(reader, owner, spec, status),
        models=models,
        refusal=refusal or (models if isinstance(models, Readiness) else None),
        accelerators=None if class_ is None else _accelerators(class_, spec),
    )


async def _jobs(
    reader: Reader, owner: Owner, spec: FineTuneSweepSpec, status: FineTuneSweepStatus
) -> Mapping[str, TrialJob]:
    trials = {trial.fine_tune_job_name: trial for trial in (*running(status), *stopping(status))}
    found = await asyncio.gather(*(reader.get(FINE_TUNE_JOBS, owner.namespace, name) for name in trials))
    ours = {job["metadata"]["name"]: job for job in found if job is not None and is_controlled_by(job, owner.uid)}
    jobs = {name: view(job, trials[name], datetime.now(UTC)) for name, job in ours.items()}
    measured = spec.measured
    # Before another runId begins, the trials are those of the run before, whatever that one measured.
    is_measured = measured is not None or status.run_id != spec.run_id
    if not is_measured or not any(job.phase == "Succeeded" for job in jobs.values()):
        return jobs
    listed = await reader.list(EVALUATIONS, owner.namespace, owner_selector(owner.uid))
    evaluations = {one["metadata"]["name"]: one for one in listed if is_controlled_by(one, owner.uid)}
    names = {name: evaluation_name(owner, status.run_number, trials[name].number) for name in jobs}
    grader = "" if measured is None else measured.grader
    return {name: with_evaluation(job, evaluations.get(names[name]), grader) for name, job in jobs.items()}


async def _holdout(
    reader: Reader, owner: Owner, spec: FineTuneSweepSpec, status: FineTuneSweepStatus
) -> TrialJob | None:
    if status.holdout is None or status.completion_time is not None:
        return None
    body = await reader.get(EVALUATIONS, owner.namespace, status.holdout.evaluation_name)
    if body is None or not is_controlled_by(body, owner.uid):
        return None
    measured = spec.measured
    return with_evaluation(TrialJob("", "Succeeded"), body, "" if measured is None else measured.grader)


def view(body: Object, trial: TrialStatus, now: datetime) -> TrialJob:
    """What counts of a trial's FineTuneJob. One that trains something else by now has failed as a trial."""
    version = body["metadata"]["resourceVersion"]
    read = read_referenced(body, FineTuneJobSpec, FineTuneJobStatus)
    if isinstance(read, Unreadable):
        return TrialJob(version, None, message=read.message, is_stalled=True)
    spec, status = read
    is_first = spec.run_id == FIRST_RUN_ID and status.run_id in (None, FIRST_RUN_ID)
    if not is_first or not has_values(body["spec"], trial.values):
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


def with_evaluation(job: TrialJob, body: Object | None, grader: str) -> TrialJob:
    """The trial that has trained, and what its Evaluation has found."""
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
    if spec.run_id != FIRST_RUN_ID or status.run_id not in (None, FIRST_RUN_ID):
        return replace(job, phase="Failed", reason=SPEC_CHANGED, is_ours=False, completed=datetime.now(UTC))
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


_JUDGED = ("Passed", "GateFailed", "Inconclusive")
_EVALUATED: Mapping[str, Phase] = {
    **dict.fromkeys(_JUDGED, "Succeeded"),
    **{phase: phase for phase in ("Failed", "Cancelled", "Suspended")},
}


def _seconds(status: FineTuneJobStatus, now: datetime) -> int:
    """How long the Pods of its attempts have run; those of the last one may still."""
    ended = status.earlier_attempts_seconds + sum(one.pod_seconds for one in status.ended_attempts)
    attempt = status.attempt
    if attempt is None or any(one.number == attempt.number for one in status.ended_attempts):
        return ended
    end = status.completion_time or now
    return ended + max(0, round((end - (attempt.pods_start_time or end)).total_seconds()))


def _accelerators(class_: ResolvedClass | Readiness, spec: FineTuneSweepSpec) -> int | Readiness | None:
    """How many accelerators a trial has, also without a limit of their hours: one may be set later.

    If that can't be told: why, or None where nothing is limited.
    """
    training = spec.template.spec
    if isinstance(class_, Readiness):
        return None if spec.budget.accelerator_hours is None else class_
    accelerator = class_.spec.accelerator
    return 0 if accelerator is None else accelerator.count_per_node * training.parallelism.nodes
