"""What a wrong class keeps from starting is made anew once the class is right; what runs is left alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import JOB, PREFLIGHT_REPORT, TRAIN_REPORT, preflight_succeeds

pytestmark = pytest.mark.usefixtures("operator")

RIGHT: Object = {**CLASS, "images": {"trainer": "example.com/trainer:right"}}


@pytest.fixture
def own_class(api: Api) -> Iterator[str]:
    """A class of the test's own, to be wrong in."""
    name = f"own-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, RIGHT)
    yield name
    api.delete("FineTuneClass", name)


def make_wrong(api: Api, name: str, wrong: Object) -> None:
    found = api.patch("FineTuneClass", name, {"spec": wrong})
    generation = found["metadata"]["generation"]
    api.wait("FineTuneClass", name, lambda item: item.get("status", {}).get("observedGeneration") == generation)


def expect_made_anew(api: Api, job: Object, role: str, before: Object) -> Object:
    """Wait for another Job, or preflight Pod, instead of this one; returns the spec of its Pods."""
    kind = "Pod" if role == "preflight" else "Job"

    def current() -> list[Object]:
        return [item for item in api.children_of(job, role, kind) if "deletionTimestamp" not in item["metadata"]]

    def is_another() -> bool:
        return [item["metadata"]["uid"] for item in current()] not in ([], [before["metadata"]["uid"]])

    wait_for(is_another, f"another {role} {kind}")
    (made,) = current()
    spec: Object = made["spec"].get("template", made)["spec"]
    return spec


@pytest.mark.parametrize(
    ("wrong", "right", "read", "expected"),
    [
        (
            {"images": {"trainer": "example.com/trainer:wrong"}},
            {"images": RIGHT["images"]},
            lambda spec: spec["containers"][0]["image"],
            "example.com/trainer:right",
        ),
        (
            {"storage": {"credentialsSecretName": "wrong"}},
            {"storage": CLASS["storage"]},
            lambda spec: next(v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v),
            "s3-credentials",
        ),
        (
            {"scheduling": {"nodeSelector": {"gpu": "wrong"}}},
            {"scheduling": {"nodeSelector": None}},
            lambda spec: spec.get("nodeSelector"),
            None,
        ),
        (
            {"scheduling": {"priorityClassName": "missing"}},
            {"scheduling": {"priorityClassName": None}},
            lambda spec: spec.get("priorityClassName"),
            None,
        ),
        (
            {"resources": {"memory": "4Ti"}},
            {"resources": {"memory": "1Gi"}},
            lambda spec: spec["containers"][0]["resources"]["limits"]["memory"],
            "1Gi",
        ),
    ],
    ids=["image", "Secret", "node selector", "PriorityClass", "memory"],
)
def test_an_attempt_that_has_not_started(
    api: Api, own_class: str, wrong: Object, right: Object, read: Any, expected: Any
) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": own_class})
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.runs(api, pod)
    make_wrong(api, own_class, wrong)
    played.ends(api, pod, PREFLIGHT_REPORT)
    (before,) = api.wait_children(job, "train", "Job")
    assert read(before["spec"]["template"]["spec"]) != expected
    api.patch("FineTuneClass", own_class, {"spec": right})
    assert read(expect_made_anew(api, job, "train", before)) == expected
    old = before["metadata"]["uid"]

    def new_pods() -> list[Object]:
        """Those of the Job before go when the garbage collector, the others come when the Job controller gets to it."""
        pods = api.children_of(job, "train", "Pod")
        return [pod for pod in pods if pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] != old]

    wait_for(lambda: len(new_pods()) == 2, "both Pods of the new Job")
    for pod in new_pods():
        played.runs(api, pod)
    training = api.wait_reason("FineTuneJob", "router", "Training")
    assert training["status"]["attempt"]["number"] == 2
    assert "retries" not in training["status"]["attempt"] or training["status"]["attempt"]["retries"] == 0
    assert training["status"]["attempt"].get("disruptions", 0) == 0
    assert [item["outcome"] for item in training["status"]["endedAttempts"]] == ["Replaced"]


