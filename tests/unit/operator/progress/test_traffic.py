"""What gateways report of canaries: who may, what they are told, and what is remembered."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from finetune_api.modeldeployment import MOST_SOURCES, CanaryStatus, TrafficReport, TrafficSource
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.references import ObjectKey
from finetune_operator.progress.traffic import COUNT_SECONDS, PublishedTraffic, TrafficStore
from tests.unit.operator.pod_objects import controlled_by
from tests.unit.operator.progress.reporting import POD, POD_PATH, REPORT, Endpoint
from tests.unit.operator.states import NOW

PATH = "/v1alpha1/namespaces/team-a/modeldeployments/router/traffic"
OWNER = ObjectKey("ModelDeployment", "team-a", "router")
SETS = "GET /apis/apps/v1/namespaces/team-a/replicasets"
DEPLOYMENT = "GET /apis/apps/v1/namespaces/team-a/deployments/router-gateway-1"
LABELS = {"finetune.dev/owner-uid": "uid-of-router", "finetune.dev/role": "gateway"}
CANARY = CanaryStatus(
    revision="sha256:bb",
    model=ModelSource(uri="s3://models/next"),
    phase="Analysing",
    phase_time=NOW,
    percent=5,
    split="step-1",
    sources=[TrafficSource(source="a" * 32, sequence=7)],
)


def report(sequence: int = 8, errors: int = 0, source: str = "a" * 32, split: str = "step-1") -> dict[str, Any]:
    batch = {"sequence": sequence, "stable": {"requests": 9}, "canary": {"requests": 1, "errors": errors}}
    return {"source": source, "split": split, "batch": batch}


def is_a_gateway(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """The token is that of a gateway's Pod; returns its objects, to be spoilt."""
    pod = {"metadata": {**POD["metadata"], "labels": dict(LABELS)}}
    pod["metadata"]["ownerReferences"] = [controlled_by("ReplicaSet", "router-gateway-1-x", "uid-of-the-set")]
    of_set = {"name": "router-gateway-1-x", "uid": "uid-of-the-set"}
    of_set |= {"ownerReferences": [controlled_by("Deployment", "router-gateway-1", "uid-of-the-deployment")]}  # type: ignore[dict-item]
    deployment = {
        "name": "router-gateway-1",
        "namespace": "team-a",
        "uid": "uid-of-the-deployment",
        "labels": dict(LABELS),
        "annotations": {"finetune.dev/owner": "ModelDeployment/router"},
        "ownerReferences": [controlled_by("ModelDeployment", "router", "uid-of-router")],
    }
    found = {"pod": pod["metadata"], "set": of_set, "deployment": deployment}
    endpoint.kube.answers[POD_PATH] = pod
    endpoint.kube.answers[SETS] = {"items": [{"metadata": of_set}]}
    endpoint.kube.answers[DEPLOYMENT] = {"metadata": deployment}
    return found


async def test_a_gateway_is_told_what_the_status_says_and_what_of_its_own_is_counted(endpoint: Endpoint) -> None:
    is_a_gateway(endpoint)
    assert (await endpoint.post(report(), PATH))[0] == 503, "the status has not been read"
    assert endpoint.notified == [(OWNER, 0.0)]
    endpoint.traffic.publish(OWNER, CANARY)
    split = {"id": "step-1", "salt": "sha256:bb", "percent": 5}
    assert await endpoint.post(report(), PATH) == (200, {"split": split, "acknowledged": 7})
    assert endpoint.notified[1:] == [(OWNER, COUNT_SECONDS)]
    (found,) = endpoint.traffic.reports(OWNER)
    assert found == TrafficReport.model_validate_json(json.dumps(report()))
    await endpoint.post(report(errors=1), PATH)
    assert endpoint.notified[2:] == [(OWNER, 0.0)], "errors are looked at at once"
    endpoint.traffic.publish(OWNER, None)
    assert await endpoint.post(report(), PATH) == (200, {"split": None, "acknowledged": None})


async def test_a_report_of_another_step_is_answered_and_not_kept(endpoint: Endpoint) -> None:
    is_a_gateway(endpoint)
    endpoint.traffic.publish(OWNER, CANARY)
    assert (await endpoint.post(report(split="step-0"), PATH))[0] == 200
    assert endpoint.traffic.reports(OWNER) == ()


@pytest.mark.parametrize(
    ("which", "change"),
    [
        ("pod", {"labels": {}}),
        ("pod", {"labels": {**LABELS, "finetune.dev/role": "serve"}}),
        ("pod", {"labels": {**LABELS, "finetune.dev/owner-uid": "uid-of-another"}}),
        ("set", {"uid": "uid-of-another"}),
        ("set", {"ownerReferences": [controlled_by("Deployment", "router-gateway-1", "uid-of-a-successor")]}),
        ("set", {"ownerReferences": []}),
        ("deployment", {"labels": {**LABELS, "finetune.dev/role": "serve"}}),
        ("deployment", {"annotations": {"finetune.dev/owner": "ModelDeployment/another"}}),
        ("deployment", {"ownerReferences": []}),
        ("deployment", {"ownerReferences": [controlled_by("FineTuneJob", "router", "uid-of-router")]}),
    ],
)
async def test_a_pod_that_is_no_gateway_of_ours_is_refused(
    endpoint: Endpoint, which: str, change: dict[str, Any]
) -> None:
    endpoint.traffic.publish(OWNER, CANARY)
    is_a_gateway(endpoint)[which] |= copy.deepcopy(change)
    assert (await endpoint.post(report(), PATH))[0] == 401
    assert endpoint.traffic.reports(OWNER) == ()


async def test_a_pod_that_trains_reports_no_traffic(endpoint: Endpoint) -> None:
    endpoint.traffic.publish(OWNER, CANARY)
    assert (await endpoint.post(report(), PATH))[0] == 403, "a Pod that trains"


async def test_a_gateway_reports_for_no_other_deployment_and_no_job(endpoint: Endpoint) -> None:
    is_a_gateway(endpoint)
    assert (await endpoint.post(report(), PATH.replace("router", "another")))[0] == 403
    job = "/v1alpha1/namespaces/team-a/finetunejobs/router/attempts/router-gateway-1"
    assert (await endpoint.post(REPORT, job))[0] == 403


@pytest.mark.parametrize(
    "wrong",
    [b"nonsense", {**report(), "source": "x"}, report(sequence=0), {**report(), "batch": {"sequence": 1}}],
)
async def test_what_is_no_report_is_refused(endpoint: Endpoint, wrong: Any) -> None:
    is_a_gateway(endpoint)
    endpoint.traffic.publish(OWNER, CANARY)
    assert (await endpoint.post(wrong, PATH))[0] == 400


def test_what_is_remembered_is_bounded_and_passes() -> None:
    now = 0.0
    store = TrafficStore(lambda: now)
    for number in range(MOST_SOURCES + 5):
        store.put(OWNER, TrafficReport.model_validate(report(source=f"{number:032x}")))
    assert len(store.reports(OWNER)) == MOST_SOURCES
    now = 61.0
    assert store.reports(OWNER) == ()
    assert store.put(OWNER, TrafficReport(source="a" * 32, split="step-1")) is None, "nothing was counted"
    store.publish(OWNER, CANARY.model_copy(update={"split": ""}))
    assert store.published(OWNER) == PublishedTraffic(), "its Pods start"
