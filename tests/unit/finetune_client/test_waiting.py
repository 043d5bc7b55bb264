"""When a wait is over, and how long the API server may be away."""

from __future__ import annotations

import math

import pytest

from finetune_client.errors import ApiError, RunFailedError, StalledError, error_of
from finetune_client.kinds import FINE_TUNE_JOBS
from finetune_client.waiting import PAUSES, Outage, Until, Waiting, progress_of, timed_out
from tests.unit.kubectl_finetune.cluster_objects import FAILED, SUCCEEDED, TRAINING, UID, condition, seen

STALLED = {
    **TRAINING,
    "phase": "Queued",
    "conditions": [
        condition("Ready", "False", "Unschedulable", "0/3 nodes have a GPU."),
        condition("Stalled", "True", "Unschedulable", "0/3 nodes have a GPU."),
    ],
}
UNSEEN = {**SUCCEEDED, "observedGeneration": 1}


def waiting(until: Until = "Succeeded", stalled_after: float = 100.0) -> Waiting:
    return Waiting(FINE_TUNE_JOBS, UID, until, stalled_after)


def test_it_is_over_when_what_was_waited_for_is_true() -> None:
    assert waiting("Started").is_over(seen(TRAINING), 0) and not waiting().is_over(seen(TRAINING), 0)
    for until in ("Started", "Succeeded", "Ended"):
        assert waiting(until).is_over(seen(SUCCEEDED), 0)  # type: ignore[arg-type]
    assert waiting("Ended").is_over(seen(FAILED), 0)
    with pytest.raises(RunFailedError, match=r"ended as Failed \(CUDAOutOfMemory\)"):
        waiting("Started").is_over(seen(FAILED), 0)


def test_a_wait_that_is_over_says_whether_anything_goes_on() -> None:
    assert "after 5 s; it goes on. Now: " in str(timed_out(FINE_TUNE_JOBS, seen(TRAINING), "Succeeded", 5))
    suspended = seen({**TRAINING, "phase": "Suspended"})
    assert "; nothing runs until it is resumed." in str(timed_out(FINE_TUNE_JOBS, suspended, "Succeeded", 5))


def test_a_status_of_an_earlier_spec_says_nothing() -> None:
    assert not waiting().is_over(seen(UNSEEN), 0)
    assert not waiting("Started").is_over(seen({**TRAINING, "observedGeneration": 1}), 0)
    assert str(progress_of(seen(UNSEEN))) == "router  not looked at yet"


def test_a_stall_ends_it_once_it_has_lasted() -> None:
    """What heals in between starts the clock anew."""
    wait = waiting()
    assert not wait.is_over(seen(STALLED), 10) and wait.seconds_left(10) == 100
    assert not wait.is_over(seen(STALLED), 109) and wait.seconds_left(109) == 1
    assert not wait.is_over(seen(TRAINING), 109.5) and wait.seconds_left(109.5) == math.inf
    assert not wait.is_over(seen(STALLED), 200)
    with pytest.raises(StalledError, match=r"stalled for 100 s \(Unschedulable\): 0/3 nodes"):
        wait.is_over(seen(STALLED), 300)


def test_a_line_tells_where_it_stands() -> None:
    assert str(progress_of(seen(TRAINING))) == (
        "router  Training  42%  step 420/1000  loss 0.5234  validation loss 0.61  42m left"
    )
    assert "stalled: Unschedulable: 0/3 nodes have a GPU." in str(progress_of(seen(STALLED)))


def test_an_outage_is_bounded_and_a_refusal_is_none() -> None:
    outage, away = Outage(limit=60.0), error_of(503, b"", "GET /x")
    assert [outage.pause(away, moment) for moment in (0, 1, 2)] == list(PAUSES[:3])
    outage.answered()
    assert outage.pause(away, 1000) == PAUSES[0]
    with pytest.raises(ApiError):
        outage.pause(away, 1060)
    with pytest.raises(ApiError, match="Ask the platform team"):
        Outage().pause(error_of(403, b'{"reason": "Forbidden", "message": "no"}', "GET /x"), 0)