def test_a_preflight_that_has_not_started(api: Api, own_class: str) -> None:
    make_wrong(api, own_class, {"images": {"trainer": "example.com/trainer:wrong"}})
    job = api.create("FineTuneJob", "router", {**JOB, "className": own_class})
    (pod,) = api.wait_children(job, "preflight", "Pod")
    played.waits(api, pod, "ImagePullBackOff", 'Back-off pulling image "example.com/trainer:wrong"')
    api.wait("FineTuneJob", "router", lambda item: stalled(item)[0] == "ImagePullFailed")
    api.patch("FineTuneClass", own_class, {"spec": {"images": RIGHT["images"]}})
    spec = expect_made_anew(api, job, "preflight", pod)
    assert spec["containers"][0]["image"] == "example.com/trainer:right"
    again = api.wait("FineTuneJob", "router", lambda item: stalled(item) == ("", ""))
    assert again["status"]["phase"] == "Validating"


def test_a_run_keeps_the_default_class_that_it_began_with(api: Api, own_class: str) -> None:
    """And hears of its changes, though another one is the default by now."""
    another = f"{own_class}-newer"
    default: Object = {"metadata": {"annotations": {"finetune.dev/is-default-class": "true"}}}
    api.patch("FineTuneClass", own_class, default)
    job = api.create("FineTuneJob", "router", {name: value for name, value in JOB.items() if name != "className"})
    (pod,) = api.wait_children(job, "preflight", "Pod")
    api.wait("FineTuneJob", "router", lambda found: found.get("status", {}).get("className") == own_class)
    api.patch("FineTuneClass", own_class, {"metadata": {"annotations": None}})
    api.create("FineTuneClass", another, CLASS, annotations=default["metadata"]["annotations"])
    try:
        played.ends(api, pod, PREFLIGHT_REPORT)
        (before,) = api.wait_children(job, "train", "Job")
        assert before["spec"]["template"]["spec"]["containers"][0]["image"] == RIGHT["images"]["trainer"]
        make_wrong(api, own_class, {"images": {"trainer": "example.com/trainer:newer"}})
        made = expect_made_anew(api, job, "train", before)
        assert made["containers"][0]["image"] == "example.com/trainer:newer"
    finally:
        api.delete("FineTuneClass", another)


def test_what_runs_is_left_alone(api: Api, own_class: str) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": own_class})
    train = preflight_succeeds(api, job)
    pods = api.wait_children(job, "train", "Pod", 2)
    for pod in pods:
        played.runs(api, pod)
    api.wait_reason("FineTuneJob", "router", "Training")
    make_wrong(api, own_class, {"images": {"trainer": "example.com/trainer:wrong"}})
    for pod in pods:
        played.ends(api, pod, TRAIN_REPORT if pod["metadata"]["name"] in first_of(pods) else "")
    done = api.wait_reason("FineTuneJob", "router", "Succeeded")
    assert condition(done, "Ready")["status"] == "True"
    assert [item["metadata"]["uid"] for item in api.children_of(job, "train", "Job")] == [train["metadata"]["uid"]]


def first_of(pods: list[Object]) -> set[str]:
    """The name of rank 0's Pod."""
    index = "batch.kubernetes.io/job-completion-index"
    return {pod["metadata"]["name"] for pod in pods if pod["metadata"]["annotations"][index] == "0"}


def test_a_class_that_changes_in_what_no_pod_sees_recreates_nothing(api: Api, own_class: str) -> None:
    job = api.create("FineTuneJob", "router", {**JOB, "className": own_class})
    (before,) = api.wait_children(job, "preflight", "Pod")
    make_wrong(api, own_class, {"limits": {"replicas": 3}})
    api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": "yes"}}})
    train = preflight_succeeds(api, job)
    assert train["spec"]["parallelism"] == 2
    uids = [item["metadata"]["uid"] for item in api.children_of(job, "preflight", "Pod")]
    assert uids == [before["metadata"]["uid"]]
