"""Plans of an Evaluation, and the states that they begin from."""

from __future__ import annotations

from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.conditions import stalled
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.evaluation_states import (
    evaluation_job_name,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.states import (
    NETWORK_FAILURE,
    NOW,
    Decided,
    decided,
    earlier_conditions,
    failed_pod,
    job,
    later,
)

NEW = EvaluationStatus()
JOB, RETRY, OF_NEW_MODEL = evaluation_job_name(), evaluation_job_name(number=2), evaluation_job_name("sha256:bb")
JOB_OBJECTS, RETRY_OBJECTS = (f"ConfigMap/{JOB}", f"Job/{JOB}"), (f"ConfigMap/{RETRY}", f"Job/{RETRY}")
NO_JOB = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'router' does not exist in namespace 'team-a'. Create it.")
EVALUATING = earlier_conditions(Reason.EVALUATING)


def decide(observed: ObservedEvaluation) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def failed_once(retry_in: float) -> EvaluationStatus:
    ended = observed_evaluation(evaluation_status(), job(JOB, "Failed"), pods=(failed_pod(JOB, NETWORK_FAILURE),))
    return plan(ended, NOW).status.model_copy(update={"retry_time": later(retry_in)})


def is_over(result: Decided) -> bool:
    """Whether phase and condition say that the run is over for good."""
    failed = any(item.type == ConditionType.FAILED and item.status == "True" for item in result.status.conditions)
    assert failed is (result.decision.phase == "Failed")
    assert failed is (result.status.completion_time is not None)
    return failed
