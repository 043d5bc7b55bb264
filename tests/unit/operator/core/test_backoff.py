"""What failed is tried again ever more slowly, but never later than the longest delay, whoever wrote the moment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from finetune_api.evaluation import EvaluationStatus
from finetune_operator.core.backoff import LONGEST_DELAY_SECONDS, retry_delay_seconds, waits
from finetune_operator.evaluation.plan import plan as plan_of_evaluation
from finetune_operator.finetunejob.plan import plan as plan_of_job
from tests.unit.operator.evaluation_states import evaluation_status, observed_evaluation
from tests.unit.operator.states import (
    NOW,
    attempt_status,
    ended_attempt,
    job_status,
    later,
    observed_job,
    preflight_status,
    trained_status,
)


def test_the_delay_doubles_up_to_ten_minutes() -> None:
    assert [retry_delay_seconds(number) for number in (0, 1, 2, 3, 7, 8, 1000)] == [10, 10, 20, 40, 600, 600, 600]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-1, False), (0, False), (1, True), (LONGEST_DELAY_SECONDS, True), (LONGEST_DELAY_SECONDS + 1, False)],
)
def test_a_moment_further_away_than_any_delay_is_not_waited_for(seconds: float, expected: bool) -> None:
    assert waits(NOW + timedelta(seconds=seconds), NOW) == expected
    assert not waits(None, NOW)


def test_what_a_wrong_clock_put_off_by_a_year_starts_now() -> None:
    """The operator's clock ran ahead when these failed."""
    year = later(365 * 86400)
    preflight = job_status(preflight=preflight_status(succeeded=False, retry_time=year))
    failed = trained_status(attempt_status(next_time=year, retries=1), ended_attempts=[ended_attempt(reason="Failed")])
    for status, made in ((preflight, "Pod"), (failed, "Job")):
        assert [body["kind"] for body in plan_of_job(observed_job(status), NOW).create] == [made]
    status: EvaluationStatus = evaluation_status(retry_time=year, try_number=1)
    assert plan_of_evaluation(observed_evaluation(status), NOW).status.retry_time is None
