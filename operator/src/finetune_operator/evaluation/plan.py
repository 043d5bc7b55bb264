"""What to do next for an Evaluation: a pure function of what was observed."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import BASELINE, EvaluationStatus
from finetune_api.run import ModelSource, NamedModel
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.core.plan import Child, Plan, planned
from finetune_operator.evaluation.evaluating import disrupted, over, waiting_to_retry, watched
from finetune_operator.evaluation.objects import evaluate_job_name, evaluate_objects, run_digest
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import ResolvedClass, output_location, source_violation
from finetune_operator.models.resolve import ResolvedModel, Undecided
from finetune_operator.pods.backoff import waits
from finetune_operator.pods.builders import jobs_to_delete
from finetune_operator.pods.observed import JobView
from finetune_operator.pods.retried_job import retry_readiness
from finetune_operator.pods.start_diagnosis import START_CHECK_SECONDS, disowned_message, orphan_message, orphans
from finetune_operator.pods.template_hash import has_started, is_outdated


def plan(observed: ObservedEvaluation, now: datetime) -> Plan[EvaluationStatus]:
    """The writes that bring the evaluation one step further."""
    spec, status = observed.spec, observed.status
    platform, models = _admitted(observed), models_to_judge(observed)
    digests = {} if isinstance(models, Readiness) else _digests(models)
    same_run = status.run_id == spec.run_id and (
        status.run_digest in (None, run_digest(spec)) or _is_recorded(status, observed.generation)
    )
    of_these = same_run and (isinstance(models, Readiness) or status.candidate_digests == digests)
    if of_these and status.completion_time is not None:
        # While the tuned model is made anew, what is known of the one before stands.
        return over(observed, status, now)
    is_known = not isinstance(models, Readiness) or isinstance(models, Undecided)
    job = _current_job(observed) if of_these and is_known else None
    if job is None and isinstance(platform, Readiness):
        return planned(observed, status, "Waiting", platform, now, delete=_active_jobs(observed))
    if isinstance(models, Undecided):
        # No new try begins; the one that runs ends by its own deadline at the latest.
        if job is not None:
            return watched(observed, status, job, now, models)
        return planned(observed, status, "Waiting", models, now)
    if isinstance(models, Readiness):
        # Nobody would take the answer to a question about a model that is not there any more.
        status = status.model_copy(update={"job_name": None})
        return planned(observed, status, "Waiting", models, now, delete=_active_jobs(observed))
    if not of_these:
        status = EvaluationStatus(
            conditions=status.conditions,
            run_id=spec.run_id,
            run_digest=run_digest(spec),
            candidate_digests=digests,
            start_time=whole_seconds(now),
        ).over(status)
    if isinstance(platform, Readiness):
        assert job is not None
        return watched(observed, status, job, now)
    if job is not None and not _is_outdated(observed, platform, models, job):
        return watched(observed, status, job, now)
    if job is None and status.job_name is not None and status.retry_time is None:
        return disrupted(observed, status, f"Job {status.job_name} of the last try was deleted.", now)
    return _next_try(observed, status, platform, models, now)


def _is_recorded(status: EvaluationStatus, generation: int) -> bool:
    """Whether the end is about the spec as it is: if its digest is another one, another version wrote it.

    What has no end, or was refused or unreadable since, is known by its digest only.
    """
    return any(
        condition.type in (ConditionType.PASSED, ConditionType.FAILED) and condition.observed_generation == generation
        for condition in status.conditions
    )


def models_to_judge(observed: ObservedEvaluation) -> list[NamedModel] | Readiness:
    """Candidates and baseline, ready to be loaded; the first one that is not says why."""
    models: list[NamedModel] = []
    baseline, found = observed.baseline, [model for _, model in observed.candidates]
    waiting = [one for one in (*found, baseline) if isinstance(one, Readiness)]
    if waiting:
        # One that is not there decides, whatever is undecided of the others.
        return next((one for one in waiting if not isinstance(one, Undecided)), waiting[0])
    for name, model in observed.candidates:
        assert not isinstance(model, Readiness)
        models.append(NamedModel(name=name, model=model.source))
        if baseline is None and model.base is not None:
            baseline = ResolvedModel(model.base)
    assert not isinstance(baseline, Readiness)
    if baseline is not None:
        models.insert(0, NamedModel(name=BASELINE, model=_without_digest(baseline.source)))
    return models


def _next_try(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    platform: ResolvedClass,
    models: list[NamedModel],
    now: datetime,
) -> Plan[EvaluationStatus]:
    """The first try, the one after another that ended, or one in place of a Job that is gone or would differ now."""
    if waits(status.retry_time, now):
        return planned(
            observed, status, "Retrying", waiting_to_retry(observed, status), now, requeue_at=status.retry_time
        )
    others, left = [job for job in observed.disowned if job.is_active], orphans(observed.pods)
    if others or left:
        again = now + timedelta(seconds=START_CHECK_SECONDS)
        readiness = progressing(Reason.RETRYING, disowned_message(others[0]) if others else orphan_message(left))
        status = status.model_copy(update={"job_name": observed.status.job_name})
        return planned(observed, status, "Retrying", readiness, now, requeue_at=again)
    spec, owner = observed.spec, observed.owner
    number = (status.try_number or 0) + 1
    name = evaluate_job_name(owner, spec, models, number)
    folder = output_location(platform.spec, owner, spec.run_id).uri
    update = {"try_number": number, "job_name": name, "retry_time": None, "disruption": None, "storage_uri": folder}
    status = status.model_copy(update={**update, "class_name": platform.name})
    return planned(
        observed,
        status,
        "Evaluating",
        retry_readiness(Reason.EVALUATING, status.failure, None),
        now,
        create=evaluate_objects(owner, spec, platform, models, name),
        delete=jobs_to_delete(owner.namespace, [job for job in observed.jobs if job.name != name]),
        requeue_at=now + timedelta(seconds=START_CHECK_SECONDS),
    )


def _admitted(observed: ObservedEvaluation) -> ResolvedClass | Readiness:
    """The class, if it allows what the spec names."""
    platform = observed.platform
    if isinstance(platform, Readiness):
        return platform
    refused = source_violation(platform.spec, models=_model_uris(observed), datasets=[observed.spec.dataset.uri])
    return refused or observed.refusal or platform


def _current_job(observed: ObservedEvaluation) -> JobView | None:
    """The Job of the try that runs or has just ended."""
    status = observed.status
    if status.retry_time is not None:
        return None
    return next((job for job in observed.jobs if job.name == status.job_name), None)


def _is_outdated(
    observed: ObservedEvaluation,
    platform: ResolvedClass,
    models: list[NamedModel],
    job: JobView,
) -> bool:
    """Whether the Job has not started and would be made otherwise now."""
    pods = observed.pods_of(job)
    if job.deleting or has_started(job, pods):
        return False
    return is_outdated(job, pods, evaluate_objects(observed.owner, observed.spec, platform, models, job.name))


def _active_jobs(observed: ObservedEvaluation) -> tuple[Child, ...]:
    return jobs_to_delete(observed.owner.namespace, [job for job in observed.jobs if job.state == "Active"])


def _without_digest(source: ModelSource) -> ModelSource:
    """The baseline is not a candidate: its digest does not say what was judged."""
    return source.model_copy(update={"digest": None})


def _digests(models: list[NamedModel]) -> dict[str, str]:
    return {model.name: model.model.digest for model in models if model.model.digest is not None}


def _model_uris(observed: ObservedEvaluation) -> list[str]:
    references = [candidate.model for candidate in observed.spec.candidates]
    if observed.spec.baseline is not None:
        references.append(observed.spec.baseline.model)
    return [reference.uri for reference in references if reference.uri is not None]
