"""What the runs of an Evaluation are, for the policies in retried_run/."""

from __future__ import annotations

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_operator.core.conditions import Readiness
from finetune_operator.evaluation.allowed_class import class_or_refusal
from finetune_operator.evaluation.candidates import models_to_evaluate
from finetune_operator.evaluation.objects import evaluate_job_name, objects_of
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.pinned_revision import revision_to_read
from finetune_operator.evaluation.run_identity import is_same_run, new_run
from finetune_operator.evaluation.scores.try_result import try_result
from finetune_operator.finetuneclass.resolve import output_location
from finetune_operator.models.resolve import Undecided
from finetune_operator.retried_run.run import RetriedRun


def _missing(observed: ObservedEvaluation) -> Readiness | None:
    needed = (models_to_evaluate(observed), revision_to_read(observed))
    return next((one for one in needed if isinstance(one, Readiness)), None)


def _has_lost_model(observed: ObservedEvaluation) -> bool:
    models = models_to_evaluate(observed)
    return isinstance(models, Readiness) and not isinstance(models, Undecided)


def _job_name(observed: ObservedEvaluation, status: EvaluationStatus, number: int) -> str:
    models = models_to_evaluate(observed)
    assert not isinstance(models, Readiness), "wait_for_models decides before"
    return evaluate_job_name(observed.owner, observed.spec, models, number)


RUN = RetriedRun[ObservedEvaluation, EvaluationStatus](
    working=Reason.EVALUATING,
    waiting=Reason.WAITING_FOR_MODEL,
    work="The evaluation",
    outcome="scores",
    run_again="Change spec.runId to evaluate again.",
    reused="saved answers of APIs are reused, and loaded models answer again",
    is_same_run=is_same_run,
    new_run=new_run,
    class_or_refusal=class_or_refusal,
    missing=_missing,
    has_lost_model=_has_lost_model,
    report=EvaluationReport,
    resumes=True,
    has_config_map=True,
    job_name=_job_name,
    storage_uri=lambda observed, status, class_: output_location(class_.spec, observed.owner, observed.spec.run_id).uri,
    objects=lambda observed, status: objects_of(observed, status.job_name or ""),
    try_result=try_result,
)
