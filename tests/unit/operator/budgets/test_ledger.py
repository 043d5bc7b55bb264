"""Accelerator hours: what is counted, when it is written, whom it refuses; nothing is counted twice or lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetuneclass import Accelerator, FineTuneClassSpec, Limits, Storage
from finetune_api.finetunejob import FineTuneJobStatus, Phase, Progress, Usage
from finetune_operator.budgets.ledger import (
    COUNT_SECONDS,
    accounted,
    budget_violation,
    ledger_entry,
    month_of,
    pod_time,
    usages,
)
from finetune_operator.budgets.observe import observe_budget
from finetune_operator.budgets.observed import ObservedBudget, PodTime
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import Plan
from finetune_operator.finetuneclass.resolve import ResolvedClass
from finetune_operator.kube.resources import Object
from finetune_operator.runtime.ledger_cleanup import remove_old_ledgers
from tests.unit.operator.fake_kube import FakeKube

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
OWNER = Owner("FineTuneJob", "team-a", "router", "3f0e8c1a-0000-4000-8000-000000000001")
LEDGERS = "/api/v1/namespaces/finetune-system/configmaps"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def pod(start: float, end: float | None = None, *, accelerators: int = 4, deleting: bool = False) -> PodTime:
    return PodTime(accelerators, at(start), None if end is None else at(end), deleting)


def budget(*pods: PodTime, ledger: dict[str, int] | None = None) -> ObservedBudget:
    return ObservedBudget("finetune-system", pods, "2026-11", "gpu", ledger)


def used(seconds: int, until: float, month: str = "2026-11", class_name: str = "gpu") -> Usage:
    return Usage(month=month, class_name=class_name, accelerator_seconds=seconds, counted_time=at(until))


def status(phase: Phase = "Training", usage: Usage | None = None, step: int = 0) -> FineTuneJobStatus:
    progress = Progress(step=step, total_steps=1000, percent=0, last_updated_time=NOON)
    return FineTuneJobStatus(phase=phase, class_name="gpu", usage=usage, progress=progress)


def class_(hours: int | None, accelerator: Accelerator | None = Accelerator()) -> ResolvedClass:  # noqa: B008
    storage = Storage(bucket="models", credentials_secret_name="s3")
    limits = Limits(accelerator_hours_per_month=hours)
    return ResolvedClass("gpu", 1, FineTuneClassSpec(storage=storage, limits=limits, accelerator=accelerator), "u-gpu")


# What a Pod ran.


def kubelet_pod(state: Object, *, limits: Object | None = None, deleted: str | None = None) -> Object:
    asked = {"memory": "4Gi", "nvidia.com/gpu": "8"} if limits is None else limits
    return {
        "metadata": {"name": "p", **({"deletionTimestamp": deleted} if deleted else {})},
        "spec": {"containers": [{"name": "mesh"}, {"name": "trainer", "resources": {"limits": asked}}]},
        "status": {
            "containerStatuses": [
                {"name": "mesh", "state": {"running": {"startedAt": "2026-11-22T11:00:00Z"}}},
                {"name": "trainer", "state": state},
            ]
        },
    }


STARTED, ENDED = "2026-11-22T12:00:00Z", "2026-11-22T12:01:00Z"
RUNNING = {"running": {"startedAt": STARTED}}


@pytest.mark.parametrize(
    ("found", "time"),
    [
        (kubelet_pod({"waiting": {"reason": "ContainerCreating"}}), None),
        (kubelet_pod({}), None),
        ({"metadata": {}, "spec": {"containers": [{"name": "trainer"}]}}, None),
        (kubelet_pod(RUNNING, limits={"memory": "4Gi", "cpu": "8"}), None),
        (kubelet_pod(RUNNING, limits={"nvidia.com/gpu": "0"}), None),
        (kubelet_pod(RUNNING), pod(0, accelerators=8)),
        (kubelet_pod(RUNNING, limits={"amd.com/gpu": "2", "example.com/odd": "1k"}), pod(0, accelerators=2)),
        (kubelet_pod({"terminated": {"startedAt": STARTED, "finishedAt": ENDED}}), pod(0, 60, accelerators=8)),
        (kubelet_pod({"terminated": {"startedAt": None, "finishedAt": None}}), None),
        (kubelet_pod(RUNNING, deleted=ENDED), pod(0, 60, accelerators=8, deleting=True)),
        (
            kubelet_pod({"terminated": {"startedAt": STARTED, "finishedAt": STARTED}}, deleted=ENDED),
            pod(0, 0, accelerators=8, deleting=True),
        ),
    ],
)
def test_a_pods_time_is_that_of_the_container_that_has_the_accelerators(found: Object, time: PodTime | None) -> None:
    assert pod_time(found) == time


# What is counted.


@pytest.mark.parametrize(
    ("pods", "before", "now", "expected"),
    [
        ([], None, 100, []),
        ([pod(0)], None, 0, []),
        ([pod(0)], None, 100, [used(400, 100)]),
        ([pod(0), pod(10, 30)], None, 100, [used(480, 100)]),
        ([pod(0, 60), pod(0, 60)], None, 100, [used(480, 100)]),
        ([pod(0)], used(400, 100), 160, [used(640, 160)]),
        ([pod(0, 100)], used(400, 100), 160, []),
        ([pod(0, 100), pod(150)], used(400, 100), 160, [used(440, 160)]),
        # A node's clock that is ahead.
        ([pod(0, 105)], None, 100, [used(400, 100)]),
        ([pod(0, 105)], used(400, 100), 110, [used(420, 110)]),
        ([pod(130)], None, 100, []),
        # The operator was down over the end of the Pods.
        ([pod(0, 3600)], used(400, 100), 90_000, [used(14_400, 90_000)]),
    ],
)
def test_accelerators_times_the_seconds_since_they_were_counted_last(
    pods: list[PodTime], before: Usage | None, now: float, expected: list[Usage]
) -> None:
    assert usages(budget(*pods), OWNER.uid, before, "gpu", at(now)) == expected


def test_each_month_gets_its_own_part() -> None:
    running = replace(pod(0), start_time=datetime(2026, 10, 31, 23, 59, tzinfo=UTC))
    before = Usage(
        month="2026-10",
        class_name="gpu",
        accelerator_seconds=1000,
        counted_time=datetime(2026, 10, 31, 23, 59, 30, tzinfo=UTC),
    )
    now = datetime(2026, 12, 1, 0, 0, 10, tzinfo=UTC)
    found = usages(budget(running), OWNER.uid, before, "gpu", now)
    assert [(usage.month, usage.accelerator_seconds) for usage in found] == [
        ("2026-10", 1000 + 4 * 30),
        ("2026-11", 4 * 30 * 86_400),
        ("2026-12", 4 * 10),
    ]
    assert found[-1].counted_time == now


def test_a_job_that_comes_back_to_a_class_goes_on_from_what_it_used_of_it() -> None:
    of_another = used(7200, 0, class_name="small")
    observed = budget(pod(0), ledger={OWNER.uid: 5000, "another": 1})
    assert usages(observed, OWNER.uid, of_another, "gpu", at(10)) == [used(5040, 10)]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20), st.lists(st.booleans(), min_size=20, max_size=20))
def test_counted_often_or_once_with_writes_that_get_lost_it_is_the_same(steps: list[int], lost: list[bool]) -> None:
    pods, now, kept = [pod(5, 300), pod(90), pod(120, 121)], 0, None
    for step, is_lost in zip(steps, lost, strict=False):
        now += step
        found = usages(budget(*pods), OWNER.uid, kept, "gpu", at(now))
        if found and not is_lost:
            kept = found[-1]
    once = usages(budget(*pods), OWNER.uid, None, "gpu", at(now))
    last = usages(budget(*pods), OWNER.uid, kept, "gpu", at(now))
    total = last[-1].accelerator_seconds if last else kept.accelerator_seconds if kept else 0
    assert total == (once[-1].accelerator_seconds if once else 0)


# When it is written.


@pytest.mark.parametrize(
    ("pods", "before", "after", "now", "written", "again"),
    [
        ([], status("Queued"), status("Queued"), 0, None, None),
        ([pod(0)], status("Queued"), status("Training"), 3, 12, 3 + COUNT_SECONDS),
        ([pod(0)], status(usage=used(12, 3)), status(), 30, None, 3 + COUNT_SECONDS),
        ([pod(0)], status(usage=used(12, 3)), status(), 63, 252, 63 + COUNT_SECONDS),
        # A status that is written anyway takes it along, but only when it is nearly due.
        ([pod(0)], status(usage=used(12, 3)), status(step=7), 30, None, 3 + COUNT_SECONDS),
        ([pod(0)], status(usage=used(12, 3)), status(step=7), 55, 220, 55 + COUNT_SECONDS),
        # An end is written at once: the Pod may be gone the next time.
        ([pod(0, 20), pod(0)], status(usage=used(12, 3)), status(), 21, 12 + 68 + 72, 21 + COUNT_SECONDS),
        ([pod(0, 20)], status(usage=used(80, 20)), status("Succeeded"), 21, None, None),
        ([pod(0)], status(usage=used(12, 3)), status("Suspended"), 20, 80, 20 + COUNT_SECONDS),
        ([pod(0, 120, deleting=True)], status("Suspended", used(80, 20)), status("Suspended"), 30, 120, 40),
        ([pod(0, 120, deleting=True)], status("Suspended", used(80, 20)), status("Suspended"), 25, None, 30),
        ([pod(0, 120, deleting=True)], status("Suspended", used(480, 120)), status("Suspended"), 900, None, None),
        # Just started, beside one of long ago.
        ([pod(0, 60), pod(7200)], status("Queued", used(240, 60)), status("Queued"), 7200, None, 7200 + COUNT_SECONDS),
    ],
)
def test_once_a_minute_and_at_each_change(
    pods: list[PodTime],
    before: FineTuneJobStatus,
    after: FineTuneJobStatus,
    now: float,
    written: int | None,
    again: float | None,
) -> None:
    # What the plan makes of usage does not matter.
    plan = accounted(Plan(status=after), budget(*pods), OWNER, before, at(now + 0.4))
    assert plan.requeue_at == (None if again is None else at(again))
    if written is None:
        assert (plan.status.usage, plan.merge) == (before.usage, ())
    else:
        assert plan.status.usage == used(written, now)
        (entry,) = plan.merge
        assert entry["data"] == {OWNER.uid: str(written)}


@pytest.mark.parametrize("observed", [None, budget(pod(0))])
def test_without_a_class_or_an_accelerator_usage_stays_what_it_was(observed: ObservedBudget | None) -> None:
    before = FineTuneJobStatus(usage=used(100, 0))
    step = Plan(status=FineTuneJobStatus(run_id="2"), merge=({"kind": "other"},), requeue_at=at(5))
    assert accounted(step, observed, OWNER, before, at(600)) == replace(
        step, status=step.status.model_copy(update={"usage": before.usage})
    )


def test_a_plan_applied_to_its_own_result_writes_nothing() -> None:
    observed, now = budget(pod(0), pod(0, 30)), at(90)
    first = accounted(Plan(status=status()), observed, OWNER, status("Queued"), now)
    second = accounted(Plan(status=first.status), observed, OWNER, first.status, now)
    assert (second.merge, second.status) == ((), first.status)


# The ledger.


def test_a_ledger_is_of_one_class_namespace_and_month_and_a_tenant_can_not_choose_its_name() -> None:
    entry = ledger_entry("finetune-system", OWNER, used(90, 0))
    assert entry["metadata"]["namespace"] == "finetune-system"
    assert entry["metadata"]["annotations"] == {"finetune.dev/class": "gpu", "finetune.dev/namespace": "team-a"}
    others = [
        ledger_entry("finetune-system", OWNER, used(90, 0, class_name="small")),
        ledger_entry("finetune-system", OWNER, used(90, 0, month="2026-12")),
        ledger_entry("finetune-system", replace(OWNER, namespace="team-b"), used(90, 0)),
        ledger_entry("finetune-system", replace(OWNER, uid="8" + OWNER.uid[1:]), used(90, 0)),
    ]
    names = {item["metadata"]["name"] for item in [entry, *others]}
    assert len(names) == 5
    assert all(len(name) < 64 for name in names)
    assert ledger_entry("finetune-system", replace(OWNER, name="other"), used(90, 0)) == entry


@pytest.mark.parametrize(
    ("hours", "ledger", "left"),
    [
        (None, {"a": 10**9}, True),
        (2, {}, True),
        (2, {"a": 3600, "b": 3599}, True),
        (2, {"a": 3600, "b": 3600}, False),
        (2, {"a": 9000}, False),
        (0, {}, False),
        (2, None, True),
    ],
)
def test_no_attempt_starts_once_the_hours_are_used_up(
    hours: int | None, ledger: dict[str, int] | None, left: bool
) -> None:
    refused = budget_violation(budget(ledger=ledger), OWNER, class_(hours))
    assert (refused is None) == left
    assert budget_violation(budget(ledger=ledger), OWNER, class_(hours, accelerator=None)) is None


def test_a_refusal_says_what_is_used_and_left_and_when_it_renews() -> None:
    refused = budget_violation(budget(ledger={"a": 9000}), OWNER, class_(2))
    assert refused is not None
    assert refused.renews == datetime(2026, 12, 1, tzinfo=UTC)
    assert (refused.readiness.reason, refused.readiness.stalled) == ("BudgetExceeded", True)
    for told in ("'team-a'", "2.5 of the 2 accelerator hours", "0 are left", "renews at 2026-12-01T00:00:00Z", "'gpu'"):
        assert told in refused.readiness.message


def test_a_budget_of_december_renews_in_january() -> None:
    refused = budget_violation(replace(budget(ledger={}), month="2026-12"), OWNER, class_(0))
    assert refused is not None and refused.renews == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours_of", "job", "pods", "read"),
    [
        (class_(2), status("Validating"), [], True),
        (class_(None), status("Retrying"), [kubelet_pod(RUNNING)], True),
        (class_(2), status("Training"), [kubelet_pod(RUNNING)], True),
        (class_(2), status("Succeeded"), [kubelet_pod(RUNNING)], False),
        (class_(2, None), status("Training"), [kubelet_pod(RUNNING)], False),
        (class_(2, None), status("Queued"), [], None),
        (class_(None), status("Queued"), [], False),
    ],
)
async def test_the_ledger_is_read_where_something_depends_on_it(
    hours_of: ResolvedClass, job: FineTuneJobStatus, pods: list[Object], read: bool | None
) -> None:
    kube = FakeKube({f"GET {LEDGERS}": {"items": [{"data": {"a": "5", "b": "6"}}, {"data": {"c": "7"}}, {}]}})
    found = await observe_budget(kube, "finetune-system", OWNER, hours_of, job, pods)
    assert (found is None) == (read is None)
    assert len(kube.requests) == bool(read)
    if found is not None:
        assert found.ledger == ({"a": 5, "b": 6, "c": 7} if read else None)
        assert len(found.pods) == len(pods)


@pytest.mark.parametrize("odd", ["many", "", "-5", "1.5", "9" * 5000])
async def test_what_is_no_number_in_the_ledger_stops_nobody(odd: str) -> None:
    kube = FakeKube({f"GET {LEDGERS}": {"items": [{"data": {"a": "5", "b": odd}}, {"data": None}]}})
    found = await observe_budget(kube, "finetune-system", OWNER, class_(2), status(), [])
    assert found is not None
    assert found.ledger == {"a": 5}


async def test_a_job_that_trains_and_is_counted_does_not_read_it_each_time() -> None:
    now = datetime.now(UTC)
    counted = Usage(month=month_of(now), class_name="gpu", accelerator_seconds=1, counted_time=now)
    kube = FakeKube()
    await observe_budget(kube, "finetune-system", OWNER, class_(2), status(usage=counted), [kubelet_pod(RUNNING)])
    assert kube.requests == []


async def test_ledgers_go_when_their_month_and_the_one_after_it_are_over() -> None:
    def ledger(month: str) -> dict[str, Any]:
        return {"metadata": {"name": month, "uid": f"uid-{month}", "labels": {"finetune.dev/month": month}}}

    months = ["2025-11", "2025-12", "2026-01", "2026-02", "2026-03"]
    kube = FakeKube({f"GET {LEDGERS}": {"items": [ledger(month) for month in months]}})
    await remove_old_ledgers(kube, "finetune-system", datetime(2026, 2, 1, tzinfo=UTC))
    assert kube.writes == [f"DELETE {LEDGERS}/2025-11", f"DELETE {LEDGERS}/2025-12"]
    selector = kube.requests[0].query["labelSelector"]
    assert "finetune.dev/role=usage" in selector


def test_a_pod_of_a_node_whose_clock_says_1970_is_no_bill_of_decades() -> None:
    since_1970 = PodTime(4, datetime(1970, 1, 1, tzinfo=UTC), None, False)
    found = usages(budget(since_1970), OWNER.uid, None, "gpu", NOON)
    assert [usage.month for usage in found] == ["2026-09", "2026-10", "2026-11"]


@pytest.mark.parametrize(
    ("started", "finished", "seconds"),
    [
        ("1970-01-01T00:00:07Z", None, None),
        ("1970-01-01T00:00:07Z", ENDED, 60),
        ("1970-01-01T00:00:07Z", "1970-01-01T00:00:37Z", 30),
        ("2026-11-22T11:59:00Z", "2026-11-22T11:58:00Z", 0),
    ],
    ids=["it runs", "the clock was put right meanwhile", "it is wrong still", "it was put back meanwhile"],
)
def test_a_pod_has_accelerators_no_earlier_than_it_was_made(
    started: str, finished: str | None, seconds: int | None
) -> None:
    """A node's clock that is behind: nothing is charged for the time before the Pod, and what it ran is."""
    state = {"startedAt": started}
    found = kubelet_pod({"terminated": {**state, "finishedAt": finished}} if finished else {"running": state})
    found["metadata"]["creationTimestamp"] = STARTED
    assert pod_time(found) == pod(0, seconds, accelerators=8)


def test_adapters_for_rdma_are_no_accelerators() -> None:
    found = kubelet_pod(RUNNING, limits={"nvidia.com/gpu": "8", "rdma/hca": "64"})
    assert pod_time(found, {"rdma/hca"}) == pod(0, accelerators=8)


def test_a_clock_that_is_behind_takes_back_nothing_that_was_counted() -> None:
    """The next look by a right one would charge the same hours again."""
    before = status(usage=used(100, 0))
    slow = accounted(Plan(status=before), budget(pod(-25)), OWNER, before, at(-20 * 86400), clock_is_behind=True)
    assert (slow.status.usage, slow.merge) == (before.usage, ())
    right = accounted(Plan(status=slow.status), budget(pod(-25)), OWNER, slow.status, at(60))
    assert right.status.usage == used(340, 60)


def test_what_a_wrong_clock_counted_into_the_future_is_counted_on_from_now() -> None:
    before = status(usage=used(100, 365 * 86400))
    mended = accounted(Plan(status=status()), budget(pod(0)), OWNER, before, at(0)).status
    assert mended.usage == used(100, 0)
    assert accounted(Plan(status=status()), budget(pod(0)), OWNER, mended, at(60)).status.usage == used(340, 60)
