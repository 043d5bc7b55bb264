"""Evaluation: waits for its model, evaluates once for each model, tries again after failures, judges its gates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import EvaluationStatus
from finetune_api.outcome import EvaluationReport
from finetune_api.run import EvaluateRun, ModelSource
from finetune_operator.core.conditions import stalled
from finetune_operator.core.plan import planned
from finetune_operator.evaluation.objects import run_digest
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import ResolvedModel, undecided
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.evaluation_states import (
    EVALUATION_FOLDER,
    EVALUATION_REPORT,
    SCORES,
    WAITING_FOR_MODEL,
    evaluated_status,
    evaluation_job_name,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    score,
    tuned,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    NETWORK_FAILURE,
    NOW,
    Decided,
    Decision,
    ago,
    decided,
    earlier_conditions,
    failed_pod,
    job,
    later,
    pod,
    reason_of,
    resolved_class,
    succeeded_pod,
    with_config_map,
)

NEW = EvaluationStatus()
JOB, RETRY, OF_NEW_MODEL = evaluation_job_name(), evaluation_job_name(number=2), evaluation_job_name("sha256:bb")
JOB_OBJECTS, RETRY_OBJECTS = (f"ConfigMap/{JOB}", f"Job/{JOB}"), (f"ConfigMap/{RETRY}", f"Job/{RETRY}")
NO_JOB = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'router' does not exist in namespace 'team-a'. Create it.")
UNREADABLE = undecided("FineTuneJob 'router' can't be read: startTime is 'soon'.")
EVALUATING = earlier_conditions(Reason.EVALUATING)


def decide(observed: ObservedEvaluation) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def failed_once(retry_in: float) -> EvaluationStatus:
    ended = observed_evaluation(evaluation_status(), job(JOB, "Failed"), pods=(failed_pod(JOB, NETWORK_FAILURE),))
    return plan(ended, NOW).status.model_copy(update={"retry_time": later(retry_in)})


# What it needs before it can start.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"platform": CLASS_NOT_FOUND, "model": WAITING_FOR_MODEL},
            Decision("Waiting", "ClassNotFound", stalled=True, event="Warning ClassNotFound"),
        ),
        (
            {"platform": resolved_class(sources={"datasets": ["s3://public/*"]})},
            Decision("Waiting", "SourceNotAllowed", stalled=True, event="Warning SourceNotAllowed"),
        ),
        ({"model": WAITING_FOR_MODEL}, Decision("Waiting", "WaitingForModel", event="Normal WaitingForModel")),
        (
            {"model": NO_JOB},
            Decision("Waiting", "ReferenceNotFound", stalled=True, event="Warning ReferenceNotFound"),
        ),
        (
            {"baseline": NO_JOB},
            Decision("Waiting", "ReferenceNotFound", stalled=True, event="Warning ReferenceNotFound"),
        ),
        ({}, Decision("Evaluating", "Evaluating", writes=JOB_OBJECTS, again_in=15, event="Normal Evaluating")),
    ],
    ids=["no class", "data not allowed", "model not ready", "no such job", "no such baseline", "all there"],
)
def test_a_new_evaluation(changes: dict[str, Any], expected: Decision) -> None:
    result = decide(observed_evaluation(NEW, **changes))
    assert result.decision == expected
    assert result.status.class_name == (resolved_class().name if expected.phase == "Evaluating" else None)


def test_candidate_and_baseline_uris_must_be_allowed_by_the_class() -> None:
    foreign = {"uri": "s3://private/model"}
    for changes in ({"baseline": {"model": foreign}}, {"candidates": [{"name": "tuned", "model": foreign}]}):
        observed = observed_evaluation(
            NEW, spec=evaluation_spec(**changes), platform=resolved_class(sources={"models": ["s3://models/*"]})
        )
        result = decide(observed)
        assert result.decision.reason == "SourceNotAllowed"
        assert "'s3://private/model'" in result.message


def run_configuration(observed: ObservedEvaluation) -> EvaluateRun:
    config_map, _ = plan(observed, NOW).create
    return EvaluateRun.model_validate_json(config_map["data"]["run.json"])


def test_without_a_baseline_the_base_of_the_first_candidate_is_the_baseline() -> None:
    models = run_configuration(observed_evaluation(NEW)).models
    assert [(model.name, model.model.uri, model.model.adapter_uri) for model in models] == [
        ("baseline", "s3://models/base", None),
        ("tuned", "s3://models/base", "s3://models/sha256:aa"),
    ]


def test_a_baseline_of_the_spec_is_the_baseline() -> None:
    other = ResolvedModel(ModelSource(uri="s3://models/other", digest="sha256:other"))
    spec = evaluation_spec(baseline={"model": {"uri": "s3://models/other"}})
    assert (
        run_configuration(observed_evaluation(NEW, spec=spec, baseline=other)).models[0].model.uri == other.source.uri
    )


# While it runs.


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ((pod(JOB),), Decision("Evaluating", "Evaluating", again_in=15)),
        (
            (pod(JOB, phase="Pending", unschedulable_since=ago(31)),),
            Decision("Evaluating", "Unschedulable", stalled=True, again_in=15, event="Warning Unschedulable"),
        ),
        (
            (pod(JOB, phase="Pending", uid="p"),),
            Decision("Evaluating", "SecretNotFound", stalled=True, again_in=15, event="Warning SecretNotFound"),
        ),
        (
            (),
            Decision("Evaluating", "QuotaExceeded", stalled=True, again_in=15, event="Warning QuotaExceeded"),
        ),
    ],
    ids=["runs", "no room", "no Secret", "a quota"],
)
def test_a_running_evaluation(pods: tuple[Any, ...], expected: Decision) -> None:
    status = evaluation_status(conditions=EVALUATING)
    warnings = (
        WarningEvent("p", "FailedMount", 'secret "s3-credentials" not found', ago(9)),
        WarningEvent(job(JOB).uid, "FailedCreate", "exceeded quota: team", ago(9)),
    )
    assert decide(observed_evaluation(status, job(JOB), pods=pods, warnings=warnings)).decision == expected


def test_what_the_pod_waits_for_is_said_before_it_is_a_blockage() -> None:
    waiting = pod(JOB, phase="Pending", unschedulable_since=ago(28), unschedulable_message="0/1 nodes are available.")
    result = decide(observed_evaluation(evaluation_status(conditions=EVALUATING), job(JOB), pods=(waiting,)))
    assert result.decision == Decision("Evaluating", "Evaluating", again_in=15)
    assert f"Pod {waiting.name} finds no node: 0/1 nodes are available." in result.message


def test_scores_complete_it() -> None:
    status = evaluation_status(conditions=EVALUATING)
    observed = observed_evaluation(status, job(JOB, "Complete"), pods=(succeeded_pod(JOB, EVALUATION_REPORT),))
    result = decide(observed)
    assert result.decision == Decision("Passed", "Evaluated", ready=True, passed=True, event="Normal Evaluated")
    assert result.status.results == SCORES
    assert result.status.completion_time == NOW
    assert result.status.report_uri == EVALUATION_REPORT.report_uri
    assert result.message == "exact 0.750 [0.700, 0.800] vs 0.250 [0.200, 0.300]"


OTHERS = "s3://models/finetune/team-b/theirs/1-deadbeef"


@pytest.mark.parametrize(
    ("state", "claim", "told"),
    [
        ("Failed", {}, ""),
        ("Complete", {"report_uri": f"{OTHERS}/report.json"}, "its reportUri is"),
        ("Complete", {"scores": [*SCORES, score("theirs", 1.0, delta=0.9)]}, "'theirs' by 'exact', which nobody asked"),
        (
            "Complete",
            {"scores": [*SCORES, score("tuned", 1.0, grader="kind")]},
            "'tuned' by 'kind', which nobody asked",
        ),
        ("Complete", {"scores": [*SCORES, score("tuned", 1.0, delta=0.9)]}, "two scores of one model by one grader"),
    ],
    ids=["its Job failed", "another folder", "another model", "another grader", "twice"],
)
def test_scores_are_held_against_what_was_asked(state: Any, claim: dict[str, Any], told: str) -> None:
    said = succeeded_pod(JOB, EVALUATION_REPORT.model_copy(update=claim))
    result = decide(observed_evaluation(evaluation_status(), job(JOB, state), pods=(said,)))
    assert result.status.results == []
    assert result.decision.passed is None
    assert told in result.message
    if claim:
        assert is_over(result), "whoever wrote it writes it again"
        assert result.decision.reason == "ReportRefused"


def test_the_folder_is_that_of_the_class_as_it_was_when_the_evaluation_began() -> None:
    begun = decide(observed_evaluation()).status
    assert begun.storage_uri == EVALUATION_FOLDER
    said = succeeded_pod(JOB, EVALUATION_REPORT)
    moved = resolved_class(storage={"prefix": "elsewhere"})
    assert (
        decide(observed_evaluation(begun, job(JOB, "Complete"), pods=(said,), platform=moved)).status.results == SCORES
    )


# Failures.


def test_a_failed_evaluation_is_tried_again_by_itself() -> None:
    status = evaluation_status(conditions=EVALUATING)
    observed = observed_evaluation(status, job(JOB, "Failed"), pods=(failed_pod(JOB, NETWORK_FAILURE),))
    result = decide(observed)
    assert result.decision == Decision(
        "Retrying", "StorageUnreachable", stalled=True, again_in=10, event="Warning StorageUnreachable"
    )
    assert result.message == f"{NETWORK_FAILURE.message} The next try starts at 12:00:10 UTC."


def test_until_the_next_try_the_diagnosis_stands() -> None:
    observed = observed_evaluation(failed_once(retry_in=7), job(JOB, "Failed"))
    assert decide(observed).decision == Decision("Retrying", "StorageUnreachable", stalled=True, again_in=7)


def test_the_next_try_is_another_job_and_keeps_the_diagnosis_until_it_has_an_answer() -> None:
    started = decide(observed_evaluation(failed_once(retry_in=0), job(JOB, "Failed")))
    assert started.decision == Decision(
        "Evaluating",
        "StorageUnreachable",
        stalled=True,
        writes=RETRY_OBJECTS,
        deletes=with_config_map(JOB),
        again_in=15,
    )
    running = decide(observed_evaluation(started.status, job(RETRY), pods=(pod(RETRY),)))
    assert running.decision == Decision("Evaluating", "StorageUnreachable", stalled=True, again_in=15)
    report = succeeded_pod(RETRY, EVALUATION_REPORT)
    done = decide(observed_evaluation(started.status, job(RETRY, "Complete"), pods=(report,)))
    assert (done.decision.phase, done.status.failure) == ("Passed", None)


def test_another_trouble_that_passed_gives_way_to_the_diagnosis_that_stands() -> None:
    no_class = plan(observed_evaluation(failed_once(retry_in=7), platform=CLASS_NOT_FOUND), NOW).status
    assert reason_of(no_class) == "ClassNotFound"
    assert decide(observed_evaluation(no_class, job(JOB, "Failed"))).decision.reason == "StorageUnreachable"


@pytest.mark.parametrize(("number", "seconds"), [(1, 10), (2, 20), (9, 600)])
def test_it_is_tried_ever_more_slowly(number: int, seconds: float) -> None:
    name = evaluation_job_name(number=number)
    status = evaluation_status(try_number=number, job_name=name, retries=number - 1)
    spec = evaluation_spec(retryLimit=9)
    observed = observed_evaluation(status, job(name, "Failed"), pods=(failed_pod(name, NETWORK_FAILURE),), spec=spec)
    assert decide(observed).decision.again_in == seconds


def is_over(result: Decided) -> bool:
    """Whether phase and condition say that the run is over for good."""
    failed = any(item.type == ConditionType.FAILED and item.status == "True" for item in result.status.conditions)
    assert failed is (result.decision.phase == "Failed")
    assert failed is (result.status.completion_time is not None)
    return failed


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
    assert "failed 3 times, more than retryLimit 2. The last time: StorageUnreachable: The storage" in result.message


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
    due = decide(observed_evaluation(evaluation_status(), disowned=(job(JOB),))).status
    due = due.model_copy(update={"retry_time": NOW})
    waits = decide(observed_evaluation(due, disowned=(job(JOB),)))
    assert (waits.decision.writes, waits.decision.again_in, waits.status.job_name) == ((), 15, JOB)
    assert f"kubectl delete job {JOB}" in waits.message
    assert decide(observed_evaluation(due, disowned=(job(JOB, "Failed"),))).decision.writes == RETRY_OBJECTS


def test_nothing_starts_beside_a_pod_whose_job_was_deleted_without_it() -> None:
    due = decide(observed_evaluation(evaluation_status())).status.model_copy(update={"retry_time": NOW})
    left = pod(JOB, job_uid="")
    waits = decide(observed_evaluation(due, pods=(left,)))
    assert (waits.decision.writes, waits.decision.again_in) == ((), 15)
    assert f"kubectl delete pod {left.name}" in waits.message
    for ended in (pod(JOB, phase="Failed", job_uid=""), pod(JOB, job_uid="", deletion_time=NOW)):
        assert decide(observed_evaluation(due, pods=(ended,))).decision.writes == RETRY_OBJECTS


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


# What the answer comes from, and what it is about.


def test_what_our_container_says_is_enough_and_what_still_runs_is_ended() -> None:
    """The Pod of a mesh's sidecar goes on for ever."""
    said = replace(succeeded_pod(JOB, EVALUATION_REPORT), phase="Running", foreign_running=("istio-proxy",))
    just_ended = replace(said, ended_time=ago(3))
    waits = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(just_ended,)))
    assert (waits.decision.phase, waits.decision.again_in) == ("Evaluating", 7)
    assert "istio-proxy" in waits.message
    said = replace(said, ended_time=ago(11))
    done = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(said,)))
    assert (done.decision.phase, done.decision.deletes, done.decision.again_in) == ("Passed", (), 30)
    rest = plan(observed_evaluation(done.status, job(JOB), pods=(said,)), later(31))
    assert [child.name for child in rest.delete] == [JOB, JOB]
    assert plan(observed_evaluation(done.status, job(JOB, "Complete"), pods=(said,)), later(31)).delete == ()


