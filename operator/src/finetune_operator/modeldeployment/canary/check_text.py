"""A check's numbers in words, for the condition Ready, Events and what was rolled back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.modeldeployment import CheckResult

_SHARES = {"Refused": "requests refused (4xx)", "Left": "requests left by their client before an answer"}


def worse(results: Sequence[CheckResult]) -> str:
    """What failed, with both values, the interval and the margin."""
    return f"{', '.join(_both(one) for one in results if one.verdict == 'Fail')}."


def passed(results: Sequence[CheckResult]) -> str:
    """What every check found."""
    return f"{', '.join(_both(one) for one in results)}."


def undecided(results: Sequence[CheckResult]) -> str:
    """What the checks lack that are not decided, as sentences; "" if they lack nothing but the step's requests."""
    return " ".join(f"{name(one)}: {found}." for one in results if (found := _lacks(one)))


def name(one: CheckResult) -> str:
    """The check, or which of its shares its numbers are of."""
    return f"The share of {_SHARES[one.share]}" if one.share in _SHARES else one.metric


def _both(one: CheckResult) -> str:
    found = f"{name(one)} was {_number(one.canary)}; that of the model that serves, {_number(one.stable)}"
    if one.low is None or one.margin is None:
        return found
    low = _above(one, one.low)
    # A quantile of few samples has no upper limit.
    interval = f"at least {low}" if one.high is None else f"{low} to {_above(one, one.high)}"
    return f"{found} ({interval} {_unit(one)}, {_above(one, one.margin)} allowed)"


def _lacks(one: CheckResult) -> str:
    if one.verdict != "NotEnoughData" or one.margin is None:
        return ""
    allowed = f"{_above(one, one.margin)} allowed"
    if one.high is None:
        too_few = "too few" if one.canary is None else "not enough to bound it"
        return f"{too_few} {_SAMPLES.get(one.metric, 'requests')}, {allowed}{_needed(one)}"
    if one.high < one.margin:
        return ""
    return f"up to {_above(one, one.high)} {_unit(one)} by what is known, {allowed}{_needed(one)}"


def _needed(one: CheckResult) -> str:
    if one.requests_needed is None:
        return ""
    return f"; some {one.requests_needed} requests would do if it goes on so"


_SAMPLES = {
    "TimeToFirstTokenP95": "streams",
    "TimePerOutputTokenP95": "streams",
    "OutputTokensMean": "answers with their tokens",
}


def _above(one: CheckResult, value: float) -> str:
    """A difference in percentage points, or a ratio."""
    return f"{value * 100:.3g}" if one.metric == "ErrorRate" else f"{value:.3g}"


def _unit(one: CheckResult) -> str:
    return "points more" if one.metric == "ErrorRate" else "times"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
