"""Conditions follow from a readiness, and Events from how conditions changed."""

from __future__ import annotations

from typing import Literal

import pytest

from finetune_api.conditions import Condition, ConditionType, Reason
from finetune_operator.core.conditions import (
    EventNote,
    Readiness,
    conditions,
    failed,
    known_reason,
    progressing,
    ready,
    stalled,
    transition_events,
)
from tests.unit.operator.states import NOW, ago, later

TRAINING = progressing(Reason.TRAINING)
QUEUED = progressing(Reason.QUEUED)
SUCCEEDED = ready(Reason.SUCCEEDED, "The result is there.")
NO_ROOM = stalled(Reason.UNSCHEDULABLE, "No node has room.")
NO_SECRET = stalled(Reason.SECRET_NOT_FOUND, "Create the Secret.")


def table(found: list[Condition]) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in found}


@pytest.mark.parametrize(
    ("readiness", "expected"),
    [
        (TRAINING, {"Ready": ("False", "Training"), "Stalled": ("False", "Progressing")}),
        (SUCCEEDED, {"Ready": ("True", "Succeeded"), "Stalled": ("False", "Progressing")}),
        (NO_ROOM, {"Ready": ("False", "Unschedulable"), "Stalled": ("True", "Unschedulable")}),
    ],
)
def test_ready_and_stalled_of_each_standing(readiness: Readiness, expected: dict[str, tuple[str, str]]) -> None:
    assert table(conditions(readiness, [], generation=1, now=NOW)) == expected


def test_a_diagnosis_that_stalls_nothing_is_reported_by_stalled_too() -> None:
    """`Stalled` would say that no problem is known, beside a Ready whose reason is one."""
    capped = ready(Reason.LIMIT_EXCEEDED, "spec.replicas is 5; the class allows 2.")
    found = {one.type: one for one in conditions(capped, [], generation=1, now=NOW)}
    assert table([*found.values()])["Stalled"] == ("False", "LimitExceeded")
    assert found[ConditionType.STALLED].message == capped.message


def test_the_condition_failed_lasts_as_long_as_the_run_is_over() -> None:
    over = conditions(failed(Reason.DATASET_INVALID, "Line 7."), [], generation=1, now=NOW)
    assert table(over) == {
        "Ready": ("False", "DatasetInvalid"),
        "Stalled": ("True", "DatasetInvalid"),
        "Failed": ("True", "DatasetInvalid"),
    }
    assert "Failed" not in table(conditions(QUEUED, over, generation=1, now=NOW))


def test_the_condition_passed_is_there_only_with_a_verdict() -> None:
    judged = conditions(SUCCEEDED, [], generation=1, now=NOW, passed=ready(Reason.GATES_PASSED, "Every gate passed."))
    assert table(judged)["Passed"] == ("True", "GatesPassed")
    assert "Passed" not in table(conditions(TRAINING, judged, generation=1, now=NOW))


@pytest.mark.parametrize(("then", "moves"), [(QUEUED, False), (NO_ROOM, False), (SUCCEEDED, True)])
def test_a_transition_time_moves_only_with_the_status(then: Readiness, moves: bool) -> None:
    before = conditions(TRAINING, [], generation=1, now=ago(60))
    (is_ready, *_) = conditions(then, before, generation=2, now=NOW)
    assert is_ready.last_transition_time == (NOW if moves else ago(60))
    assert is_ready.observed_generation == 2


def test_times_are_whole_seconds() -> None:
    (is_ready, *_) = conditions(TRAINING, [], generation=1, now=later(0.75))
    assert is_ready.last_transition_time == NOW


def test_a_message_that_is_too_long_for_a_condition_is_cut() -> None:
    (is_ready, *_) = conditions(progressing(Reason.TRAINING, "x" * 5000), [], generation=1, now=NOW)
    assert len(is_ready.message) == 4096


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, TRAINING, ("Normal", "Training")),
        (TRAINING, TRAINING, None),
        (None, QUEUED, None),
        (TRAINING, QUEUED, None),
        (NO_ROOM, QUEUED, ("Normal", "Queued")),
        (QUEUED, TRAINING, ("Normal", "Training")),
        (TRAINING, SUCCEEDED, ("Normal", "Succeeded")),
        (TRAINING, NO_ROOM, ("Warning", "Unschedulable")),
        (NO_ROOM, NO_ROOM, None),
        (NO_ROOM, NO_SECRET, ("Warning", "SecretNotFound")),
        (NO_ROOM, TRAINING, ("Normal", "Training")),
    ],
)
def test_each_transition_that_a_person_wants_to_know_of_is_one_event(
    before: Readiness | None, after: Readiness, expected: tuple[Literal["Normal", "Warning"], str] | None
) -> None:
    earlier = [] if before is None else conditions(before, [], generation=1, now=ago(60))
    notes = transition_events(earlier, conditions(after, earlier, generation=1, now=NOW))
    assert notes == (() if expected is None else (EventNote(*expected, after.message),))


def test_another_message_alone_is_no_event() -> None:
    earlier = conditions(NO_ROOM, [], generation=1, now=ago(60))
    reworded = conditions(stalled(Reason.UNSCHEDULABLE, "0/5 nodes"), earlier, generation=1, now=NOW)
    assert transition_events(earlier, reworded) == ()
    assert reworded[0].message == "0/5 nodes"


def test_a_reason_that_this_version_does_not_know_reads_as_failed() -> None:
    assert known_reason("Unschedulable") == Reason.UNSCHEDULABLE
    assert known_reason("QuantumDecay") == Reason.FAILED
    assert ConditionType.PASSED not in table(conditions(TRAINING, [], generation=1, now=NOW))