def test_an_evaluation_of_a_model_that_is_not_there_any_more_is_ended() -> None:
    for model in (WAITING_FOR_MODEL, NO_JOB):
        result = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), model=model))
        assert (result.decision.phase, result.decision.deletes) == ("Waiting", with_config_map(JOB))
        again = decide(observed_evaluation(result.status))
        assert again.decision.writes == RETRY_OBJECTS


def test_an_evaluation_goes_on_while_its_job_can_not_be_read_or_is_refused() -> None:
    """Nothing is known of the model but what was known when it began; no other try begins."""
    running = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), model=UNREADABLE))
    assert (running.decision.phase, running.decision.deletes, running.status.job_name) == ("Evaluating", (), JOB)
    assert f"{UNREADABLE.message} The try that runs goes on meanwhile." in running.message
    said = succeeded_pod(JOB, EVALUATION_REPORT)
    begun = evaluation_status(storage_uri=EVALUATION_FOLDER)
    done = decide(observed_evaluation(begun, job(JOB, "Complete"), pods=(said,), model=UNREADABLE))
    assert done.decision.phase == "Passed"
    for status in (failed_once(retry_in=-1), NEW):
        waits = decide(observed_evaluation(status, model=UNREADABLE))
        assert (waits.decision.phase, waits.decision.writes, waits.message) == ("Waiting", (), UNREADABLE.message)


