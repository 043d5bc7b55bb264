"""What a canary's verdict lacks: how many requests it takes, and how that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.modeldeployment import Canary, CanaryCheck, CanaryStatus, CheckResult, TrafficCounts
from finetune_operator import reference
from finetune_operator.modeldeployment.canary.check_text import undecided, worse
from finetune_operator.modeldeployment.canary.checks import check_results
from finetune_operator.modeldeployment.canary.readiness import canary_readiness
from finetune_operator.modeldeployment.canary.requests_needed import requests_for, requests_needed
from tests.unit.operator.states import NOW

TWO_POINTS = CanaryCheck(metric="ErrorRate", maximum_increase_percent=2)
FIVE_POINTS = CanaryCheck(metric="ErrorRate", maximum_increase_percent=5)
HALF_MORE_TOKENS = CanaryCheck(metric="OutputTokensMean", maximum_ratio=1.5)
FIRST_TOKEN = CanaryCheck(metric="TimeToFirstTokenP95", maximum_ratio=1.3)


def verdict(check: CanaryCheck, stable: TrafficCounts, canary: TrafficCounts) -> str:
    (found,) = check_results([check], stable, canary, 1, may_pass=True)
    return found.verdict


@pytest.mark.parametrize("check", [TWO_POINTS, FIVE_POINTS])
def test_with_so_many_requests_it_passes_and_with_one_less_it_does_not(check: CanaryCheck) -> None:
    needed = requests_for(check, percent=10, error_percent=0)
    assert needed is not None
    assert verdict(check, TrafficCounts(requests=9 * needed), TrafficCounts(requests=needed)) == "Pass"
    assert verdict(check, TrafficCounts(requests=9 * needed), TrafficCounts(requests=needed - 1)) == "NotEnoughData"


def test_a_smaller_margin_and_more_errors_take_more() -> None:
    by_margin = [
        requests_for(CanaryCheck(metric="ErrorRate", maximum_increase_percent=margin), percent=10, error_percent=1)
        for margin in (1, 2, 5)
    ]
    by_errors = [requests_for(TWO_POINTS, percent=10, error_percent=errors) for errors in (3, 1, 0)]
    for found in (by_margin, by_errors):
        known = [number for number in found if number is not None]
        assert len(known) == 3
        assert known == sorted(known, reverse=True)


def test_what_goes_on_as_it_did_passes_after_as_many_as_are_stated() -> None:
    stable, canary = TrafficCounts(requests=600, errors=6), TrafficCounts(requests=100, errors=1)
    needed = requests_needed(TWO_POINTS, stable, canary)
    assert needed is not None and needed > 100
    factor = -(-needed // 100)
    later = [
        TrafficCounts(requests=counts.requests * factor, errors=counts.errors * factor) for counts in (stable, canary)
    ]
    assert verdict(TWO_POINTS, later[0], later[1]) == "Pass"


def test_what_is_beyond_the_margin_or_was_never_counted_passes_with_no_number_of_requests() -> None:
    stable = TrafficCounts(requests=1000)
    assert requests_needed(TWO_POINTS, stable, TrafficCounts(requests=100, errors=4)) is None
    assert requests_needed(TWO_POINTS, stable, TrafficCounts()) is None
    assert requests_needed(FIRST_TOKEN, stable, TrafficCounts(requests=100)) is None, "nobody streams"


def test_all_three_shares_of_requests_count() -> None:
    stable = TrafficCounts(requests=1000)
    quiet = requests_needed(FIVE_POINTS, stable, TrafficCounts(requests=60))
    refused = requests_needed(FIVE_POINTS, stable, TrafficCounts(requests=60, refused=1))
    assert quiet is not None and refused is not None and refused > quiet


def result(**changes: object) -> CheckResult:
    known = {"metric": "ErrorRate", "stable": 0.0, "canary": 0.0, "low": -0.004, "high": 0.052, "margin": 0.05}
    return CheckResult.model_validate({**known, "share": "Errors", "verdict": "NotEnoughData", **changes})


def test_it_says_which_check_is_undecided_by_how_much_and_what_it_takes() -> None:
    told = "ErrorRate: up to 5.2 points more by what is known, 5 allowed; some 74 requests would do if it goes on so."
    assert undecided([result(requestsNeeded=74)]) == told
    refused = undecided([result(share="Refused")])
    assert refused == "The share of requests refused (4xx): up to 5.2 points more by what is known, 5 allowed."
    ratio = {"metric": "OutputTokensMean", "share": None, "high": 1.62, "margin": 1.5}
    assert undecided([result(**ratio)]) == "OutputTokensMean: up to 1.62 times by what is known, 1.5 allowed."


def test_it_says_that_there_were_no_streams_to_compare() -> None:
    (found,) = check_results([FIRST_TOKEN], TrafficCounts(requests=900), TrafficCounts(requests=90), 1, may_pass=True)
    assert undecided([found]) == "TimeToFirstTokenP95: too few streams, 1.3 allowed."


def test_nothing_is_said_of_what_passed_or_lacks_the_requests_of_its_step_alone() -> None:
    assert undecided([result(verdict="Pass"), result(high=0.03)]) == ""


def test_what_failed_is_reported_with_its_interval_beside_the_margin() -> None:
    counts = [
        TrafficCounts(requests=n, answers=n, tokens=n * t, token_squares=n * t * t) for n, t in ((99, 8), (30, 17))
    ]
    (found,) = check_results([HALF_MORE_TOKENS], counts[0], counts[1], 1, may_pass=True)
    told = "OutputTokensMean was 17; that of the model that serves, 8 (2.12 to 2.12 times, 1.5 allowed)."
    assert worse([found]) == told


def test_of_a_quantile_that_few_samples_do_not_bound_the_lower_limit_is_told() -> None:
    bounded = result(metric="TimeToFirstTokenP95", share=None, canary=0.6, low=4.1, high=None, margin=2, verdict="Fail")
    assert worse([bounded]).endswith("that of the model that serves, 0 (at least 4.1 times, 2 allowed).")


def test_the_readiness_says_what_is_counted_and_what_is_missing() -> None:
    counts = TrafficCounts(requests=72, refused=2)
    canary = CanaryStatus(
        revision="sha256:bb",
        phase="Analysing",
        phase_time=NOW,
        canary=counts,
        next_look_requests=102,
        checks=[result(requestsNeeded=74)],
    )
    spec = Canary.from_wire({"steps": [{"percent": 20, "minimumRequests": 30}]})
    message = canary_readiness(canary, spec, "", NOW).message
    assert "NotEnoughData after 70 of at least 30 (72 with those refused or left); looked at next at 102. " in message
    assert "ErrorRate: up to 5.2 points more" in message


def test_the_page_of_margins_is_computed_by_the_check() -> None:
    page = Path(__file__).parents[5] / "docs" / "reference" / reference.CANARY_REQUESTS_FILE
    assert page.read_text() == reference.canary_requests_page(), "run `make generate`"
