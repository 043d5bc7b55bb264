"""An Evaluation while it runs: what its Pod waits for, what it answers, and what the answer is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.evaluation import OutputsStatus, SliceScore
from finetune_api.model_usage import ModelUsage
from finetune_operator.evaluation.plan import plan
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.models.resolve import undecided
from finetune_operator.pods.observed import JobView, PodView
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.evaluation.plans import (
    EVALUATING,
    JOB,
    NEW,
    NO_JOB,
    RETRY_OBJECTS,
    decide,
    failed_once,
    is_over,
)
from tests.unit.operator.evaluation_states import (
    EVALUATION_FOLDER,
    EVALUATION_REPORT,
    SCORES,
    WAITING_FOR_MODEL,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    score,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    Decision,
    ago,
    decided,
    job,
    later,
    pod,
    resolved_class,
    succeeded_pod,
    with_config_map,
)

UNREADABLE = undecided("FineTuneJob 'router' can't be read: startTime is 'soon'.")


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
def test_a_running_evaluation_reports_what_its_pods_do_or_wait_for(pods: tuple[Any, ...], expected: Decision) -> None:
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
    assert f"Pod {waiting.name} can't be scheduled: 0/1 nodes are available." in result.message


def test_a_report_with_scores_completes_the_evaluation() -> None:
    status = evaluation_status(conditions=EVALUATING)
    observed = observed_evaluation(status, job(JOB, "Complete"), pods=(succeeded_pod(JOB, EVALUATION_REPORT),))
    result = decide(observed)
    assert result.decision == Decision("Passed", "Evaluated", ready=True, passed=True, event="Normal Evaluated")
    assert result.status.results == SCORES
    assert result.status.completion_time == NOW
    assert result.status.report_uri == EVALUATION_REPORT.report_uri
    assert result.message == "exact 0.750 [0.700, 0.800] vs 0.250 [0.200, 0.300]"


OTHERS = "s3://models/finetune/team-b/theirs/1-deadbeef"


SLICE = SliceScore(
    by="{{item.topic}}", value="a", candidate="tuned", grader="exact", score=0.5, low=0.4, high=0.6, examples=9
)


@pytest.mark.parametrize(
    ("state", "claim", "told"),
    [
        ("Failed", {}, ""),
        ("Complete", {"report_uri": f"{OTHERS}/report.json"}, "its reportUri is"),
        (
            "Complete",
            {"scores": [*SCORES, score("theirs", 1.0, delta=0.9)]},
            "'theirs' by 'exact', which the spec does not have",
        ),
        (
            "Complete",
            {"scores": [*SCORES, score("tuned", 1.0, grader="kind")]},
            "'tuned' by 'kind', which the spec does not have",
        ),
        ("Complete", {"scores": [*SCORES, score("tuned", 1.0, delta=0.9)]}, "two scores of one model by one grader"),
        *(
            (
                "Complete",
                {"scores": [SCORES[0], SCORES[1].model_copy(update=numbers)]},
                "'tuned' by 'exact' are impossible",
            )
            for numbers in (
                {"score": 7.0, "high": 7.0},
                {"low": -0.1},
                {"low": 0.76},
                {"high": 0.74},
                {"delta": 1.5, "delta_high": 1.6},
                {"delta_low": 0.51},
                {"p_value": 1.5},
                {"minimum_detectable_delta": -0.1},
                {"examples": 0},
                {"errored": -1},
                {"passed": 1, "failed": 1, "errored": 1},
                {"errored": 1, "over_budget": 2},
            )
        ),
        *(
            ("Complete", {"slices": [SLICE.model_copy(update=changes)]}, told)
            for changes, told in (
                ({"candidate": "theirs"}, "which the spec does not have"),
                ({"grader": "kind"}, "which the spec does not have"),
                ({"by": "{{item.x}}"}, "on a slice by '{{item.x}}', which the spec does not have"),
                ({"score": 7.0}, "on a slice are impossible"),
                ({"delta": -1.5}, "on a slice are impossible"),
            )
        ),
        (
            "Complete",
            {"outputs": [OutputsStatus(candidate="tuned", count=count) for count in (1, 2)]},
            "it reports the outputs of 'tuned' twice",
        ),
        (
            "Complete",
            {"usage": [ModelUsage(model="judge", requests=count) for count in (1, 2)]},
            "it reports the usage of the model 'judge' twice",
        ),
    ],
    ids=[
        *("its Job failed", "another folder", "another model", "another grader", "twice"),
        *("no score", "below 0", "below its interval", "above its interval", "no gain", "below the gain's interval"),
        *("no probability", "less than nothing", "no example", "no count", "more examples than outputs"),
        "more over budget than errored",
        *("a slice of another model", "by another grader", "by another template", "above 1", "below -1"),
        *("outputs twice", "usage twice"),
    ],
)
def test_scores_are_held_against_what_was_asked(state: Any, claim: dict[str, Any], told: str) -> None:
    said = succeeded_pod(JOB, EVALUATION_REPORT.model_copy(update=claim))
    spec = evaluation_spec(dataset={"slices": [SLICE.by]})
    result = decide(observed_evaluation(evaluation_status(), job(JOB, state), pods=(said,), spec=spec))
    assert result.status.results == []
    assert result.decision.passed is None
    assert told in result.message
    if claim:
        assert is_over(result), "whoever wrote it writes it again"
        assert result.decision.reason == "ReportRefused"


def test_scores_of_slices_are_in_the_status() -> None:
    said = succeeded_pod(JOB, EVALUATION_REPORT.model_copy(update={"slices": [SLICE]}))
    spec = evaluation_spec(dataset={"slices": [SLICE.by]})
    observed = observed_evaluation(evaluation_status(), job(JOB, "Complete"), pods=(said,), spec=spec)
    assert decide(observed).status.slices == [SLICE]


def test_the_folder_is_that_of_the_class_as_it_was_when_the_evaluation_began() -> None:
    begun = decide(observed_evaluation()).status
    assert begun.storage_uri == EVALUATION_FOLDER
    said = succeeded_pod(JOB, EVALUATION_REPORT)
    moved = resolved_class(storage={"prefix": "elsewhere"})
    assert decide(observed_evaluation(begun, job(JOB, "Complete"), pods=(said,), class_=moved)).status.results == SCORES


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
    assert decided(rest).decision.deletes == with_config_map(JOB)
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
    assert f"{UNREADABLE.message} The running try continues." in running.message
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
    gone = observed_evaluation(begun, job(JOB, "Complete"), pods=(said,), class_=CLASS_NOT_FOUND)
    assert decide(gone).decision.phase == "Passed"
    running = observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), class_=CLASS_NOT_FOUND)
    assert decide(running).decision.phase == "Evaluating"


# What it was made from.


def made_of(class_: ResolvedClass) -> JobView:
    """The first try's Job, as that class makes it."""
    created = plan(observed_evaluation(NEW, class_=class_), NOW).create[-1]
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
def test_a_job_that_has_not_started_is_recreated_when_its_class_changed(pods: tuple[PodView, ...], anew: bool) -> None:
    made = made_of(resolved_class())
    result = decide(observed_evaluation(evaluation_status(), made, pods=pods, class_=CORRECTED))
    assert result.decision.writes == ()
    assert result.decision.deletes == (with_config_map(JOB) if anew else ())
    assert result.status.retries == 0
    if anew:
        gone = decide(observed_evaluation(result.status, class_=CORRECTED))
        assert (gone.decision.writes, gone.status.retries, gone.status.disruptions) == (RETRY_OBJECTS, 0, 0)
    same = decide(observed_evaluation(evaluation_status(), made, pods=pods))
    assert same.decision.writes == ()