def test_another_candidate_that_is_gone_ends_it_all_the_same() -> None:
    two = (("tuned", UNREADABLE), ("other", NO_JOB))
    result = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), candidates=two))
    assert (result.decision.reason, result.decision.deletes) == ("ReferenceNotFound", with_config_map(JOB))


def test_an_answer_is_taken_though_the_class_is_gone() -> None:
    said = succeeded_pod(JOB, EVALUATION_REPORT)
    begun = evaluation_status(storage_uri=EVALUATION_FOLDER)
    gone = observed_evaluation(begun, job(JOB, "Complete"), pods=(said,), platform=CLASS_NOT_FOUND)
    assert decide(gone).decision.phase == "Passed"
    running = observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), platform=CLASS_NOT_FOUND)
    assert decide(running).decision.phase == "Evaluating"


# What it was made from.


def made_of(platform: ResolvedClass) -> JobView:
    """The first try's Job, as that class makes it."""
    created = plan(observed_evaluation(NEW, platform=platform), NOW).create[-1]
    return job(JOB, digest=created["metadata"]["annotations"]["finetune.dev/applied-digest"])


CORRECTED = resolved_class(images={"trainer": "example.com/trainer:2"})


@pytest.mark.parametrize(
    ("pods", "anew"),
    [
        ((), True),
        ((pod(JOB, phase="Pending", waiting_reason="ImagePullBackOff"),), True),
        ((pod(JOB),), False),
        ((succeeded_pod(JOB, EVALUATION_REPORT),), False),
    ],
    ids=["no Pod", "can't be pulled", "runs", "has ended"],
)
def test_a_job_that_has_not_started_is_made_anew_when_its_class_changed(pods: tuple[PodView, ...], anew: bool) -> None:
    made = made_of(resolved_class())
    result = decide(observed_evaluation(evaluation_status(), made, pods=pods, platform=CORRECTED))
    assert result.decision.writes == (RETRY_OBJECTS if anew else ())
    assert result.decision.deletes == (with_config_map(JOB) if anew else ())
    assert result.status.retries == 0
    same = decide(observed_evaluation(evaluation_status(), made, pods=pods))
    assert same.decision.writes == ()


