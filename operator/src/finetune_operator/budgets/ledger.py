"""The accelerator hours of a namespace: what its training Pods used of a class this month, and whether more is allowed.

What is counted is the time that containers ran, times the accelerators of their Pods. `status.usage` of each job holds
the number and the moment until which it was counted. The sum lies in the ledger: ConfigMaps in the operator's own
namespace, where no tenant writes, with one absolute number for each job, so that a deleted job's share stays counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from finetune_api.base import whole_seconds
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, Usage
from finetune_operator.budgets.observed import ObservedBudget, PodTime
from finetune_operator.core.conditions import Readiness, stalled
from finetune_operator.core.ownership import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL, Owner
from finetune_operator.core.plan import Plan, earliest
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import CONFIG_MAPS, Object
from finetune_operator.pods.observed import parse_time

COUNT_SECONDS = 60
"""How often running Pods are counted: a job that is deleted meanwhile is undercounted by at most this much."""
ENDING_COUNT_SECONDS = 10
"""The same for Pods that are being deleted: they vanish without another event."""
EARLY_COUNT = timedelta(seconds=15)
"""By how much earlier usage is counted if the status is written anyway: that saves a write soon after."""
LONGEST_COUNTED = timedelta(days=62)
"""No Pod runs longer. One of a node whose clock is wrong may have started in 1970."""
MONTHS_KEPT = 2

USAGE_ROLE = "usage"
MONTH_LABEL = "finetune.dev/month"
_ACCOUNT_LABEL = "finetune.dev/account"
_CLASS_ANNOTATION = "finetune.dev/class"
_NAMESPACE_ANNOTATION = "finetune.dev/namespace"
ALL_LEDGERS = {MANAGED_BY_LABEL: MANAGED_BY, ROLE_LABEL: USAGE_ROLE}


@dataclass(frozen=True)
class BudgetViolation:
    """Why no attempt starts, and when one may."""

    readiness: Readiness
    renews: datetime


def pod_time(pod: Object, others: Collection[str] = ()) -> PodTime | None:
    """When a Pod had accelerators; None for one that has none, or has not started.

    `others`: the class's extended resources that are not accelerators.
    """
    by_container = {container["name"]: _accelerators(container, others) for container in pod["spec"]["containers"]}
    for status in pod.get("status", {}).get("containerStatuses", []):
        accelerators, state = by_container.get(status["name"], 0), status.get("state", {})
        ran = state.get("running") or state.get("terminated") or {}
        if accelerators == 0 or not ran.get("startedAt"):
            continue
        deleted = pod["metadata"].get("deletionTimestamp")
        # The node's clock says when it started; the API server's, when it was created, which was before.
        started = parse_time(ran["startedAt"])
        start = max(started, parse_time(pod["metadata"].get("creationTimestamp") or ran["startedAt"]))
        # The kubelet of a lost node never reports that a container ended: the Pod's grace period has ended by then.
        ended = ran.get("finishedAt") or deleted
        end = parse_time(ended) if ended else None
        if end is not None and ran.get("finishedAt") and end < start:
            end = start + max(timedelta(0), end - started)  # The same wrong clock measured how long it ran.
        return PodTime(accelerators, start, end, deleting=deleted is not None)
    return None


def _accelerators(container: Object, others: Collection[str]) -> int:
    """How many accelerators it has: extended resources, which have a domain in their names, except `others`."""
    limits = container.get("resources", {}).get("limits", {})
    asked = {name: count for name, count in limits.items() if "/" in name and name not in others}
    return max((int(count) for count in asked.values() if count.isdigit()), default=0)


def budget_violation(budget: ObservedBudget | None, owner: Owner, class_: ResolvedClass) -> BudgetViolation | None:
    """Why no attempt may start now, if the namespace has used up the class's hours of this month."""
    limit = class_.spec.limits.accelerator_hours_per_month
    if limit is None or class_.spec.accelerator is None or budget is None or budget.ledger is None:
        return None
    used = sum(budget.ledger.values())
    if used < limit * 3600:
        return None
    renews = _next_month(budget.month)
    message = (
        f"Namespace {owner.namespace!r} has used {used / 3600:.1f} of the {limit} accelerator hours that FineTuneClass "
        f"{class_.name!r} allows it in {budget.month}: 0 are left. The budget renews at {renews:%Y-%m-%dT%H:%M:%SZ}; "
        "the job then continues by itself, or as soon as the class's limits.acceleratorHoursPerMonth is raised."
    )
    return BudgetViolation(stalled(Reason.BUDGET_EXCEEDED, message), renews)


