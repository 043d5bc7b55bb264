"""What ends a canary between the looks at its checks: an outage, whenever it begins. Pure."""

from __future__ import annotations

from finetune_api.modeldeployment import Canary, CanaryStatus, RequestCounts, RequestShare
from finetune_operator.modeldeployment.canary.checks import SHARES, margin_of, share_is_above
from finetune_operator.modeldeployment.canary.statistics import quantile_of_normal

FIRST_ERRORS, FIRST_REQUESTS = 5, 40
"""So many errors among the first requests end it without statistics, where what serves has far fewer."""
WINDOW_REQUESTS = 300
"""Of the canary, after which the recent counts begin anew: what was good before them does not hide an outage."""
OUTAGE_ALPHA = 1e-6
"""It is computed at every report, however many there are: a canary that waits for approval may have thousands."""
_DEFAULT_MARGIN = 0.02
_NAMED: dict[RequestShare, str] = {
    "Errors": "failed",
    "Refused": "were refused (4xx)",
    "Left": "were left by their client before an answer",
}


def outage(canary: CanaryStatus, spec: Canary) -> str | None:
    """What ends it at once."""
    its, other = canary.canary, canary.stable
    if its.requests <= FIRST_REQUESTS:
        for name in SHARES:
            count, before = _count(name, its), _count(name, other)
            is_much = count >= FIRST_ERRORS and count * 4 >= its.requests
            # A fault of both, or of the clients, is not the canary's.
            if is_much and count * max(1, other.requests) > 2 * before * its.requests:
                return f"{count} of its first {its.requests} requests {_NAMED[name]}."
    margins = [margin_of(check) for check in spec.checks if check.metric == "ErrorRate"]
    its_recent, other_recent = canary.recent_canary, canary.recent_stable
    limit = quantile_of_normal(OUTAGE_ALPHA)
    for name in SHARES:
        if share_is_above(name, other_recent, its_recent, limit, max([_DEFAULT_MARGIN, *margins])):
            count, before = _count(name, its_recent), _count(name, other_recent)
            said = f"{count} of its latest {its_recent.requests} requests {_NAMED[name]}"
            return f"{said}, and {before} of {other_recent.requests} of what serves."
    return None


def windowed(canary: CanaryStatus) -> CanaryStatus:
    """With recent counts that begin anew, if they were enough to say that nothing is wrong."""
    if canary.recent_canary.requests < WINDOW_REQUESTS:
        return canary
    return canary.model_copy(update={"recent_stable": RequestCounts(), "recent_canary": RequestCounts()})


def _count(name: RequestShare, counts: RequestCounts) -> int:
    return {"Errors": counts.errors, "Refused": counts.refused, "Left": counts.left}[name]