# Once for each model.


def test_a_finished_evaluation_is_not_run_again() -> None:
    observed = observed_evaluation(evaluated_status(conditions=earlier_conditions(Reason.EVALUATED, ready=True)))
    assert decide(observed).decision == Decision("Passed", "Evaluated", ready=True, passed=True)


def test_another_model_is_another_evaluation() -> None:
    observed = observed_evaluation(evaluated_status(), job(JOB, "Complete"), model=tuned("sha256:bb"))
    result = decide(observed)
    assert result.decision == Decision(
        "Evaluating",
        "Evaluating",
        writes=(f"ConfigMap/{OF_NEW_MODEL}", f"Job/{OF_NEW_MODEL}"),
        deletes=with_config_map(JOB),
        again_in=15,
        event="Normal Evaluating",
    )
    assert result.status.candidate_digests == {"tuned": "sha256:bb"}
    assert (result.status.results, result.status.completion_time) == ([], None)


def test_another_run_id_is_another_evaluation() -> None:
    observed = observed_evaluation(evaluated_status(), job(JOB, "Complete"), spec=evaluation_spec(runId="2"))
    assert decide(observed).decision.writes[-1] == f"Job/{evaluation_job_name(run_id='2')}"


def test_a_run_id_that_comes_again_with_something_else_to_measure_is_another_evaluation() -> None:
    """A rollback in git, while the operator was away."""
    done = evaluated_status(run_digest=run_digest(evaluation_spec()))
    assert decide(observed_evaluation(done, spec=evaluation_spec(gates=[]))).decision.writes == ()
    again = decide(observed_evaluation(done, spec=evaluation_spec(generation={"maxTokens": 9})))
    assert again.decision.phase == "Evaluating"
    assert again.decision.writes != JOB_OBJECTS


