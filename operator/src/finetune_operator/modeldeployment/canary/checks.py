"""Whether a canary is worse than what serves: Pass, Fail or NotEnoughData of each check.

Fail is looked for again and again, and each look could be wrong by chance. All looks of all checks together are wrong
for a model that is exactly as bad as the margin allows in at most 5 % of canaries: look k has the share 6 / (pi k)^2 of
that (these add up to 1; Bonferroni's inequality holds for looks that depend on each other, too). Pass is said by the
95 % limit, and only once a step has its requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from finetune_api.modeldeployment import (
    CanaryCheck,
    CheckMetric,
    CheckResult,
    RequestCounts,
    RequestShare,
    TrafficCounts,
    Verdict,
)
from finetune_operator.modeldeployment.canary.statistics import (
    Estimate,
    difference,
    log_mean,
    log_quantile,
    quantile_of_normal,
    share,
)

FAIL_ALPHA = 0.05
PASS_ALPHA = 0.05
LEAST_SAMPLES = 20
"""Of each side."""
LEAST_ERRORS = 5
"""Of a canary that fails by them: the limits of fewer are too narrow."""
_P95 = 0.95
SHARES: tuple[RequestShare, ...] = get_args(RequestShare)
_URGENCY = ("Fail", "NotEnoughData", "Pass")


@dataclass(frozen=True)
class Sides:
    """Both sides, and how far one is above the other; `in_logarithms`: all of them."""

    stable: Estimate
    canary: Estimate
    above: Estimate


def check_results(
    checks: Sequence[CanaryCheck], stable: TrafficCounts, canary: TrafficCounts, look: int, *, may_pass: bool
) -> list[CheckResult]:
    """All checks at this look (from 1)."""
    comparisons = len(checks) + sum(len(SHARES) - 1 for check in checks if check.metric == "ErrorRate")
    fail = quantile_of_normal(FAIL_ALPHA * 6 / (math.pi * look) ** 2 / comparisons)
    return [_result(check, stable, canary, fail, may_pass=may_pass) for check in checks]


def overall(results: Sequence[CheckResult]) -> Verdict:
    """One Fail is enough, and all have to pass."""
    verdicts = {one.verdict for one in results}
    if "Fail" in verdicts:
        return "Fail"
    return "Pass" if verdicts == {"Pass"} else "NotEnoughData"


def _result(
    check: CanaryCheck, stable: TrafficCounts, canary: TrafficCounts, fail: float, *, may_pass: bool
) -> CheckResult:
    if check.metric == "ErrorRate":
        return _of_requests(margin_of(check), stable, canary, fail, may_pass=may_pass)
    strict, usual = _compared(check, stable, canary, fail), _compared(check, stable, canary, _USUAL)
    margin = margin_of(check)
    if strict is None or usual is None:
        return CheckResult(metric=check.metric, margin=_shown(math.exp(margin)), verdict="NotEnoughData")
    verdict: Verdict = "NotEnoughData"
    if strict.above.low > margin:
        verdict = "Fail"
    elif may_pass and usual.above.high < margin:
        verdict = "Pass"
    return _shown_of(check.metric, usual, margin, verdict, math.exp)


def _of_requests(
    margin: float, stable: RequestCounts, canary: RequestCounts, fail: float, *, may_pass: bool
) -> CheckResult:
    """Errors, refusals and clients that left, each by the same limit: the first that failed, or is undecided."""
    found = []
    for name in SHARES:
        usual, verdict = compared_share(name, stable, canary, _USUAL), "NotEnoughData"
        if share_is_above(name, stable, canary, fail, margin):
            verdict = "Fail"
        elif may_pass and usual is not None and usual.above.high < margin:
            verdict = "Pass"
        if usual is None:
            found.append(CheckResult(metric="ErrorRate", margin=margin, verdict="NotEnoughData", share=name))
        else:
            found.append(_shown_of("ErrorRate", usual, margin, cast(Verdict, verdict), float, name))
    return min(found, key=lambda one: _URGENCY.index(one.verdict))


def passes(check: CanaryCheck, stable: TrafficCounts, canary: TrafficCounts) -> bool:
    """Whether it is within the margin by the 95 % limit, whatever a step needs besides."""
    if check.metric == "ErrorRate":
        found = [compared_share(name, stable, canary, _USUAL) for name in SHARES]
    else:
        found = [_compared(check, stable, canary, _USUAL)]
    return all(one is not None and one.above.high < margin_of(check) for one in found)


def share_is_above(name: RequestShare, stable: RequestCounts, canary: RequestCounts, z: float, margin: float) -> bool:
    """Whether a share of its requests is above that of what serves by more than the margin, with this limit."""
    compared = compared_share(name, stable, canary, z)
    return compared is not None and compared.above.low > margin and _counts(name, canary)[0] >= LEAST_ERRORS


def compared_share(name: RequestShare, stable: RequestCounts, canary: RequestCounts, z: float) -> Sides | None:
    """None: one side has too few requests."""
    found = [
        share(min(count, total), total, z) if _enough(total) else None
        for count, total in (_counts(name, stable), _counts(name, canary))
    ]
    if found[0] is None or found[1] is None:
        return None
    return Sides(found[0], found[1], difference(found[1], found[0]))


def _counts(name: RequestShare, counts: RequestCounts) -> tuple[int, int]:
    if name == "Errors":
        return counts.errors, counts.answered
    return (counts.refused if name == "Refused" else counts.left), counts.requests


def _shown_of(
    metric: CheckMetric,
    usual: Sides,
    margin: float,
    verdict: Verdict,
    value: Callable[[float], float],
    name: RequestShare | None = None,
) -> CheckResult:
    numbers = [
        _shown(value(one)) for one in (usual.stable.value, usual.canary.value, usual.above.low, usual.above.high)
    ]
    return CheckResult(
        metric=metric,
        stable=numbers[0],
        canary=numbers[1],
        low=numbers[2],
        high=numbers[3],
        margin=_shown(value(margin)),
        verdict=verdict,
        share=name,
    )


_USUAL = quantile_of_normal(PASS_ALPHA)


def margin_of(check: CanaryCheck) -> float:
    """How far above what serves a canary may be: a share, or the logarithm of a ratio."""
    if check.metric == "ErrorRate":
        return (check.maximum_increase_percent or 0.0) / 100
    return math.log(check.maximum_ratio or 1.0)


def _compared(check: CanaryCheck, stable: TrafficCounts, canary: TrafficCounts, z: float) -> Sides | None:
    """None: one side has too few samples."""
    found = [_estimate(check, counts, z) for counts in (stable, canary)]
    if found[0] is None or found[1] is None:
        return None
    return Sides(found[0], found[1], difference(found[1], found[0]))


def _estimate(check: CanaryCheck, counts: TrafficCounts, z: float) -> Estimate | None:
    if check.metric == "OutputTokensMean":
        known = _enough(counts.answers) and counts.tokens > 0
        return log_mean(counts.answers, counts.tokens, counts.token_squares, z) if known else None
    histogram = counts.first_token if check.metric == "TimeToFirstTokenP95" else counts.per_token
    return log_quantile(histogram, _P95, z) if _enough(sum(histogram.values())) else None


def _enough(count: int) -> bool:
    return count >= LEAST_SAMPLES


def _shown(number: float) -> float | None:
    return float(f"{number:.4g}") if math.isfinite(number) else None
