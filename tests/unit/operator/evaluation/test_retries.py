"""An Evaluation that fails: what is tried again, how often, and what is over for good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.evaluation import EvaluationProgress, EvaluationStatus
from finetune_operator.core.conditions import stalled
from finetune_operator.evaluation.plan import plan
from finetune_operator.pods.observed import PodView
from tests.unit.operator.evaluation.plans import EVALUATING, JOB, RETRY, RETRY_OBJECTS, decide, failed_once, is_over
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    evaluation_job_name,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    tuned,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    NETWORK_FAILURE,
    NOW,
    Decision,
    ago,
    failed_pod,
    job,
    later,
    pod,
    reason_of,
    succeeded_pod,
    with_config_map,
)

# Failures.


def test_a_failed_evaluation_is_tried_again_by_itself() -> None:
    status = evaluation_status(conditions=EVALUATING)
    observed = observed_evaluation(status, job(JOB, "Failed"), pods=(failed_pod(JOB, NETWORK_FAILURE),))
    result = decide(observed)
    assert result.decision == Decision(
        "Retrying", "StorageUnreachable", again_in=10, event="Warning StorageUnreachable"
    )
    assert result.message == f"{NETWORK_FAILURE.message} The next try starts at 12:00:10 UTC."


@pytest.mark.parametrize(
    ("reason", "stalled"),
    [
        (Reason.STORAGE_UNREACHABLE, False),
        (Reason.ENDPOINT_UNREACHABLE, False),
        (Reason.HUB_UNREACHABLE, False),
        (Reason.GRADER_FAILED, False),
        (Reason.OUT_OF_MEMORY, True),
        (Reason.FAILED, True),
        # What no Pod should say: its phase is not that of these reasons either.
        (Reason.EVALUATED, True),
        (Reason.GATE_FAILED, True),
    ],
)
def test_a_retry_is_stalled_only_where_a_person_may_have_to_act(reason: Reason, stalled: bool) -> None:
    """What has only to be waited for is told, and the last try makes it final."""
    said = failed_pod(JOB, NETWORK_FAILURE.model_copy(update={"reason": reason}))
    observed = observed_evaluation(evaluation_status(conditions=EVALUATING), job(JOB, "Failed"), pods=(said,))
    result = decide(observed)
    assert (result.decision.phase, result.decision.reason, result.decision.stalled) == ("Retrying", reason, stalled)
    assert result.decision.event == f"Warning {reason}"
    last = decide(replace(observed, spec=evaluation_spec(retryLimit=0)))
    assert (last.decision.phase, last.decision.stalled) == ("Failed", True)


def test_the_diagnosis_is_kept_until_the_next_retry() -> None:
    observed = observed_evaluation(failed_once(retry_in=7), job(JOB, "Failed"))
    assert decide(observed).decision == Decision("Retrying", "StorageUnreachable", again_in=7)


def test_the_next_try_is_another_job_and_keeps_the_diagnosis_until_it_has_an_answer() -> None:
    started = decide(observed_evaluation(failed_once(retry_in=0), job(JOB, "Failed")))
    assert started.decision == Decision(
        "Evaluating",
        "StorageUnreachable",
        writes=RETRY_OBJECTS,
        deletes=with_config_map(JOB),
        again_in=15,
    )
    running = decide(observed_evaluation(started.status, job(RETRY), pods=(pod(RETRY),)))
    assert running.decision == Decision("Evaluating", "StorageUnreachable", again_in=15)
    report = succeeded_pod(RETRY, EVALUATION_REPORT)
    done = decide(observed_evaluation(started.status, job(RETRY, "Complete"), pods=(report,)))
    assert (done.decision.phase, done.status.failure) == ("Passed", None)


def test_between_tries_no_time_is_left_over_from_the_last_one() -> None:
    seen = EvaluationProgress(
        percent=40, estimated_remaining_seconds=90, estimated_remaining="90s", last_updated_time=NOW
    )
    gone = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'router' does not exist.")
    for phase, ended, model in (
        ("Retrying", job(JOB, "Failed"), tuned()),
        ("Retrying", None, tuned()),
        ("Waiting", job(JOB), gone),
    ):
        status, jobs = evaluation_status(progress=seen), [] if ended is None else [ended]
        waits = decide(observed_evaluation(status, *jobs, model=model)).status
        assert waits.phase == phase
        assert waits.progress is not None
        assert (waits.progress.percent, waits.progress.estimated_remaining) == (40, None)


def test_what_keeps_the_next_try_from_starting_hides_no_diagnosis() -> None:
    before, told = failed_once(retry_in=0), NETWORK_FAILURE.message
    started = decide(observed_evaluation(before, job(JOB, "Failed"))).status
    no_room = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    waits = pod(RETRY, phase="Pending", unschedulable_since=ago(31), unschedulable_message=no_room)
    waiting = decide(observed_evaluation(started, job(RETRY), pods=(waits,)))
    assert waiting.decision == Decision("Evaluating", "StorageUnreachable", again_in=15)
    assert waiting.message.startswith(f"{told} The next try has not started yet. ")
    assert no_room in waiting.message
    beside = decide(observed_evaluation(before, pods=(pod(JOB),)))
    assert beside.decision == Decision("Retrying", "StorageUnreachable", again_in=15)
    assert "of an earlier try to end." in beside.message
    refused = decide(observed_evaluation(before, class_=CLASS_NOT_FOUND))
    assert refused.decision.reason == "ClassNotFound"
    assert refused.message.endswith(f"The previous try failed: StorageUnreachable: {told}")
    another = decide(observed_evaluation(before, class_=CLASS_NOT_FOUND, spec=evaluation_spec(runId="2")))
    assert told not in another.message, "it is no failure of that run"


def test_the_diagnosis_returns_once_another_problem_has_passed() -> None:
    no_class = plan(observed_evaluation(failed_once(retry_in=7), class_=CLASS_NOT_FOUND), NOW).status
    assert reason_of(no_class) == "ClassNotFound"
    assert decide(observed_evaluation(no_class, job(JOB, "Failed"))).decision.reason == "StorageUnreachable"


@pytest.mark.parametrize(("number", "seconds"), [(1, 10), (2, 20), (9, 600)])
def test_it_is_tried_ever_more_slowly(number: int, seconds: float) -> None:
    name = evaluation_job_name(number=number)
    status = evaluation_status(try_number=number, job_name=name, retries=number - 1)
    spec = evaluation_spec(retryLimit=9)
    observed = observed_evaluation(status, job(name, "Failed"), pods=(failed_pod(name, NETWORK_FAILURE),), spec=spec)
    assert decide(observed).decision.again_in == seconds


def test_what_can_not_succeed_is_over_for_good_at_once() -> None:
    broken = failed_pod(JOB, LINE_7)
    observed = observed_evaluation(evaluation_status(), job(JOB, "Failed"), pods=(broken,))
    result = decide(observed)
    assert is_over(result)
    assert result.decision == Decision("Failed", "DatasetInvalid", stalled=True, event="Warning DatasetInvalid")
    assert result.message.endswith("Fix the line. Change spec.runId to evaluate again.")
    again = observed_evaluation(result.status, job(JOB, "Failed"), pods=(broken,))
    later_on = plan(again, later(3600))
    assert (later_on.create, later_on.requeue_at, later_on.status) == ((), None, result.status)


def test_it_is_tried_no_more_often_than_its_limit_allows() -> None:
    status, number = EvaluationStatus(), 0
    for number in range(1, 9):
        started = plan(observed_evaluation(status, spec=evaluation_spec(retryLimit=2)), NOW).status
        assert (started.phase, started.try_number) == ("Evaluating", number)
        name = evaluation_job_name(number=number)
        ended = observed_evaluation(
            started,
            job(name, "Failed"),
            pods=(failed_pod(name, NETWORK_FAILURE),),
            spec=evaluation_spec(retryLimit=2),
        )
        result = decide(ended)
        if is_over(result):
            break
        status = result.status.model_copy(update={"retry_time": ago(1)})
    assert number == 3, "the first try, and two more"
    assert result.decision.reason == Reason.RETRY_LIMIT_REACHED
    assert (
        "failed 3 times, more often than retryLimit 2 allows. Last failure: StorageUnreachable: The storage"
        in result.message
    )


def test_a_shape_that_does_not_fit_is_tried_once_more() -> None:
    first = observed_evaluation(evaluation_status(), job(JOB, "Failed"), pods=(killed_for_memory(JOB),))
    once = decide(first)
    assert not is_over(once)
    status = once.status.model_copy(update={"retry_time": None, "job_name": RETRY, "try_number": 2})
    twice = decide(observed_evaluation(status, job(RETRY, "Failed"), pods=(killed_for_memory(RETRY),)))
    assert is_over(twice)
    assert twice.decision.reason == Reason.OUT_OF_MEMORY


def killed_for_memory(name: str) -> PodView:
    return pod(name, phase="Failed", exit_code=137, oom_killed=True)


@pytest.mark.parametrize(
    "pods",
    [
        (pod(JOB, phase="Failed", exit_code=143, disrupted=True, disruption="PreemptionByScheduler: making room"),),
        (pod(JOB, phase="Failed", exit_code=137),),
        (),
    ],
    ids=["preempted", "killed from outside", "gone"],
)
def test_a_disruption_never_counts(pods: tuple[PodView, ...]) -> None:
    status = evaluation_status(disruptions=40, retries=3)
    result = decide(observed_evaluation(status, job(JOB, "Failed"), pods=pods))
    assert result.decision == Decision("Retrying", "Retrying", again_in=600, event="Normal Retrying")
    assert (result.status.disruptions, result.status.retries) == (41, 3)
    again = decide(observed_evaluation(result.status, job(JOB, "Failed"), pods=pods))
    assert (again.decision.again_in, again.message) == (600, result.message)


@pytest.mark.parametrize(
    ("state", "pods"),
    [
        ("Failed", ()),
        ("Failed", (pod(JOB, phase="Failed", exit_code=143),)),
        ("Active", (pod(JOB, phase="Failed", exit_code=143),)),
    ],
    ids=["gone", "told to stop", "its Job is about to fail"],
)
def test_a_try_beyond_its_deadline_is_no_disruption_and_ends_the_run(state: Any, pods: tuple[PodView, ...]) -> None:
    """The Job controller takes the Pods of such a Job away by itself."""
    late = job(JOB, state, reason="DeadlineExceeded", message="Job was active longer than specified deadline")
    result = decide(observed_evaluation(evaluation_status(), late, pods=pods))
    assert is_over(result)
    assert result.decision.reason == "DeadlineExceeded"
    assert (result.status.disruptions, result.status.retries) == (0, 1)
    assert "Its Job or Pod exceeded its activeDeadlineSeconds." in result.message
    assert result.message.endswith("Change spec.runId to evaluate again.")


@pytest.mark.parametrize(("disruptions", "seconds"), [(0, 10), (1, 20), (9, 600)])
def test_a_job_that_somebody_deleted_is_a_disruption_and_made_anew_ever_more_slowly(
    disruptions: int, seconds: float
) -> None:
    lost = decide(observed_evaluation(evaluation_status(disruptions=disruptions)))
    assert lost.decision == Decision("Retrying", "Retrying", again_in=seconds, event="Normal Retrying")
    assert (lost.status.disruptions, lost.status.retries) == (disruptions + 1, 0)
    assert f"Job {JOB} of the last try was deleted." in lost.message
    due = lost.status.model_copy(update={"retry_time": NOW})
    assert decide(observed_evaluation(due)).decision.writes == RETRY_OBJECTS


def test_nothing_starts_beside_a_job_whose_owner_references_were_removed() -> None:
    taken = decide(observed_evaluation(evaluation_status(), disowned=(job(JOB),)))
    assert f"Job {JOB} of the last try lost its owner" in taken.message
    due = taken.status
    due = due.model_copy(update={"retry_time": NOW})
    waits = decide(observed_evaluation(due, disowned=(job(JOB),)))
    assert (waits.decision.writes, waits.decision.again_in, waits.status.job_name) == ((), 15, JOB)
    assert f"kubectl delete job {JOB} -n team-a" in waits.message
    assert decide(observed_evaluation(due, disowned=(job(JOB, "Failed"),))).decision.writes == RETRY_OBJECTS


def test_nothing_starts_beside_a_pod_whose_job_was_deleted_without_it() -> None:
    due = decide(observed_evaluation(evaluation_status())).status.model_copy(update={"retry_time": NOW})
    left = pod(JOB, job_uid="")
    waits = decide(observed_evaluation(due, pods=(left,)))
    assert (waits.decision.writes, waits.decision.again_in) == ((), 15)
    assert f"kubectl delete pod {left.name} -n team-a" in waits.message
    for ended in (pod(JOB, phase="Failed", job_uid=""), pod(JOB, job_uid="", deletion_time=NOW)):
        assert decide(observed_evaluation(due, pods=(ended,))).decision.writes == RETRY_OBJECTS


def test_nothing_starts_beside_the_pod_of_a_job_that_a_finalizer_of_somebody_elses_keeps() -> None:
    """Both would write the same report. The Pod is told to stop, and waited for."""
    held = job(JOB, deleting=True, finalizers=("backup.example.com/hold",))
    disrupted = decide(observed_evaluation(evaluation_status(), held, pods=(pod(JOB),)))
    assert (disrupted.decision.phase, disrupted.decision.writes) == ("Retrying", ())
    due = disrupted.status.model_copy(update={"retry_time": NOW})
    stops = decide(observed_evaluation(due, held, pods=(pod(JOB),)))
    assert (stops.decision.writes, stops.decision.deletes) == ((), with_config_map(JOB))
    assert "backup.example.com/hold" in stops.message
    ending = job(JOB, deleting=True, finalizers=("backup.example.com/hold", "foregroundDeletion"))
    for pods in ((pod(JOB),), (pod(JOB, deletion_time=later(30)),)):
        waits = decide(observed_evaluation(stops.status, ending, pods=pods))
        assert (waits.decision.writes, waits.decision.deletes, waits.decision.again_in) == ((), (), 15)
        assert f"Waiting for Pod {pods[0].name} of an earlier try to end." in waits.message
    for ended in (pod(JOB, phase="Failed"), pod(JOB, deletion_time=ago(180))):
        assert decide(observed_evaluation(waits.status, ending, pods=(ended,))).decision.writes == RETRY_OBJECTS
    assert decide(observed_evaluation(waits.status, ending)).decision.writes == RETRY_OBJECTS


def test_nothing_starts_beside_the_pod_of_a_job_that_is_gone() -> None:
    due = decide(observed_evaluation(evaluation_status())).status.model_copy(update={"retry_time": NOW})
    assert decide(observed_evaluation(due, pods=(pod(JOB, deletion_time=later(30)),))).decision.writes == ()


def test_why_a_pod_was_taken_away_is_remembered_though_the_pod_is_gone() -> None:
    evicted = pod(JOB, disrupted=True, disruption="EvictionByEvictionAPI: Eviction API: evicting")
    seen = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(evicted,)))
    gone = decide(observed_evaluation(seen.status, job(JOB, "Failed")))
    assert "(EvictionByEvictionAPI: Eviction API: evicting)" in gone.message
    assert gone.status.disruptions == 1


def test_an_image_that_can_not_be_pulled_ends_the_run_after_a_quarter_of_an_hour() -> None:
    for seconds, over in ((899, False), (901, True)):
        stuck = pod(JOB, phase="Pending", waiting_reason="ImagePullBackOff", scheduled_time=ago(seconds))
        result = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(stuck,)))
        assert (result.decision.reason, is_over(result)) == ("ImagePullFailed", over)


def test_another_model_or_another_run_id_starts_again_after_the_end() -> None:
    ended = plan(
        observed_evaluation(evaluation_status(), job(JOB, "Failed"), pods=(failed_pod(JOB, LINE_7),)), NOW
    ).status
    for observed in (
        observed_evaluation(ended, model=tuned("sha256:bb")),
        observed_evaluation(ended, spec=evaluation_spec(runId="2")),
    ):
        result = decide(observed)
        assert result.decision.phase == "Evaluating"
        assert (result.status.retries, result.status.failure) == (0, None)
        assert not is_over(result)