@pytest.mark.parametrize("end", ["Passed", "Failed"])
def test_an_operator_whose_defaults_differ_evaluates_nothing_again(end: str) -> None:
    """The same spec has another digest there."""
    if end == "Passed":
        done = plan(observed_evaluation(evaluated_status()), NOW).status
    else:
        broken = observed_evaluation(evaluation_status(), job(JOB, "Failed"), pods=(failed_pod(JOB, LINE_7),))
        done = plan(broken, NOW).status
    done = done.model_copy(update={"run_digest": "anothers"})
    same = decide(observed_evaluation(done))
    assert (same.decision.phase, same.decision.writes, same.status) == (end, (), done)
    changed = decide(observed_evaluation(done, generation=2))
    assert changed.decision.phase == "Evaluating"


@pytest.mark.parametrize("end", ["Passed", "Failed"])
def test_a_changed_spec_whose_job_was_refused_is_not_taken_for_the_one_that_was_judged(end: str) -> None:
    digest = run_digest(evaluation_spec())
    if end == "Passed":
        done = plan(observed_evaluation(evaluated_status(run_digest=digest)), NOW).status
    else:
        before = evaluation_status(run_digest=digest)
        done = plan(observed_evaluation(before, job(JOB, "Failed"), pods=(failed_pod(JOB, LINE_7),)), NOW).status
    changed = observed_evaluation(done, spec=evaluation_spec(generation={"maxTokens": 9}), generation=2)
    refused = planned(changed, done, None, stalled(Reason.QUOTA_EXCEEDED, "No room."), NOW).status
    again = decide(replace(changed, status=refused))
    assert (again.decision.phase, again.decision.passed) == ("Evaluating", None)
    assert again.decision.writes


@pytest.mark.parametrize(
    "changes",
    [
        {"model": WAITING_FOR_MODEL},
        {"platform": CLASS_NOT_FOUND},
        {"platform": resolved_class(sources={"datasets": []})},
    ],
    ids=["the model is made anew", "the class is gone", "the class allows less"],
)
def test_a_verdict_stands_until_there_is_another_model(changes: dict[str, Any]) -> None:
    assert decide(observed_evaluation(evaluated_status(), **changes)).decision.passed is True


# Gates.


