"""Accelerator hours of a namespace and month: counted from what ran, kept over deaths, refused when used up."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import urllib3

from e2e.cluster.components.control_plane import ControlPlane
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import JOB, PREFLIGHT_REPORT, preflight_succeeds
from tests.integration.operator.process import OperatorProcess

ACCELERATORS, PODS = 64, 16
"""Of each of a job's Pods, and how many these are: an hour of the budget is used up in four seconds."""
PLAYED_SECONDS = 4
"""How long the Pods have run when the kubelet says that they do: they can't have started before they were made."""
WIDE_JOB: Object = {**JOB, "parallelism": {"nodes": PODS}}


@pytest.fixture
def killed(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator, which runs again at the end whatever the test did."""
    yield operator
    if not operator.is_running():
        operator.start()


@pytest.fixture
def budgeted(api: Api, operator: OperatorProcess) -> Iterator[str]:
    """A class with accelerators, of which a namespace may use one hour a month."""
    name = f"gpu-{api.namespace}"
    accelerator = {"resourceName": "example.com/gpu", "countPerNode": ACCELERATORS}
    limits = {"acceleratorHoursPerMonth": 1, "nodes": PODS}
    api.create("FineTuneClass", name, {**CLASS, "accelerator": accelerator, "limits": limits})
    yield name
    api.delete("FineTuneClass", name)


@pytest.fixture
def ledgers(cluster: ControlPlane, api: Api) -> Api:
    """The operator's own namespace."""
    return Api(cluster, "default")


def entries(ledgers: Api, api: Api) -> dict[str, int]:
    """Accelerator seconds by the jobs' UIDs, of this test's namespace."""
    found = ledgers.items("ConfigMap", "finetune.dev/role=usage")
    mine = [item for item in found if item["metadata"]["annotations"]["finetune.dev/namespace"] == api.namespace]
    return {uid: int(seconds) for item in mine for uid, seconds in item["data"].items()}


def run_a_while(api: Api, job: Object, pods: int = PODS) -> datetime:
    """Play the kubelet: the Pods of the attempt have run for a while; returns since when."""
    preflight_succeeds(api, job)
    started = are_running(api, api.wait_children(job, "train", "Pod", pods))
    api.wait_reason("FineTuneJob", job["metadata"]["name"], "Training")
    return started


def are_running(api: Api, pods: list[Object], node_clock: str | None = None) -> datetime:
    """Pods that run since the last of them was made, which is a while ago; returns since when.

    `node_clock`: what their nodes took for that moment.
    """
    started = max(datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in pods)
    time.sleep(max(0.0, (started + timedelta(seconds=PLAYED_SECONDS) - datetime.now(UTC)).total_seconds()))
    for pod in pods:
        container = {"name": "trainer", "image": "", "imageID": "", "ready": False, "restartCount": 0}
        state = {"running": {"startedAt": node_clock or f"{started:%Y-%m-%dT%H:%M:%SZ}"}}
        status = {"phase": "Running", "containerStatuses": [{**container, "state": state}]}
        api.patch("Pod", pod["metadata"]["name"], {"status": status}, "status")
    return started


def test_pods_are_counted_whatever_somebody_makes_of_their_labels(
    api: Api, operator: OperatorProcess, budgeted: str, ledgers: Api
) -> None:
    """By the UID of their Job: below Kubernetes 1.30 no policy protects labels."""
    router = api.create("FineTuneJob", "router", {**WIDE_JOB, "className": budgeted})
    preflight_succeeds(api, router)
    pods = api.wait_children(router, "train", "Pod", PODS)
    changes = ({"finetune.dev/role": "preflight"}, {"finetune.dev/owner-uid": None, "finetune.dev/role": None})
    for pod, labels in zip(pods, itertools.cycle(changes), strict=False):
        api.patch("Pod", pod["metadata"]["name"], {"metadata": {"labels": labels}})
    started = are_running(api, pods)
    usage = api.wait("FineTuneJob", "router", lambda found: "usage" in found["status"])["status"]["usage"]
    ran = round((datetime.fromisoformat(usage["countedTime"]) - started).total_seconds())
    assert usage["acceleratorSeconds"] == PODS * ACCELERATORS * ran


def test_a_node_whose_clock_says_1970_is_charged_for_what_its_pods_ran(
    api: Api, operator: OperatorProcess, budgeted: str
) -> None:
    router = api.create("FineTuneJob", "router", {**WIDE_JOB, "className": budgeted})
    preflight_succeeds(api, router)
    are_running(api, pods := api.wait_children(router, "train", "Pod", PODS), "1970-01-01T00:00:07Z")
    usage = api.wait("FineTuneJob", "router", lambda found: "usage" in found["status"])["status"]["usage"]
    made = [datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in pods]
    ran = sum(round((datetime.fromisoformat(usage["countedTime"]) - moment).total_seconds()) for moment in made)
    assert usage["acceleratorSeconds"] == ACCELERATORS * ran


def test_hours_are_counted_survive_the_job_and_the_operator_and_refuse_the_next_attempt(
    api: Api, killed: OperatorProcess, budgeted: str, ledgers: Api
) -> None:
    spec = {**WIDE_JOB, "className": budgeted}
    first = api.create("FineTuneJob", "first", spec)
    uid = first["metadata"]["uid"]
    started = run_a_while(api, first)
    usage = api.wait("FineTuneJob", "first", lambda found: "usage" in found["status"])["status"]["usage"]
    assert (usage["className"], usage["month"]) == (budgeted, f"{datetime.now(UTC):%Y-%m}")
    counted = datetime.fromisoformat(usage["countedTime"])
    ran = round((counted - started).total_seconds())
    assert usage["acceleratorSeconds"] == PODS * ACCELERATORS * ran
    assert entries(ledgers, api) == {uid: usage["acceleratorSeconds"]}

    def counter() -> float | None:
        """Which follows the status."""
        text = urllib3.request("GET", killed.metrics_url, timeout=10).data.decode()
        found = re.search(rf'finetune_accelerator_seconds_total{{namespace="{api.namespace}"}} (\S+)', text)
        return None if found is None else float(found[1])

    wait_for(lambda: counter() is not None, "the metric counts it, too")
    assert counter() == usage["acceleratorSeconds"]

    killed.kill()
    api.delete("FineTuneJob", "first")
    second = api.create("FineTuneJob", "second", spec)
    killed.start()
    preflight = api.wait_children(second, "preflight", "Pod")
    assert preflight, "data may be looked at without a budget"
    refused(api, second)
    assert entries(ledgers, api)[uid] >= usage["acceleratorSeconds"]

    api.patch("FineTuneClass", budgeted, {"spec": {"limits": {"acceleratorHoursPerMonth": 1000}}})
    api.wait_children(second, "train", "Job")
    api.wait_reason("FineTuneJob", "second", "Queued")


def refused(api: Api, job: Object) -> None:
    """The preflight succeeds, and no attempt starts."""
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.ends(api, pod, PREFLIGHT_REPORT)
    found = api.wait("FineTuneJob", job["metadata"]["name"], lambda item: stalled(item)[0] == "BudgetExceeded")
    message = stalled(found)[1]
    now = datetime.now(UTC)
    renews = (now.replace(day=1) + timedelta(days=32)).replace(day=1)
    for told in (api.namespace, "of the 1 accelerator hours", "0 are left", f"renews at {renews:%Y-%m-%d}T00:00:00Z"):
        assert told in message
    assert api.children_of(job, "train", "Job") == []


def test_without_an_accelerator_nothing_is_counted(api: Api, operator: OperatorProcess, ledgers: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    run_a_while(api, job, 2)
    assert "usage" not in api.get("FineTuneJob", "router")["status"]
    assert entries(ledgers, api) == {}


def test_a_suspended_job_uses_nothing_more(api: Api, operator: OperatorProcess, budgeted: str, ledgers: Api) -> None:
    job = api.create("FineTuneJob", "router", {**WIDE_JOB, "className": budgeted})
    run_a_while(api, job)
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    wait_for(lambda: not api.children_of(job, "train", "Pod"), "the Pods are gone")
    api.wait_reason("FineTuneJob", "router", "Suspended")
    used = entries(ledgers, api)
    generation = api.patch("FineTuneJob", "router", {"spec": {"ttlSecondsAfterFinished": 86400}})["metadata"][
        "generation"
    ]
    seen = api.wait("FineTuneJob", "router", lambda found: found["status"]["observedGeneration"] == generation)
    assert used == {job["metadata"]["uid"]: seen["status"]["usage"]["acceleratorSeconds"]}
    assert entries(ledgers, api) == used
    assert PODS * ACCELERATORS * PLAYED_SECONDS <= used[job["metadata"]["uid"]] < PODS * ACCELERATORS * 120
