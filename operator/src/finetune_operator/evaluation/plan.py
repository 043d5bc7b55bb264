"""What to do next for an Evaluation: a pure function of what was observed."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.evaluation import BASELINE, EvaluationStatus
from finetune_api.outcome import EvaluationReport
from finetune_api.run import ModelSource, NamedModel
from finetune_operator.blockages import BLOCKAGE_CHECK_SECONDS, blockage
from finetune_operator.claims import scores_refusal
from finetune_operator.classes import ResolvedClass, output_location, source_violation
from finetune_operator.evaluation.gates import judge, summary
from finetune_operator.evaluation.objects import evaluate_job_name, evaluate_objects
from finetune_operator.evaluation.observe import ObservedEvaluation
from finetune_operator.models import ResolvedModel
from finetune_operator.plan import Plan, planned
from finetune_operator.pod_diagnosis import failure, outcome, refused_report
from finetune_operator.retry import retry_delay_seconds
from finetune_operator.status import Standing, ready, stalled
from finetune_operator.tries import jobs_to_delete, standing_of_try


def plan(observed: ObservedEvaluation, now: datetime) -> Plan[EvaluationStatus]:
    """The writes that bring the evaluation one step further."""
    spec, status = observed.spec, observed.status
    platform, models = observed.platform, models_to_judge(observed)
    digests = {} if isinstance(models, Standing) else _digests(models)
    same_run = status.run_id == spec.run_id
    complete = same_run and status.completion_time is not None
    # While the tuned model is made anew, the scores of the one before stand.
    if complete and (isinstance(models, Standing) or status.candidate_digests == digests):
        return _judged(observed, status, now)
    if isinstance(platform, Standing):
        return planned(observed, status, status.phase or "Waiting", platform, now)
    refused = source_violation(platform.spec, models=_model_uris(observed), datasets=[spec.dataset.uri])
    if refused is not None:
        return planned(observed, status, "Failed", refused, now)
    if isinstance(models, Standing):
        return planned(observed, status, "Waiting", models, now)
    if not same_run or status.candidate_digests != digests:
        status = EvaluationStatus(
            conditions=status.conditions,
            run_id=spec.run_id,
            try_number=1,
            candidate_digests=digests,
            start_time=whole_seconds(now),
        ).over(status)
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
            return planned(observed, status, "Failed", _evaluating(status), now, requeue_at=status.retry_time)
        number += 1
        status = status.model_copy(update={"try_number": number, "retry_time": None})
    name = evaluate_job_name(owner, spec.run_id, models, number)
    status = status.model_copy(update={"job_name": name})
    others = jobs_to_delete(owner.namespace, [job for job in observed.jobs if job.name != name])
    job = next((job for job in observed.jobs if job.name == name), None)
    check = now + timedelta(seconds=BLOCKAGE_CHECK_SECONDS)
    if job is None:
        folder = output_location(platform.spec, owner, spec.run_id).uri
        status = status.model_copy(update={"storage_uri": folder})
        objects = evaluate_objects(owner, spec, platform, models, name)
        return planned(
            observed, status, "Evaluating", _evaluating(status), now, create=objects, delete=others, requeue_at=check
        )
    pods = [pod for pod in observed.pods if pod.job_uid == job.uid]
    if job.state == "Active":
        blocked = blockage(job, pods, observed.warnings, now)
        standing = stalled(blocked.reason, blocked.message) if blocked else _evaluating(status)
        return planned(observed, status, "Evaluating", standing, now, delete=others, requeue_at=check)
    said, diagnosis = outcome(pods), failure(pods, job.message)
    refusal = _refusal(observed, status, platform, models, said) if isinstance(said, EvaluationReport) else None
    if refusal is not None:
        diagnosis = refused_report(pods, refusal)
    elif isinstance(said, EvaluationReport) and job.state == "Complete":
        status = status.model_copy(
            update={
                "results": said.scores,
                "report_uri": said.report_uri,
                "completion_time": whole_seconds(now),
                "failure": None,
                "summary": summary(spec.graders[0].name, said.scores),
            }
        )
        return _judged(observed, status, now)
    retry_time = whole_seconds(now) + timedelta(seconds=retry_delay_seconds(number))
    status = status.model_copy(update={"retry_time": retry_time, "failure": diagnosis})
    return planned(observed, status, "Failed", _evaluating(status), now, requeue_at=retry_time)


def _refusal(
    observed: ObservedEvaluation,
    status: EvaluationStatus,
    platform: ResolvedClass,
    models: list[NamedModel],
    said: EvaluationReport,
) -> str | None:
    """Why the report is not taken. The class may have changed meanwhile: the folder is what the status says."""
    folder = status.storage_uri or output_location(platform.spec, observed.owner, observed.spec.run_id).uri
    names, graders = [model.name for model in models], [grader.name for grader in observed.spec.graders]
    return scores_refusal(said.scores, said.report_uri, folder, names, graders)


def _evaluating(status: EvaluationStatus) -> Standing:
    return standing_of_try(Reason.EVALUATING, status.failure, status.retry_time)


def _judged(observed: ObservedEvaluation, status: EvaluationStatus, now: datetime) -> Plan[EvaluationStatus]:
    """Scores are there: gates are judged anew each time, since they may be changed without a new run."""
    gates = judge(observed.spec.gates, [candidate.name for candidate in observed.spec.candidates], status.results)
    before = {(gate.candidate, gate.grader): gate for gate in status.gates}
    kept = [gate.over(before.get((gate.candidate, gate.grader))) for gate in gates]
    status = status.model_copy(update={"gates": kept})
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


def _digests(models: list[NamedModel]) -> dict[str, str]:
    return {model.name: model.model.digest for model in models if model.model.digest is not None}


def _model_uris(observed: ObservedEvaluation) -> list[str]:
    references = [candidate.model for candidate in observed.spec.candidates]
    if observed.spec.baseline is not None:
        references.append(observed.spec.baseline.model)
    return [reference.uri for reference in references if reference.uri is not None]
