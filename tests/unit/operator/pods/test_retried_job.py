"""The Jobs that are retried, preflight, evaluation and deletion, by one rule: what their Pods' ends mean."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.lifecycle import Disruption, FailureStatus
from finetune_api.pod_contracts.outcome import EvaluationReport, Failure, PreflightReport
from finetune_operator.finetunejob.deletion.plan import DELETION
from finetune_operator.finetunejob.plan import plan
from finetune_operator.finetunejob.policies.preflight import PREFLIGHT
from finetune_operator.pods.retried_job import Disrupted, Failed, RetriedJob, Running, Succeeded
from finetune_operator.retried_run.run import retried_job
from tests.unit.operator.evaluation_states import evaluation_spec
from tests.unit.operator.states import (
    LINE_7,
    NETWORK_FAILURE,
    NOW,
    PREFLIGHT_1,
    PREFLIGHT_REPORT,
    ago,
    decided,
    failed_pod,
    job,
    job_status,
    later,
    observed_job,
    pod,
    preflight_status,
    succeeded_pod,
)

EVALUATION = retried_job(EvaluationReport, evaluation_spec(retryLimit=3))
ALL = pytest.mark.parametrize("retried", [PREFLIGHT, EVALUATION, DELETION], ids=["preflight", "evaluation", "deletion"])
WRONG_SPEC = Failure(reason=Reason.INVALID_SPEC, message="maxLength is too large.")
OUT_OF_MEMORY = Failure(reason=Reason.CUDA_OUT_OF_MEMORY, message="The accelerator is full.", retryable=True)


def result(
    retried: RetriedJob, *pods: Any, state: Any = "Failed", seen: Any = None, before: Any = None, **of: Any
) -> Any:
    return retried.result(job("j", state, **of), pods, (), NOW, seen=seen, before=before)


@ALL
@pytest.mark.parametrize(
    "pods",
    [
        (),
        (pod("j", phase="Failed", exit_code=137),),
        (pod("j", phase="Failed", exit_code=143),),
        (pod("j", phase="Failed", exit_code=143, disrupted=True, disruption="PreemptionByScheduler: for another"),),
    ],
    ids=["deleted", "killed from outside", "told to stop", "preempted"],
)
def test_what_the_infrastructure_ends_is_no_failure(retried: RetriedJob, pods: tuple[Any, ...]) -> None:
    assert isinstance(result(retried, *pods), Disrupted)


@ALL
def test_a_pod_that_was_seen_to_be_evicted_is_disrupted_once_it_is_gone(retried: RetriedJob) -> None:
    seen = Disruption(pod="j-0", reason="EvictionByEvictionAPI", message="evicting")
    assert result(retried, seen=seen) == Disrupted("Pod j-0 was disrupted (EvictionByEvictionAPI: evicting).", seen)


@ALL
def test_a_finalizer_of_somebody_elses_on_a_deleted_job_holds_nothing(retried: RetriedJob) -> None:
    held = result(retried, state="Active", deleting=True, finalizers=("example.com/hold",))
    assert isinstance(held, Disrupted)
    assert "example.com/hold" in held.message
    ends = result(retried, state="Active", deleting=True, finalizers=("foregroundDeletion",))
    assert isinstance(ends, Running)


@ALL
def test_a_job_that_took_longer_than_its_deadline_would_take_as_long_again(retried: RetriedJob) -> None:
    found = result(retried, reason="DeadlineExceeded")
    assert (type(found), found.final, found.diagnosis.reason) == (Failed, True, Reason.DEADLINE_EXCEEDED)


@ALL
def test_an_image_that_can_not_be_pulled_for_a_quarter_of_an_hour_is_final(retried: RetriedJob) -> None:
    def waits(seconds: float) -> Any:
        stuck = pod("j", phase="Pending", waiting_reason="ErrImagePull", scheduled_time=ago(seconds))
        return result(retried, stuck, state="Active")

    assert isinstance(waits(890), Running)
    found = waits(900)
    assert (type(found), found.final, found.diagnosis.reason) == (Failed, True, Reason.IMAGE_PULL_FAILED)


@pytest.mark.parametrize(
    ("retried", "answer", "final"),
    [
        (PREFLIGHT, LINE_7, False),
        (DELETION, LINE_7, False),
        (EVALUATION, LINE_7, True),
        (PREFLIGHT, NETWORK_FAILURE, False),
        (DELETION, NETWORK_FAILURE, False),
        (EVALUATION, NETWORK_FAILURE, False),
        (PREFLIGHT, WRONG_SPEC, True),
        (DELETION, WRONG_SPEC, True),
        (EVALUATION, WRONG_SPEC, True),
    ],
)
def test_a_failure_that_another_try_can_not_mend_is_final(retried: RetriedJob, answer: Failure, final: bool) -> None:
    """What somebody may mend is retried where that costs no accelerator; what only another spec mends never is."""
    assert result(retried, failed_pod("j", answer)).final is final


def test_where_accelerators_are_used_the_second_lack_of_memory_is_final() -> None:
    before = FailureStatus(reason=Reason.CUDA_OUT_OF_MEMORY, message="The accelerator is full.")
    assert not result(EVALUATION, failed_pod("j", OUT_OF_MEMORY)).final
    assert result(EVALUATION, failed_pod("j", OUT_OF_MEMORY), before=before).final


def test_only_the_report_that_was_asked_for_is_a_success() -> None:
    well = succeeded_pod("j", PREFLIGHT_REPORT)
    assert result(PREFLIGHT, well, state="Complete") == Succeeded(PREFLIGHT_REPORT)
    assert isinstance(result(EVALUATION, well, state="Complete"), Failed)
    empty = PreflightReport(
        dataset=PREFLIGHT_REPORT.dataset.model_copy(update={"training": None}), model=PREFLIGHT_REPORT.model
    )
    assert isinstance(result(PREFLIGHT, succeeded_pod("j", empty), state="Complete"), Failed)
    assert result(DELETION, pod("j", phase="Succeeded", exit_code=0), state="Complete") == Succeeded(None)


@pytest.mark.parametrize(
    ("retried", "failures", "another"),
    [(PREFLIGHT, 1000, True), (EVALUATION, 3, True), (EVALUATION, 4, False), (DELETION, 4, True), (DELETION, 5, False)],
)
def test_how_many_failures_are_retried(retried: RetriedJob, failures: int, another: bool) -> None:
    assert retried.allows_another(failures) is another


@pytest.mark.parametrize(("number", "seconds"), [(1, 10), (2, 20), (3, 40), (7, 600), (1000, 600)])
def test_the_delay_doubles_up_to_ten_minutes(number: int, seconds: int) -> None:
    for retried in (PREFLIGHT, EVALUATION, DELETION):
        assert retried.next_time(number, NOW) == later(seconds)


def test_a_preflight_whose_pod_was_deleted_starts_again_without_a_diagnosis() -> None:
    gone = decided(plan(observed_job(job_status(preflight=preflight_status()), job(PREFLIGHT_1, "Failed")), NOW))
    assert (gone.decision.phase, gone.decision.reason, gone.decision.stalled) == ("Validating", "Validating", False)
    assert gone.message == "The preflight Pod was disrupted. Preflight starts again at 12:00:10 UTC."
    assert (gone.status.failure, gone.decision.again_in) == (None, 10)
