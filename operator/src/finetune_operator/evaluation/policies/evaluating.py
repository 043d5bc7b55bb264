"""The phase Evaluating: one try runs at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import Readiness, progressing, sentence
from finetune_operator.core.plan import earliest
from finetune_operator.evaluation.candidates import models_to_evaluate
from finetune_operator.evaluation.class_limits import allowed_class
from finetune_operator.evaluation.current_job import next_try, objects_of, try_result, try_to_watch
from finetune_operator.evaluation.objects import tries_to_delete
from finetune_operator.evaluation.observed import EvaluationDecision, EvaluationPlan, ObservedEvaluation
from finetune_operator.finetuneclass.resolve import output_location
from finetune_operator.pods.job_outcome import first_disruption, next_sidecar_check
from finetune_operator.pods.retried_job import Running, retry_readiness, with_previous_failure
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS, queued_message


def record_disruption(observed: ObservedEvaluation, plan: EvaluationPlan, now: datetime) -> EvaluationPlan:
    """Record why the infrastructure is ending the Pod, before the Pod is gone."""
    job = try_to_watch(observed)
    if job is None or plan.status.disruption is not None:
        return plan
    seen = first_disruption(observed.pods_of(job))
    return replace(plan, status=plan.status.model_copy(update={"disruption": seen}))


def watch_try(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision | None:
    """Wait for the try that has no result yet, and report its state."""
    job = try_to_watch(observed)
    result = None if job is None else try_result(observed, status, job, now)
    if job is None or not isinstance(result, Running):
        return None
    readiness = retry_readiness(Reason.EVALUATING, status.failure, None, is_bounded=True)
    readiness = replace(readiness, message=readiness.message + result.message)
    if job.suspended:
        readiness = progressing(Reason.QUEUED, queued_message(job))
    elif result.start is not None:
        readiness = with_previous_failure(result.start.readiness, status.failure, is_bounded=True)
    models = models_to_evaluate(observed)
    if isinstance(models, Readiness):
        message = f"{sentence(readiness.message)} {sentence(models.message)} The running try continues."
        readiness = replace(readiness, message=message)
    return EvaluationDecision(
        status,
        readiness,
        delete=tries_to_delete(
            observed.owner.namespace, [other for other in observed.jobs if other.name != job.name], observed.pods
        ),
        requeue_at=earliest(
            [now + timedelta(seconds=START_CHECK_SECONDS), next_sidecar_check(observed.pods_of(job), now)]
        ),
        meanwhile=Reason.EVALUATING,
    )


def start_try(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> EvaluationDecision:
    """Create the objects of the next try, and delete the Jobs of earlier ones, which have ended."""
    spec, owner, class_, models = observed.spec, observed.owner, allowed_class(observed), models_to_evaluate(observed)
    assert not isinstance(models, Readiness), "wait_for_models decides before"
    number, name = next_try(observed, status)
    update = {
        "try_number": number,
        "job_name": name,
        "retry_time": None,
        "disruption": None,
        "sent_report": None,
        "storage_uri": output_location(class_.spec, owner, spec.run_id).uri,
        "class_name": class_.name,
    }
    return EvaluationDecision(
        status.model_copy(update=update),
        retry_readiness(Reason.EVALUATING, status.failure, None, is_bounded=True),
        create=objects_of(observed, class_, models, name),
        delete=tries_to_delete(owner.namespace, [job for job in observed.jobs if job.name != name], observed.pods),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
        meanwhile=Reason.EVALUATING,
    )
