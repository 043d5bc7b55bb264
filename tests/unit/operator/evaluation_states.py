"""Observed states of an Evaluation for the tests of its plan."""

from __future__ import annotations

from typing import Any

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus, Score
from finetune_api.pod_contracts.outcome import EvaluationReport
from finetune_api.pod_contracts.run import ModelSource, NamedModel
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.core.ownership import Owner
from finetune_operator.evaluation.objects import evaluate_job_name
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.observed import JobView, PodView
from tests.unit.operator.states import ago, merged, resolved_class

EVALUATION = Owner("Evaluation", "team-a", "router-eval", "7d1e5c70-1111-4bb1-9d2e-7a4f1c86e3d5")
EVALUATION_WIRE: dict[str, Any] = {
    "candidates": [{"name": "tuned", "model": {"fineTuneJobRef": {"name": "router"}}}],
    "dataset": {"uri": "s3://data/test.jsonl"},
    "graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {}}],
    "gates": [{"grader": "exact", "minimumDelta": 0.1}],
}
BASE = ModelSource(uri="s3://models/base")
WAITING_FOR_MODEL = progressing(Reason.WAITING_FOR_MODEL, "FineTuneJob 'router' is not complete (Training).")


def tuned(digest: str = "sha256:aa") -> ResolvedModel:
    """What the fine-tuning job made, by its digest."""
    return ResolvedModel(ModelSource(uri=BASE.uri, adapter_uri=f"s3://models/{digest}", digest=digest), BASE)


def evaluation_spec(**changes: Any) -> EvaluationSpec:
    return EvaluationSpec.from_wire(merged(EVALUATION_WIRE, changes))


def evaluation_job_name(digest: str = "sha256:aa", number: int = 1, run_id: str = "1") -> str:
    models = [NamedModel(name="baseline", model=BASE), NamedModel(name="tuned", model=tuned(digest).source)]
    return evaluate_job_name(EVALUATION, evaluation_spec(runId=run_id), models, number)


def score(candidate: str, mean: float, delta: float | None = None, grader: str = "exact") -> Score:
    return Score(
        candidate=candidate,
        grader=grader,
        score=mean,
        low=mean - 0.05,
        high=mean + 0.05,
        examples=250,
        delta=delta,
        delta_low=None if delta is None else delta - 0.05,
        delta_high=None if delta is None else delta + 0.05,
    )


EVALUATION_FOLDER = "s3://models/finetune/team-a/router-eval/1-7d1e5c70"
SCORES = [score("baseline", 0.25), score("tuned", 0.75, delta=0.5)]
EVALUATION_REPORT = EvaluationReport(scores=SCORES, report_uri=f"{EVALUATION_FOLDER}/report.json")


def evaluation_status(**changes: Any) -> EvaluationStatus:
    """The first run has started on the model of digest sha256:aa."""
    status = EvaluationStatus(
        phase="Evaluating",
        run_id="1",
        try_number=1,
        job_name=evaluation_job_name(),
        candidate_digests={"tuned": "sha256:aa"},
        start_time=ago(60),
    )
    return status.model_copy(update=changes)


def evaluated_status(**changes: Any) -> EvaluationStatus:
    """Scores are there."""
    return evaluation_status(
        **{"phase": "Passed", "results": SCORES, "completion_time": ago(9), "summary": "exact 0.750", **changes}
    )


def observed_evaluation(
    status: EvaluationStatus | None = None,
    *jobs: JobView,
    pods: tuple[PodView, ...] = (),
    spec: EvaluationSpec | None = None,
    model: ResolvedModel | Readiness | None = None,
    class_: ResolvedClass | Readiness | None = None,
    **changes: Any,
) -> ObservedEvaluation:
    """An evaluation of one candidate against its base."""
    found = tuned() if model is None else model
    return ObservedEvaluation(
        **{
            "owner": EVALUATION,
            "generation": 1,
            "spec": spec or evaluation_spec(),
            "status": status or EvaluationStatus(),
            "class_": class_ or resolved_class(),
            "candidates": (("tuned", found),),
            "baseline": None,
            "jobs": jobs,
            "pods": pods,
            **changes,
        }
    )
