"""What to do next for an Evaluation: a pure function of what was observed."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, EvaluationStatus
from finetune_api.outcome import EvaluationReport
from finetune_api.run import ModelSource, NamedModel

from finetune_operator.classes import ResolvedClass, source_violation
from finetune_operator.evaluation.gates import judge, summary
from finetune_operator.evaluation.objects import evaluate_job_name, evaluate_objects
from finetune_operator.evaluation.observe import ObservedEvaluation
from finetune_operator.kube import JOBS
from finetune_operator.models import ResolvedModel
from finetune_operator.plan import Child, Plan, planned, unchanged
from finetune_operator.pod_diagnosis import blockage, failure, outcome
from finetune_operator.retry import retry_delay_seconds
from finetune_operator.status import Standing, progressing, ready, stalled

BLOCKAGE_CHECK_SECONDS = 15


def plan(observed: ObservedEvaluation, now: datetime) -> Plan[EvaluationStatus]:
    """The writes that bring the evaluation one step further."""
    spec, status = observed.spec, observed.status
    platform = observed.platform
    if isinstance(platform, Standing):
        return planned(observed, status, status.phase or "Waiting", platform, now)
    refused = source_violation(platform.spec, models=_model_uris(observed), datasets=[spec.dataset.uri])
    if refused is not None:
        return planned(observed, status, "Failed", refused, now)
    models = models_to_judge(observed)
    if isinstance(models, Standing):
        if status.results and status.run_id == spec.run_id:
            # The tuned model is being made anew; the scores of the one before stand until then.
            return _judged(observed, status, now)
        return planned(observed, status, "Waiting", models, now)
    digests = {model.name: model.model.digest for model in models if model.model.digest is not None}
    judged = status.run_id == spec.run_id and status.candidate_digests == digests
    if judged and status.results:
        return _judged(observed, status, now)
    if not judged:
        status = EvaluationStatus(
            conditions=status.conditions,
            run_id=spec.run_id,
            try_number=1,
            candidate_digests=digests,
            start_time=whole_seconds(now),
        )
    return _evaluate(observed, status, platform, models, now)


def models_to_judge(observed: ObservedEvaluation) -> list[NamedModel] | Standing:
    """Candidates and baseline, ready to be loaded; the first one that is not says why."""
    models: list[NamedModel] = []
    baseline = observed.baseline
    for name, model in observed.candidates:
        if isinstance(model, Standing):
            return model
        models.append(NamedModel(name=name, model=model.source))
        if baseline is None and model.base is not None:
            baseline = ResolvedModel(model.base)
    if isinstance(baseline, Standing):
        return baseline
    if baseline is not None:
        models.insert(0, NamedModel(name=BASELINE, model=_without_digest(baseline.source)))
    return models


def _evaluate(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    platform: ResolvedClass,
    models: list[NamedModel],
    now: datetime,
) -> Plan[EvaluationStatus]:
    spec, owner = observed.spec, observed.owner
    number = status.try_number or 1
    if status.retry_time is not None:
        if now < status.retry_time:
            return unchanged(observed, status, requeue_at=status.retry_time)
        number += 1
        status = status.model_copy(update={"try_number": number, "retry_time": None})
    name = evaluate_job_name(owner, spec.run_id, models, number)
    status = status.model_copy(update={"job_name": name})
    others = tuple(
        Child(JOBS, owner.namespace, job.name, job.uid)
        for job in observed.jobs
        if job.name != name and not job.deleting
    )
    job = next((job for job in observed.jobs if job.name == name), None)
    if job is None:
        standing = _stalled_before(observed, number) or progressing(Reason.EVALUATING)
        objects = evaluate_objects(owner, spec, platform, models, name)
        return planned(observed, status, "Evaluating", standing, now, apply=objects, delete=others)
    pods = [pod for pod in observed.pods if pod.job_name == name]
    if job.state == "Active":
        blocked = blockage(pods, now)
        standing = _stalled_before(observed, number) or progressing(Reason.EVALUATING)
        if blocked is not None:
            standing = stalled(blocked.reason, blocked.message)
        check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
        return planned(observed, status, "Evaluating", standing, now, requeue_at=check)
    said = outcome(pods)
    if isinstance(said, EvaluationReport):
        status = status.model_copy(
            update={
                "results": said.scores,
                "report_uri": said.report_uri,
                "completion_time": whole_seconds(now),
                "summary": summary(spec.graders[0].name, said.scores),
            }
        )
        return _judged(observed, status, now)
    diagnosis = failure(pods, job.message)
    retry_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(number))
    status = status.model_copy(update={"retry_time": retry_time})
    message = f"{diagnosis.message} Tried again by itself; next at {retry_time:%H:%M:%S} UTC."
    return planned(observed, status, "Failed", stalled(Reason(diagnosis.reason), message), now, requeue_at=retry_time)


def _judged(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> Plan[EvaluationStatus]:
    """Scores are there: gates are judged anew each time, since they may be changed without a new run."""
    gates = judge(observed.spec.gates, status.results)
    status = status.model_copy(update={"gates": gates})
    missed = [gate for gate in gates if not gate.passed]
    if not missed:
        text = "Every gate passed." if gates else "Evaluated; the spec has no gate."
        passed = ready(Reason.GATES_PASSED, text)
        return planned(observed, status, "Passed", ready(Reason.EVALUATED, status.summary or text), now, passed=passed)
    text = "; ".join(f"{gate.candidate} by {gate.grader}: {gate.message}" for gate in missed)
    failed = stalled(Reason.GATE_FAILED, f"{len(missed)} of {len(gates)} gates failed: {text}")
    return planned(observed, status, "GateFailed", failed, now, passed=failed)


def _without_digest(source: ModelSource) -> ModelSource:
    """The baseline is not a candidate: its digest does not say what was judged."""
    return source.model_copy(update={"digest": None})


def _model_uris(observed: ObservedEvaluation) -> list[str]:
    references = [candidate.model for candidate in observed.spec.candidates]
    if observed.spec.baseline is not None:
        references.append(observed.spec.baseline.model)
    return [reference.uri for reference in references if reference.uri is not None]


def _stalled_before(observed: ObservedEvaluation, try_number: int) -> Standing | None:
    """A retry keeps its diagnosis until it has an answer."""
    for condition in observed.status.conditions:
        if condition.type == "Stalled" and condition.status == "True" and try_number > 1:
            return stalled(Reason(condition.reason), condition.message)
    return None
