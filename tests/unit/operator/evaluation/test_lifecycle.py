"""An Evaluation's run as a FineTuneJob's: suspended, cancelled, limited, cleared away, and how far it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.evaluation import CandidateProgress, EvaluationProgress, EvaluationStatus
from finetune_api.finetunejob import Progress
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import EvaluateRun
from finetune_operator.core.conditions import progressing as waits_for
from finetune_operator.environment import Environment
from finetune_operator.evaluation.kind import evaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.pods.observed import JobView
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.evaluation.plans import JOB, NEW, NO_JOB, RETRY_OBJECTS, decide
from tests.unit.operator.evaluation_states import (
    EVALUATION,
    EVALUATION_REPORT,
    WAITING_FOR_MODEL,
    evaluated_status,
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
    earlier_conditions,
    failed_pod,
    job,
    later,
    pod,
    resolved_class,
    succeeded_pod,
    with_config_map,
)

SUSPENDED, CANCELLED = evaluation_spec(suspend=True), evaluation_spec(cancel=True)


DEPLOYMENT_STARTS = waits_for(Reason.WAITING_FOR_MODEL, "ModelDeployment 'guard' does not serve (RollingOut).")


def condition(status: EvaluationStatus, kind: ConditionType) -> tuple[str, str] | None:
    return next(((one.status, one.reason) for one in status.conditions if one.type == kind), None)


# spec.suspend.


def test_a_suspended_evaluation_ends_its_pod_and_another_try_goes_on() -> None:
    begun = evaluation_status(conditions=earlier_conditions(Reason.EVALUATING), progress=progress(40, 90))
    running = observed_evaluation(begun, job(JOB), pods=(pod(JOB),), spec=SUSPENDED)
    stopping = decide(running)
    assert (stopping.decision.phase, stopping.decision.reason) == ("Evaluating", "Stopping")
    assert stopping.decision.deletes == with_config_map(JOB)
    assert stopping.status.progress.estimated_remaining is None

    ending = replace(running, status=stopping.status, jobs=(), pods=(pod(JOB, deletion_time=later(30)),))
    waits = decide(ending)
    assert (waits.decision.reason, waits.decision.deletes) == ("Stopping", ())
    assert f"Waiting for Pod {pod(JOB).name}" in waits.message

    stopped = decide(replace(ending, status=waits.status, pods=()))
    assert stopped.decision == Decision("Suspended", "Suspended", event="Normal Suspended")
    assert not evaluation(Environment()).is_finished(stopped.status)

    resumed = decide(observed_evaluation(stopped.status))
    assert resumed.decision.writes == RETRY_OBJECTS
    assert (resumed.status.try_number, resumed.status.retries, resumed.status.disruptions) == (2, 0, 0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"class_": CLASS_NOT_FOUND}, {"model": WAITING_FOR_MODEL}, {"model": NO_JOB}],
    ids=["nothing else", "no class", "the model is made", "no such job"],
)
def test_nothing_begins_while_it_is_suspended(changes: dict[str, Any]) -> None:
    result = decide(observed_evaluation(NEW, spec=SUSPENDED, **changes))
    assert (result.decision.phase, result.decision.writes) == ("Suspended", ())


def test_a_new_run_that_is_suspended_shows_nothing_of_the_run_before_until_that_is_asked_for_again() -> None:
    before = evaluated_status(progress=progress(100, 0), summary="exact 0.750 [0.700, 0.800] vs 0.250 [0.200, 0.300]")
    before = decide(observed_evaluation(before)).status
    assert before.phase == "Passed"

    waits = decide(observed_evaluation(before, spec=evaluation_spec(suspend=True, runId="2")))
    assert waits.decision.phase == "Suspended"
    assert (waits.status.progress, waits.status.summary) == (None, None)

    begun = decide(observed_evaluation(waits.status, spec=evaluation_spec(runId="2")))
    assert (begun.status.run_id, begun.status.try_number, begun.status.results) == ("2", 1, [])
    back = decide(observed_evaluation(waits.status))
    assert (back.decision.phase, back.status.summary) == ("Passed", before.summary)


@pytest.mark.parametrize("spec", [SUSPENDED, CANCELLED], ids=["suspend", "cancel"])
def test_scores_that_are_there_are_taken_whatever_the_spec_says_by_now(spec: Any) -> None:
    ended = observed_evaluation(evaluation_status(), job(JOB), pods=(succeeded_pod(JOB, EVALUATION_REPORT),), spec=spec)
    result = decide(ended)
    assert result.decision.phase == "Passed"
    assert decide(replace(ended, status=result.status)).decision.phase == "Passed"


@pytest.mark.parametrize(
    ("said", "limit", "reason"),
    [(LINE_7, 3, "DatasetInvalid"), (NETWORK_FAILURE, 0, "RetryLimitReached")],
    ids=["another try can't help", "it was the last try"],
)
@pytest.mark.parametrize("job_state", ["Failed", "Active"])
def test_a_failure_is_final_though_it_is_suspended_by_now(
    job_state: Any, said: Failure, limit: int, reason: str
) -> None:
    spec = evaluation_spec(suspend=True, retryLimit=limit)
    ended = observed_evaluation(evaluation_status(), job(JOB, job_state), pods=(failed_pod(JOB, said),), spec=spec)
    result = decide(ended)
    assert (result.decision.phase, result.decision.reason, result.status.retries) == ("Failed", reason, 1)
    resumed = decide(replace(ended, status=result.status, spec=evaluation_spec(retryLimit=limit)))
    assert (resumed.decision.phase, resumed.decision.writes) == ("Failed", ())


def test_a_failure_before_it_is_suspended_counts_once() -> None:
    ended = observed_evaluation(
        evaluation_status(), job(JOB, "Failed"), pods=(failed_pod(JOB, NETWORK_FAILURE),), spec=SUSPENDED
    )
    result = decide(ended)
    assert (result.decision.phase, result.status.retries) == ("Suspended", 1)
    assert result.status.failure is not None
    assert result.status.failure.reason == Reason.STORAGE_UNREACHABLE
    again = decide(replace(ended, status=result.status))
    assert (again.decision.phase, again.status.retries) == ("Suspended", 1)
    resumed = decide(replace(ended, status=again.status, spec=evaluation_spec()))
    assert (resumed.decision.writes, resumed.status.try_number, resumed.status.retries) == (RETRY_OBJECTS, 2, 1)


# spec.cancel.


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (NEW, {}),
        (NEW, {"class_": CLASS_NOT_FOUND}),
        (NEW, {"model": WAITING_FOR_MODEL}),
        (evaluation_status(), {"model": NO_JOB}),
        (evaluation_status(retry_time=later(60)), {}),
    ],
    ids=["new", "no class", "the model is made", "its job is gone", "between two tries"],
)
def test_a_cancelled_evaluation_is_over_until_another_run_id(status: EvaluationStatus, changes: dict[str, Any]) -> None:
    result = decide(observed_evaluation(status, spec=CANCELLED, **changes))
    assert (result.decision.phase, result.decision.reason, result.decision.event) == (
        "Cancelled",
        "Cancelled",
        "Normal Cancelled",
    )
    assert condition(result.status, ConditionType.FAILED) == ("True", "Cancelled")
    assert result.status.completion_time is not None
    assert evaluation(Environment()).is_finished(result.status)

    for later_on in ({}, {"model": tuned("sha256:bb")}, {"class_": CLASS_NOT_FOUND}):
        again = decide(observed_evaluation(result.status, **later_on))
        assert (again.decision.phase, again.decision.writes) == ("Cancelled", ()), "cancel: false alone resumes nothing"
    other = decide(observed_evaluation(result.status, spec=evaluation_spec(runId="2")))
    assert other.decision.phase == "Evaluating"
    assert condition(other.status, ConditionType.FAILED) is None


def test_a_cancelled_evaluation_ends_its_pod_at_once_and_is_cancelled_when_that_has_ended() -> None:
    begun = evaluation_status(conditions=earlier_conditions(Reason.EVALUATING), progress=progress(40, 90))
    running = observed_evaluation(begun, job(JOB), pods=(pod(JOB),), spec=CANCELLED)
    stopping = decide(running)
    assert (stopping.decision.phase, stopping.decision.reason) == ("Evaluating", "Stopping")
    assert stopping.decision.deletes == with_config_map(JOB)
    assert stopping.status.progress.estimated_remaining is None
    assert decide(replace(running, status=stopping.status)).decision.deletes == with_config_map(JOB), "if it was killed"

    ending = replace(running, status=stopping.status, jobs=(), pods=(pod(JOB, deletion_time=later(30)),))
    waits = decide(ending)
    assert (waits.decision.reason, waits.decision.deletes, waits.decision.again_in) == ("Stopping", (), 15)
    assert f"spec.cancel is true. Waiting for Pod {pod(JOB).name}" in waits.message
    assert waits.status.completion_time is None

    over = decide(replace(ending, status=waits.status, pods=()))
    assert over.decision == Decision("Cancelled", "Cancelled", stalled=True, event="Normal Cancelled")


def test_a_cancelled_evaluation_of_a_trial_is_not_advised_to_run_again_by_itself() -> None:
    trial = observed_evaluation(spec=CANCELLED, owner=replace(EVALUATION, sweep="search"))
    assert decide(trial).message.endswith("part of FineTuneSweep 'search', where another run of it would not count.")


def test_a_run_that_is_over_is_not_cancelled() -> None:
    assert decide(observed_evaluation(evaluated_status(), spec=CANCELLED)).decision.phase == "Passed"


# spec.activeDeadlineSeconds.


@pytest.mark.parametrize(
    ("of_spec", "of_class", "phase", "again_in"),
    [
        (100, None, "Evaluating", 15),
        (60, None, "Failed", None),
        (100, 60, "Failed", None),
        (None, 60, "Failed", None),
        (65, None, "Evaluating", 5),
    ],
)
def test_a_run_ends_at_its_deadline(
    of_spec: int | None, of_class: int | None, phase: str, again_in: float | None
) -> None:
    begun = observed_evaluation(
        evaluation_status(start_time=ago(60)),
        job(JOB),
        pods=(pod(JOB),),
        spec=evaluation_spec(activeDeadlineSeconds=of_spec),
        class_=resolved_class(limits={"activeDeadlineSeconds": of_class}),
    )
    # A class that allows less than the spec asks for refuses it, but not what runs.
    result = decide(begun)
    assert (result.decision.phase, result.decision.again_in) == (phase, again_in)
    if phase == "Failed":
        assert (result.decision.reason, result.decision.deletes) == ("DeadlineExceeded", with_config_map(JOB))
        whose = "spec" if of_class is None else "limits"
        assert f"The run did not end within 60s ({whose}.activeDeadlineSeconds" in result.message
        assert "Raise activeDeadlineSeconds and change runId" in result.message
        assert "saved answers of APIs are reused, and loaded models answer again" in result.message


@pytest.mark.parametrize(
    ("jobs", "changes"),
    [
        ((), {"suspend": True}),
        ((job(JOB, suspended=True, queue_name="team-a"),), {}),
        ((), {"model": WAITING_FOR_MODEL}),
        ((job(JOB),), {"model": NO_JOB}),
        ((), {"model": NO_JOB}),
        ((), {"class_": CLASS_NOT_FOUND}),
        ((), {"endpoints": (DEPLOYMENT_STARTS,)}),
    ],
    ids=["suspended", "queued", "the model is made", "its model is gone", "no job", "no class", "no deployment"],
)
def test_the_clock_stands_while_nothing_can_run(jobs: tuple[JobView, ...], changes: dict[str, Any]) -> None:
    """A minute and a half of the deadline of one are over, through no fault of the run."""
    limit = {"activeDeadlineSeconds": 60}
    others = {name: value for name, value in changes.items() if name != "suspend"}
    spec = evaluation_spec(**limit, suspend=changes.get("suspend"))
    stands = observed_evaluation(evaluation_status(start_time=ago(90)), *jobs, spec=spec, **others)
    stopped = plan(stands, NOW).status
    assert (stopped.suspend_time, stopped.completion_time) == (NOW, None)
    much_later = NOW.replace(year=NOW.year + 1)
    assert plan(replace(stands, status=stopped), much_later).status.completion_time is None
    raised = evaluation_spec(activeDeadlineSeconds=100)
    running = stopped.model_copy(update={"job_name": JOB})
    resumed = plan(observed_evaluation(running, job(JOB), pods=(pod(JOB),), spec=raised), much_later)
    assert (resumed.status.suspended_seconds, resumed.status.completion_time) == (365 * 86400, None)


@pytest.mark.parametrize("changes", [{"class_": CLASS_NOT_FOUND}, {"endpoints": (DEPLOYMENT_STARTS,)}])
def test_the_clock_of_a_running_try_goes_on_whatever_the_next_one_would_wait_for(changes: dict[str, Any]) -> None:
    spec = evaluation_spec(activeDeadlineSeconds=60)
    running = observed_evaluation(evaluation_status(start_time=ago(90)), job(JOB), pods=(pod(JOB),), spec=spec)
    assert decide(replace(running, **changes)).decision.reason == "DeadlineExceeded"


@pytest.mark.parametrize(
    ("of_spec", "of_class", "hours"),
    [(None, None, 24), (60, None, 24), (172_800, None, 49), (60, 172_800, 49), (None, 172_800, 49)],
)
def test_kubernetes_ends_a_try_after_a_day_but_not_before_the_deadline(
    of_spec: int | None, of_class: int | None, hours: int
) -> None:
    class_ = resolved_class(limits={"activeDeadlineSeconds": of_class})
    spec = evaluation_spec(activeDeadlineSeconds=of_spec)
    _, made = plan(observed_evaluation(NEW, spec=spec, class_=class_), NOW).create
    assert made["spec"]["activeDeadlineSeconds"] == hours * 3600


def test_a_deadline_above_the_class_is_refused() -> None:
    limit = resolved_class(limits={"activeDeadlineSeconds": 60})
    result = decide(observed_evaluation(NEW, spec=evaluation_spec(activeDeadlineSeconds=61), class_=limit))
    assert (result.decision.reason, result.decision.writes) == ("LimitExceeded", ())
    assert "spec.activeDeadlineSeconds is 61; FineTuneClass 'cpu' allows 60" in result.message


# spec.ttlSecondsAfterFinished.


def test_the_jobs_of_a_run_that_is_over_go_in_time() -> None:
    spec = evaluation_spec(ttlSecondsAfterFinished=60)
    done = observed_evaluation(evaluated_status(completion_time=ago(59)), job(JOB, "Complete"), spec=spec)
    assert (decide(done).decision.deletes, decide(done).decision.again_in) == ((), 1)
    due = decide(replace(done, status=evaluated_status(completion_time=ago(60))))
    assert (due.decision.deletes, due.decision.again_in) == (with_config_map(JOB), None)
    assert due.decision.phase == "Passed"
    gone = replace(done, status=due.status, jobs=())
    assert decide(gone).decision == Decision("Passed", "Evaluated", ready=True, passed=True)


# Kueue.


def test_a_pod_that_loads_a_model_waits_in_the_classs_queue() -> None:
    class_ = resolved_class(scheduling={"queueName": "team-a"})
    _, made = plan(observed_evaluation(NEW, class_=class_), NOW).create
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert made["spec"]["suspend"] is True
    queued = observed_evaluation(evaluation_status(), job(JOB, suspended=True, queue_name="team-a"))
    result = decide(queued)
    assert (result.decision.phase, result.decision.reason) == ("Waiting", "Queued")
    assert "waiting for quota in queue 'team-a'" in result.message
    ready = {"outputs": {"uri": "s3://data/outputs.jsonl"}}
    asks = evaluation_spec(
        candidates=[{"name": "tuned", "model": {"fineTuneJobRef": None, **ready}}], baseline={"model": ready}, gates=[]
    )
    found = asks.candidates[0].model.outputs
    assert found is not None
    light = observed_evaluation(NEW, spec=asks, candidates=(("tuned", found),), baseline=found, class_=class_)
    _, made = plan(light, NOW).create
    assert "suspend" not in made["spec"], "it needs no accelerator, and no quota of any"


# status.progress.


def progress(percent: int, remaining: int | None) -> EvaluationProgress:
    return EvaluationProgress(
        percent=percent,
        candidates=[CandidateProgress(candidate="tuned", outputs=20, graded=12, total=40)],
        estimated_remaining_seconds=remaining,
        estimated_remaining=None if remaining is None else f"{remaining}s",
        last_updated_time=NOW,
    )


def reported(percent: int, remaining: int | None, *candidates: str) -> dict[str, Any]:
    """What is observed of a report."""
    told = Progress(
        step=percent,
        total_steps=100,
        percent=percent,
        estimated_remaining_seconds=remaining,
        last_updated_time=datetime(2026, 11, 22, 12, tzinfo=UTC),
    )
    counts = tuple(CandidateProgress(candidate=name, outputs=20, graded=12, total=40) for name in candidates)
    return {"progress": told, "candidate_progress": counts}


def test_the_status_shows_how_far_each_model_is() -> None:
    running = observed_evaluation(
        evaluation_status(), job(JOB), pods=(pod(JOB),), **reported(40, 150, "baseline", "tuned", "stranger")
    )
    shown = decide(running).status.progress
    assert (shown.percent, shown.estimated_remaining_seconds, shown.estimated_remaining) == (40, 150, "2m30s")
    assert [one.candidate for one in shown.candidates] == ["baseline", "tuned"], "only those of the spec"
    twice = replace(running, **reported(40, 150, "tuned", "tuned"))
    assert [one.candidate for one in decide(twice).status.progress.candidates] == ["tuned"], "each of them once"
    kept = decide(replace(running, status=evaluation_status(progress=shown), progress=None))
    assert kept.status.progress == shown, "an operator that has just started keeps the last one"
    of_another_try = replace(running, status=evaluation_status(retry_time=later(9)))
    assert decide(of_another_try).status.progress is None


def test_a_run_that_has_its_scores_is_complete() -> None:
    ended = observed_evaluation(
        evaluation_status(progress=progress(40, 90)), job(JOB), pods=(succeeded_pod(JOB, EVALUATION_REPORT),)
    )
    done = decide(ended).status.progress
    assert (done.percent, done.estimated_remaining_seconds, done.estimated_remaining) == (100, None, None)
    assert [(one.outputs, one.graded) for one in done.candidates] == [(40, 40)]
    late = replace(ended, status=decide(ended).status, **reported(97, 5, "tuned"))
    assert decide(late).status.progress == done, "a report that came before the end says less"


def test_the_pod_is_told_where_to_report_and_where_outputs_are_kept() -> None:
    endpoint = ProgressEndpoint("https://finetune.svc:8443", "PEM")
    config_map, made = plan(observed_evaluation(NEW, progress_endpoint=endpoint), NOW).create
    run = EvaluateRun.model_validate_json(config_map["data"]["run.json"])
    assert run.progress is not None
    assert run.progress.url == (
        f"https://finetune.svc:8443/v1alpha1/namespaces/team-a/evaluations/router-eval/attempts/{JOB}"
    )
    assert config_map["data"]["progress-ca.crt"] == "PEM"
    assert any(one["name"] == "progress-token" for one in made["spec"]["template"]["spec"]["volumes"])
    assert run.outputs_uri == "s3://models/finetune/team-a/router-eval/1-7d1e5c70/outputs", "the same for all tries"