def judged(gates: list[dict[str, Any]], scores: list[Any]) -> Decided:
    spec = evaluation_spec(gates=gates)
    return decide(observed_evaluation(evaluated_status(results=scores), spec=spec))


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        ({"minimum": 0.75}, True),
        ({"minimum": 0.7501}, False),
        ({"minimum": 0.0}, True),
        ({"minimumDelta": 0.5}, True),
        ({"minimumDelta": 0.5001}, False),
        ({"minimumDelta": -1.0}, True),
    ],
)
def test_a_gate_demands_a_score_or_a_gain(gate: dict[str, float], passes: bool) -> None:
    result = judged([{"grader": "exact", "decision": "PointEstimate", **gate}], SCORES)
    assert result.decision.passed is passes
    assert result.decision.stalled is not passes
    if not passes:
        assert (result.decision.phase, result.decision.reason) == ("GateFailed", "GateFailed")
        assert "1 of 1 gates failed: tuned by exact: " in result.message
        assert "demanded" in result.message


def test_a_gain_that_only_rounding_keeps_from_the_gate_passes() -> None:
    gained = 0.9 - 0.8
    assert gained < 0.1
    gate = {"grader": "exact", "minimumDelta": 0.1, "decision": "PointEstimate"}
    assert judged([gate], [score("tuned", 0.9, delta=gained)]).decision.passed


def test_without_gates_it_passes() -> None:
    assert judged([], SCORES).decision.passed is True


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [score("baseline", 0.25)],
        [score("somebody-else", 1.0, delta=1.0)],
        [score("tuned", 1.0, delta=1.0, grader="another")],
    ],
    ids=["no scores at all", "only the baseline's", "somebody else's", "by another grader"],
)
def test_a_candidate_without_a_score_fails_every_gate(scores: list[Any]) -> None:
    result = judged([{"grader": "exact", "minimum": 0.0}], scores)
    assert result.decision.passed is False
    assert "tuned by exact: there is no score by this grader" in result.message


def test_a_gain_cannot_be_told_without_a_baseline() -> None:
    assert "no baseline" in judged([{"grader": "exact", "minimumDelta": 0.0}], [score("tuned", 1.0)]).message


def test_each_gate_judges_each_candidate() -> None:
    both = [{"name": name, "model": {"uri": f"s3://models/{name}"}} for name in ("first", "second")]
    spec = evaluation_spec(
        candidates=both,
        baseline={"model": {"uri": "s3://models/base"}},
        gates=[{"grader": "exact", "minimum": 0.5}, {"grader": "exact", "minimum": 0.8}],
    )
    status = evaluated_status(results=[score("first", 0.9), score("second", 0.7)], candidate_digests={})
    observed = observed_evaluation(
        status,
        spec=spec,
        candidates=tuple((name, ResolvedModel(ModelSource(uri=f"s3://models/{name}"))) for name in ("first", "second")),
        baseline=ResolvedModel(ModelSource(uri="s3://models/base")),
    )
    result = decide(observed)
    assert [(gate.candidate, gate.verdict) for gate in result.status.gates] == [
        ("first", "Passed"),
        ("second", "Passed"),
        ("first", "Passed"),
        ("second", "Failed"),
    ]
    assert result.decision.passed is False


def test_a_changed_gate_is_judged_without_a_new_run() -> None:
    passed = plan(observed_evaluation(evaluated_status()), NOW).status
    strict = evaluation_spec(gates=[{"grader": "exact", "minimum": 0.99}])
    result = decide(observed_evaluation(passed, spec=strict, generation=2))
    assert result.decision == Decision(
        "GateFailed", "GateFailed", stalled=True, passed=False, event="Warning GateFailed"
    )
    condition = next(item for item in result.status.conditions if item.type == ConditionType.PASSED)
    assert condition.observed_generation == 2


def test_an_empty_report_completes_and_passes_no_gate() -> None:
    observed = observed_evaluation(
        evaluation_status(), job(JOB, "Complete"), pods=(succeeded_pod(JOB, EvaluationReport(scores=[])),)
    )
    first = decide(observed)
    assert (first.decision.phase, first.decision.passed) == ("GateFailed", False)
    again = observed_evaluation(first.status, job(JOB, "Complete"), pods=observed.pods)
    assert plan(again, later(60)).status == first.status


def test_the_verdict_is_taken_back_while_another_model_is_evaluated() -> None:
    """A ModelDeployment must not read the old model's verdict as the new one's."""
    passed = plan(observed_evaluation(evaluated_status()), NOW).status
    result = decide(observed_evaluation(passed, model=tuned("sha256:bb")))
    assert result.decision.passed is None
