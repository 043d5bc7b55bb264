"""Which Events count, and that they are asked for only while something does not start."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.pods.observe import observe_warnings
from finetune_operator.pods.observed import job_view, pod_view
from finetune_operator.pods.warning_events import WarningEvent, current_warning
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.pod_objects import (
    CREATING,
    GATED,
    JOB_UID,
    NOW,
    POD_UID,
    condition,
    container,
    event,
    job_object,
    pending,
    pod_object,
)

NO_SECRET = 'MountVolume.SetUp failed for volume "storage-credentials" : secret "s3-credentials" not found'
MOUNT = event("FailedMount", NO_SECRET, first="11:58:00", last="11:59:30")


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], None),
        ([MOUNT], NO_SECRET),
        ([event("FailedMount", NO_SECRET, first="11:40:00", last="11:54:00")], NO_SECRET),
        ([event("FailedMount", NO_SECRET, first="11:40:00", last="11:53:59")], None),
        ([MOUNT, event("Pulling", "Pulling image", last="11:59:31", type="Normal")], None),
        ([event("Pulling", "Pulling image", last="11:59:29", type="Normal"), MOUNT], NO_SECRET),
        ([MOUNT, event("Scheduled", "to node-1", last="11:59:40", type="Normal")], NO_SECRET),
        ([MOUNT, event("DNSConfigForming", "nameserver limits exceeded", last="11:59:40")], NO_SECRET),
        ([MOUNT, event("FailedCreatePodSandBox", "no network", last="11:59:40")], "no network"),
        ([event("FailedMount", "the first", last="11:59:10"), event("FailedMount", "newer", last="11:59:20")], "newer"),
        ([event("FailedScheduling", "0/3 nodes")], None),
    ],
    ids=[
        "none",
        "one",
        "repeated six minutes ago",
        "not repeated any more",
        "the volumes are there now",
        "the volumes were there before",
        "it has a node",
        "a word of no weight",
        "another hindrance",
        "the newest counts",
        "old news",
    ],
)
def test_the_newest_event_counts_unless_it_is_old_or_progress_came_later(
    events: list[dict[str, Any]], told: str | None
) -> None:
    found = current_warning(POD_UID, events, NOW)
    assert (found.message if found else None) == told


def test_an_event_of_the_newer_kind_has_its_time_in_its_series() -> None:
    """events.k8s.io/v1, read as core/v1: eventTime and series instead of the two timestamps."""
    newer: dict[str, Any] = {
        **MOUNT,
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": "2026-11-22T11:30:00.123456Z",
        "series": {"count": 9, "lastObservedTime": "2026-11-22T11:59:30.123456Z"},
    }
    assert current_warning(POD_UID, [newer], NOW) is not None
    assert current_warning(POD_UID, [{**newer, "series": None}], NOW) is None


@pytest.mark.parametrize(
    ("job", "pods", "asked"),
    [
        (job_object(), [], [JOB_UID]),
        (job_object(), [pod_object(pending(CREATING))], [POD_UID]),
        (job_object(parallelism=2), [pod_object(pending(CREATING))], [JOB_UID, POD_UID]),
        (job_object(parallelism=2), [pod_object(pending(CREATING))] * 9, [POD_UID] * 4),
        (job_object(), [pod_object({"phase": "Pending", "conditions": [GATED]})], []),
        (job_object(), [pod_object({"phase": "Running", "containerStatuses": [container(running={})]})], []),
        (job_object(creationTimestamp="2026-11-22T11:59:51Z"), [], []),
        (job_object(suspend=True), [], []),
        (job_object(condition("FailureTarget")), [], []),
        (job_object(condition("Complete")), [], []),
    ],
    ids=[
        "no Pod",
        "a Pod that has a node waits",
        "one Pod of two waits",
        "many Pods wait",
        "a Pod without a node tells why itself",
        "runs",
        "is nine seconds old",
        "is suspended by a queue",
        "has failed",
        "is complete",
    ],
)
async def test_events_are_read_only_of_what_does_not_start(
    job: dict[str, Any], pods: list[dict[str, Any]], asked: list[str]
) -> None:
    path = "/api/v1/namespaces/team-a/events"
    kube = FakeKube({f"GET {path}": {"items": [MOUNT], "metadata": {"continue": "more"}}})
    found = await observe_warnings(kube, "team-a", [job_view(job)], [pod_view(pod) for pod in pods], NOW)
    assert [request.query for request in kube.requests] == [
        {"limit": "50", "fieldSelector": f"involvedObject.uid={uid}"} for uid in asked
    ]
    since = NOW - timedelta(minutes=2)
    assert list(found) == [WarningEvent(uid, "FailedMount", NO_SECRET, since) for uid in asked]
