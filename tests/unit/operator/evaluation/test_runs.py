"""Each model is evaluated once: what makes another run, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_operator.core.conditions import stalled
from finetune_operator.core.plan import planned
from finetune_operator.environment import Environment
from finetune_operator.evaluation.kind import evaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.evaluation.run_identity import run_digest
from tests.unit.operator.evaluation.plans import (
    JOB,
    JOB_OBJECTS,
    NEW,
    NO_JOB,
    OF_NEW_MODEL,
    RETRY_OBJECTS,
    decide,
)
from tests.unit.operator.evaluation_states import (
    WAITING_FOR_MODEL,
    evaluated_status,
    evaluation_job_name,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
    tuned,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    NOW,
    Decision,
    earlier_conditions,
    failed_pod,
    job,
    later,
    pod,
    resolved_class,
    with_config_map,
)

CANCELLED = evaluation_spec(cancel=True)

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


@pytest.mark.parametrize(
    "changes", [{"runId": "2"}, {"generation": {"maxTokens": 9}}], ids=["runId", "what it measures"]
)
def test_another_run_begins_once_the_try_of_the_last_one_has_ended(changes: dict[str, Any]) -> None:
    """Two at once hold twice the accelerators, and those of one run write the same report."""
    running = evaluation_status(run_digest=run_digest(evaluation_spec()))
    spec = evaluation_spec(**changes)
    stops = decide(observed_evaluation(running, job(JOB), pods=(pod(JOB),), spec=spec))
    assert stops.decision == Decision(
        "Waiting", "Stopping", deletes=with_config_map(JOB), again_in=15, event="Normal Stopping"
    )
    assert (stops.status.run_id, stops.status.job_name) == (spec.run_id, None)
    ending = decide(observed_evaluation(stops.status, pods=(pod(JOB, deletion_time=later(30)),), spec=spec))
    assert (ending.decision.writes, ending.message) == ((), stops.message)
    begins = decide(observed_evaluation(ending.status, spec=spec))
    assert (begins.decision.phase, begins.status.try_number, begins.status.disruptions) == ("Evaluating", 1, 0)
    assert begins.decision.writes


def test_another_run_waits_for_a_job_that_is_still_in_its_queue() -> None:
    """Its Pods may start at any moment."""
    queued = job(JOB, suspended=True)
    stops = decide(observed_evaluation(evaluation_status(), queued, spec=evaluation_spec(runId="2")))
    assert (stops.decision.writes, stops.decision.deletes) == ((), with_config_map(JOB))
    assert f"Waiting for Job {JOB} of an earlier try to be deleted." in stops.message


def test_a_try_that_a_crash_left_behind_is_found_by_its_name() -> None:
    """It was made, and the status was not written."""
    left = decide(observed_evaluation(NEW, job(JOB), pods=(pod(JOB),)))
    assert (left.decision.writes, left.decision.deletes, left.status.job_name) == (JOB_OBJECTS, (), JOB)


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
        {"class_": CLASS_NOT_FOUND},
        {"class_": resolved_class(sources={"datasets": []})},
    ],
    ids=["the model is made anew", "the class is gone", "the class allows less"],
)
def test_a_verdict_stands_until_there_is_another_model(changes: dict[str, Any]) -> None:
    assert decide(observed_evaluation(evaluated_status(), **changes)).decision.passed is True


@pytest.mark.parametrize(
    "changes",
    [{"model": WAITING_FOR_MODEL}, {"model": NO_JOB}, {"class_": CLASS_NOT_FOUND}],
    ids=["the model is being made", "there is no such job", "there is no such class"],
)
def test_an_evaluation_whose_next_run_waits_is_not_finished(changes: dict[str, Any]) -> None:
    """The end of the run before is in its status until the next one begins; it is remembered, and looked at again."""
    is_finished = evaluation(Environment()).is_finished
    done = decide(observed_evaluation(evaluated_status())).status
    assert is_finished(done)
    waits = decide(observed_evaluation(done, spec=evaluation_spec(runId="2"), **changes)).status
    assert (waits.run_id, waits.completion_time, is_finished(waits)) == ("1", done.completion_time, False)


@pytest.mark.parametrize("end", ["Passed", "GateFailed", "Inconclusive", "Failed"])
def test_an_evaluation_is_finished_however_it_ended(end: str) -> None:
    assert evaluation(Environment()).is_finished(evaluated_status(phase=end))


# spec.cancel.


def test_a_new_run_that_is_cancelled_from_the_start_waits_for_the_pod_of_the_one_before() -> None:
    spec = evaluation_spec(runId="2", cancel=True)
    running = observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), spec=spec)
    stopping = decide(running)
    assert (stopping.decision.phase, stopping.decision.reason, stopping.status.run_id) == ("Waiting", "Stopping", "2")
    assert stopping.decision.deletes == with_config_map(JOB)
    over = decide(observed_evaluation(stopping.status, spec=spec))
    assert (over.decision.phase, over.status.run_id) == ("Cancelled", "2")


def test_cancel_that_is_taken_back_before_the_end_lets_another_try_go_on() -> None:
    stopping = decide(observed_evaluation(evaluation_status(), job(JOB), pods=(pod(JOB),), spec=CANCELLED))
    again = decide(observed_evaluation(stopping.status))
    assert again.decision.writes == RETRY_OBJECTS
    assert (again.status.try_number, again.status.retries, again.status.disruptions) == (2, 0, 0)


def test_a_cancelled_run_says_how_its_last_try_failed() -> None:
    ended = observed_evaluation(
        evaluation_status(), job(JOB, "Failed"), pods=(failed_pod(JOB, LINE_7),), spec=CANCELLED
    )
    result = decide(ended)
    assert (result.decision.phase, result.decision.reason, result.status.retries) == ("Cancelled", "Cancelled", 1)
    assert result.status.failure is not None
    assert result.status.failure.reason == Reason.DATASET_INVALID
    again = decide(replace(ended, status=result.status))
    assert (again.decision.reason, again.status) == ("Cancelled", result.status)
