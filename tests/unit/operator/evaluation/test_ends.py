"""The end of an Evaluation's run is written down before its Pods go, stays what it was, and comes by a right clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_operator.evaluation.plan import plan
from finetune_operator.pods.observed import PodView
from tests.unit.operator.evaluation.plans import JOB, decide, is_over
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    WAITING_FOR_MODEL,
    evaluated_status,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    NOW,
    ago,
    failed_pod,
    job,
    later,
    pod,
    succeeded_pod,
    with_config_map,
)


@pytest.mark.parametrize(
    ("ended", "phase"),
    [
        (succeeded_pod(JOB, EVALUATION_REPORT), "Passed"),
        (failed_pod(JOB, LINE_7), "Failed"),
    ],
    ids=["scores", "a failure"],
)
def test_no_pod_goes_before_what_it_said_is_written_down(ended: PodView, phase: str) -> None:
    """An operator that was killed between the deletion and the status would evaluate again."""
    spec = evaluation_spec(ttlSecondsAfterFinished=0)
    done = observed_evaluation(evaluation_status(), job(JOB, "Complete"), pods=(ended,), spec=spec)
    result = decide(done)
    assert (result.decision.phase, result.decision.deletes, result.decision.again_in) == (phase, (), 0)
    written = decide(replace(done, status=result.status))
    assert (written.decision.phase, written.decision.deletes) == (phase, with_config_map(JOB))


@pytest.mark.parametrize("gates", [[], [{"grader": "exact", "minimum": 0.5}]], ids=["no gate", "a gate"])
@pytest.mark.parametrize(
    "waits", [{"spec": {"suspend": True}}, {"model": WAITING_FOR_MODEL}, {"class_": CLASS_NOT_FOUND}]
)
@pytest.mark.parametrize(
    ("changes", "pods", "told"),
    [
        ({}, (failed_pod(JOB, LINE_7),), "Line 7 of"),
        ({"cancel": True}, (), "ended without scores"),
        ({"activeDeadlineSeconds": 60}, (), "ended without scores"),
    ],
    ids=["failed", "cancelled", "at its deadline"],
)
def test_a_run_without_scores_never_passes_though_another_run_id_came_and_went(
    changes: dict[str, Any], pods: tuple[PodView, ...], told: str, waits: dict[str, Any], gates: list[Any]
) -> None:
    ran = observed_evaluation(
        evaluation_status(start_time=ago(60)),
        *([] if changes == {"cancel": True} else [job(JOB, "Failed" if pods else "Active")]),
        pods=pods,
        spec=evaluation_spec(gates=gates, **changes),
    )
    over = decide(ran).status
    assert over.phase in ("Failed", "Cancelled")
    others = {name: value for name, value in waits.items() if name != "spec"}
    asked = evaluation_spec(gates=gates, runId="2", **waits.get("spec", {}))
    meanwhile = decide(observed_evaluation(over, spec=asked, **others)).status
    assert (meanwhile.run_id, meanwhile.phase) == ("1", "Suspended" if "spec" in waits else "Waiting")
    back = decide(observed_evaluation(meanwhile, spec=evaluation_spec(gates=gates)))
    assert (back.decision.phase, back.decision.passed, back.decision.writes) == ("Failed", None, ())
    assert is_over(back)
    assert told in back.message
    again = decide(observed_evaluation(back.status, spec=evaluation_spec(gates=gates)))
    assert again.status == back.status


# Clocks.

DAYS = 24 * 3600


@pytest.mark.parametrize(
    ("written", "corrected"),
    [
        ({"start_time": later(10**8)}, {"start_time": NOW}),
        ({"start_time": ago(10**9)}, {"start_time": ago(1000)}),
        ({"start_time": later(30)}, {"start_time": later(30)}),
        ({"start_time": ago(500), "suspended_seconds": 10**8}, {"start_time": ago(500), "suspended_seconds": 500}),
    ],
    ids=["in the future", "before it was made", "by seconds", "suspended for longer than it runs"],
)
def test_times_that_a_wrong_clock_wrote_are_corrected(written: dict[str, Any], corrected: dict[str, Any]) -> None:
    running = observed_evaluation(evaluation_status(**written), job(JOB), pods=(pod(JOB),), created=ago(1000))
    found = decide(running).status
    assert {name: getattr(found, name) for name in corrected} == corrected
    assert decide(replace(running, status=found)).status == found


@pytest.mark.parametrize("moment", [later(10**9), ago(10**9)])
def test_a_ttl_counts_from_now_where_a_wrong_clock_wrote_the_end(moment: datetime) -> None:
    spec = evaluation_spec(ttlSecondsAfterFinished=60)
    over = evaluated_status(start_time=ago(100), completion_time=moment)
    found = decide(observed_evaluation(over, job(JOB, "Complete"), spec=spec)).decision
    assert (found.phase, found.deletes, found.again_in) == ("Passed", (), 60)


@pytest.mark.parametrize("by", [{"created": ago(100)}, {"status_written": ago(1)}], ids=["its creation", "its status"])
def test_the_time_of_a_suspension_is_not_lost_where_a_slow_clock_sees_its_end(by: dict[str, Any]) -> None:
    """The run's clock stands still until somebody can tell for how long it did."""
    status = evaluation_status(job_name=None, phase="Suspended", start_time=ago(6 * DAYS), suspend_time=ago(5 * DAYS))
    spec = evaluation_spec(activeDeadlineSeconds=2 * DAYS)
    resumed = observed_evaluation(status, spec=spec, **by)
    slow = plan(resumed, NOW - timedelta(days=20)).status
    assert (slow.suspend_time, slow.suspended_seconds, slow.completion_time) == (status.suspend_time, 0, None)
    right = decide(replace(resumed, status=slow, created=ago(7 * DAYS))).status
    assert (right.suspend_time, right.suspended_seconds) == (None, 5 * DAYS)


def test_a_run_that_a_slow_clock_begins_began_no_earlier_than_what_is_there_was_made() -> None:
    assert plan(observed_evaluation(created=ago(100)), NOW - timedelta(days=20)).status.start_time == ago(100)


def test_a_job_that_somebodys_finalizer_keeps_runs_nothing_and_delays_no_end() -> None:
    kept = job(JOB, deleting=True, finalizers=("foregroundDeletion", "example.com/audit"))
    ended = decide(observed_evaluation(evaluation_status(), kept, spec=evaluation_spec(cancel=True)))
    assert ended.decision.reason == "Cancelled"