def accounted(
    plan: Plan[FineTuneJobStatus],
    budget: ObservedBudget | None,
    owner: Owner,
    before: FineTuneJobStatus,
    now: datetime,
    *,
    clock_is_behind: bool = False,
) -> Plan[FineTuneJobStatus]:
    """The plan, with what ran since it was counted last in the status and in the ledger.

    Written once a minute while Pods run, and when they end or the job's phase changes; never when nothing ran. By a
    clock that is behind, what was counted until later than now stays counted.
    """
    now = whole_seconds(now)
    usage = before.usage if clock_is_behind else _counted_by_now(before.usage, now)
    plan = replace(plan, status=plan.status.model_copy(update={"usage": usage}))
    if budget is None or before.class_name is None:
        return plan
    running = [pod for pod in budget.pods if pod.end_time is None or pod.end_time > now]
    interval = timedelta(seconds=ENDING_COUNT_SECONDS if any(pod.deleting for pod in running) else COUNT_SECONDS)
    since = _uncounted_since(budget, usage, now)
    if since is None:
        return replace(plan, requeue_at=earliest([plan.requeue_at, now + interval if running else None]))
    moved = plan.status.phase != before.phase
    ended = any(pod.end_time is not None and since < pod.end_time <= now for pod in budget.pods)
    due = since + interval - (EARLY_COUNT if plan.status != before else timedelta(0))
    if not (moved or ended or now >= due):
        return replace(plan, requeue_at=earliest([plan.requeue_at, since + interval]))
    counted = usages(budget, owner.uid, usage, before.class_name, now)
    return replace(
        plan,
        status=plan.status.model_copy(update={"usage": counted[-1]}),
        merge=(*plan.merge, *(ledger_entry(budget.ledger_namespace, owner, usage) for usage in counted)),
        requeue_at=earliest([plan.requeue_at, now + interval if running else None]),
    )


def _counted_by_now(usage: Usage | None, now: datetime) -> Usage | None:
    """The usage; what a wrong clock counted until much later than now is counted on from now."""
    if usage is None or usage.counted_time <= now + timedelta(seconds=COUNT_SECONDS):
        return usage
    return usage.model_copy(update={"counted_time": now})


def usages(budget: ObservedBudget, uid: str, before: Usage | None, class_name: str, now: datetime) -> list[Usage]:
    """The absolute usage of each month with time that `before` does not count yet, oldest first."""
    found: list[Usage] = []
    since = max(_uncounted_since(budget, before, now) or now, now - LONGEST_COUNTED)
    for month, begin, end in _by_month(since, now):
        ran = sum(_accelerator_seconds(pod, begin, end) for pod in budget.pods)
        if ran == 0:
            continue
        base = 0
        if before is not None and (before.month, before.class_name) == (month, class_name):
            base = before.accelerator_seconds
        elif budget.ledger is not None and (budget.month, budget.class_name) == (month, class_name):
            base = budget.ledger.get(uid, 0)
        usage = Usage(month=month, class_name=class_name, accelerator_seconds=base + ran, counted_time=end)
        found.append(usage.over(before))
    return found


def ledger_entry(ledger_namespace: str, owner: Owner, usage: Usage) -> Object:
    """The job's line of the ledger, to be merged. Sixteen ConfigMaps a month hold 100,000 jobs of a namespace."""
    labels = ledger_labels(usage.class_name, owner.namespace, usage.month)
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": {
            "name": f"finetune-usage-{usage.month}-{labels[_ACCOUNT_LABEL]}-{owner.uid[0]}",
            "namespace": ledger_namespace,
            "labels": labels,
            "annotations": {_CLASS_ANNOTATION: usage.class_name, _NAMESPACE_ANNOTATION: owner.namespace},
        },
        "data": {owner.uid: str(usage.accelerator_seconds)},
    }


def month_of(moment: datetime) -> str:
    """The calendar month (UTC) as YYYY-MM."""
    return f"{moment.astimezone(UTC):%Y-%m}"


def ledger_labels(class_name: str, namespace: str, month: str) -> dict[str, str]:
    account = hashlib.sha256(json.dumps([class_name, namespace]).encode()).hexdigest()[:16]
    return {**ALL_LEDGERS, MONTH_LABEL: month, _ACCOUNT_LABEL: account}


def _uncounted_since(budget: ObservedBudget, before: Usage | None, now: datetime) -> datetime | None:
    """The first moment at which a Pod ran and that is not counted yet."""
    starts = [pod.start_time if before is None else max(pod.start_time, before.counted_time) for pod in budget.pods]
    ends = [now if pod.end_time is None else min(pod.end_time, now) for pod in budget.pods]
    return min((start for start, end in zip(starts, ends, strict=True) if start < end), default=None)


def _accelerator_seconds(pod: PodTime, since: datetime, until: datetime) -> int:
    end = until if pod.end_time is None else min(pod.end_time, until)
    return pod.accelerators * max(0, round((end - max(pod.start_time, since)).total_seconds()))


def _by_month(since: datetime, until: datetime) -> Iterator[tuple[str, datetime, datetime]]:
    while since < until:
        month = month_of(since)
        end = min(_next_month(month), until)
        yield month, since, end
        since = end


def first_moment(month: str) -> datetime:
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)


def _next_month(month: str) -> datetime:
    return (first_moment(month) + timedelta(days=32)).replace(day=1)
