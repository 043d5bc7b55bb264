"""Preflight is a Pod without a Job: no controller but the operator makes another one, and the kubelet is played."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_operator.core.ownership import Owner, metadata
from finetune_operator.finetunejob.objects import preflight_pod_name
from finetune_operator.finetunejob.run_identity import run_digest
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.finetunejobs.webhooks import unanswered_webhook
from tests.integration.operator.jobs import JOB, PREFLIGHT_REPORT
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")

SPEC: Object = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "example.com/trainer:1"}]}
RUN_DIGEST = run_digest(FineTuneJobSpec.model_validate({"runId": "1", **JOB}), 1)


def expect_another_try(api: Api, job: Object, first: Object) -> Object:
    """Wait until the first Pod counts as disrupted, and for another one; returns that."""
    found = api.wait("FineTuneJob", "router", lambda item: item["status"]["preflight"].get("succeeded") is False)
    assert "failure" not in found["status"], "a disruption is no failure"
    assert stalled(found) == ("", "")
    assert "Preflight starts again at" in condition(found, "Ready")["message"]

    def others() -> list[Object]:
        pods = api.children_of(job, "preflight", "Pod")
        return [pod for pod in pods if pod["metadata"]["uid"] != first["metadata"]["uid"]]

    wait_for(lambda: bool(others()), "another preflight Pod")
    (another,) = others()
    assert another["metadata"]["name"] != first["metadata"]["name"]
    return another


def is_removed(api: Api, pod: Object) -> None:
    """By a person, with its node, or by the garbage collector of Pods: nothing of it is left to be read."""
    api.request("DELETE", api.path("Pod", pod["metadata"]["name"]), {"gracePeriodSeconds": 0})


@pytest.mark.parametrize("end", [is_removed, played.is_disrupted], ids=["it is gone", "it was evicted"])
def test_a_preflight_pod_that_the_infrastructure_ended_is_followed_by_another(
    api: Api, end: Callable[[Api, Object], None]
) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    api.wait_reason("FineTuneJob", "router", "Validating")
    played.runs(api, pod)
    end(api, pod)
    another = expect_another_try(api, job, pod)
    played.ends(api, another, PREFLIGHT_REPORT)
    api.wait_children(job, "train", "Job")


def test_a_preflight_pod_is_deleted_while_the_job_is_suspended_and_recreated_after_it(api: Api) -> None:
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    api.wait_reason("FineTuneJob", "router", "Validating")
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    api.wait_reason("FineTuneJob", "router", "Suspended")
    wait_for(lambda: not api.children_of(job, "preflight", "Pod"), "the Pod is gone")
    api.patch("FineTuneJob", "router", {"spec": {"suspend": False}})
    (another,) = api.wait_children(job, "preflight", "Pod")
    assert another["metadata"]["name"] != pod["metadata"]["name"]


def test_what_the_api_server_refuses_is_a_run_that_has_begun(api: Api) -> None:
    """So that its activeDeadlineSeconds end it, however long it is refused."""
    api.create("ResourceQuota", "none", {"hard": {"pods": "0"}})
    wait_for(lambda: "used" in api.get("ResourceQuota", "none").get("status", {}), "the quota is counted")
    api.create("FineTuneJob", "router", JOB)
    refused = api.wait_reason("FineTuneJob", "router", "QuotaExceeded")["status"]
    assert (refused["runId"], refused["phase"]) == ("1", "Validating")
    assert "startTime" in refused
    assert "preflight" not in refused, "there is none"


@pytest.fixture
def unanswered(api: Api) -> Iterator[str]:
    """A webhook that judges every Pod of the namespace, and does not answer; yields its configuration's path."""
    with unanswered_webhook(api, ["CREATE"], ["pods"]) as path:
        yield path


def is_judged(api: Api) -> bool:
    """Whether a Pod can't be created in the namespace now."""
    try:
        api.request("POST", f"{api.path('Pod')}?dryRun=All", {"metadata": {"generateName": "probe-"}, "spec": SPEC})
    except RefusedError as error:
        return error.code == 500
    return False


def test_while_a_webhook_does_not_answer_that_is_what_the_status_says(api: Api, unanswered: str) -> None:
    """The API server answers 500 then, as to what it could do a moment later."""
    wait_for(lambda: is_judged(api), "the API server has heard of the webhook")
    job = api.create("FineTuneJob", "router", JOB)
    told = api.wait_reason("FineTuneJob", "router", "PodRejected")
    assert (told["status"]["runId"], told["status"]["phase"]) == ("1", "Validating")
    message = condition(told, "Ready")["message"]
    assert 'failed calling webhook "sidecars.mesh.example.com"' in message
    assert "Tried again every 30 seconds." in message
    api.request("DELETE", unanswered)
    wait_for(lambda: not is_judged(api), "it is gone")
    api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": "sooner"}}})
    api.wait_children(job, "preflight", "Pod")
    api.wait("FineTuneJob", "router", lambda found: "webhook" not in condition(found, "Ready")["message"])


GATE = "kueue.x-k8s.io/admission"


@pytest.fixture
def gated(api: Api) -> Iterator[None]:
    """Every new Pod of the namespace gets a scheduling gate, as Kueue does it."""
    name, group = f"gate-{api.namespace}", "/apis/admissionregistration.k8s.io/v1"
    gate = f"Object.spec.schedulingGates{{name: '{GATE}'}}"
    change = f"Object{{spec: Object.spec{{schedulingGates: [{gate}]}}}}"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    selector = {"matchLabels": {"kubernetes.io/metadata.name": api.namespace}}
    spec = {
        "matchConstraints": {"resourceRules": rules, "namespaceSelector": selector},
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
    }
    api.request("POST", f"{group}/mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
    binding = {"metadata": {"name": name}, "spec": {"policyName": name}}
    api.request("POST", f"{group}/mutatingadmissionpolicybindings", binding)
    yield
    api.request("DELETE", f"{group}/mutatingadmissionpolicybindings/{name}")
    api.request("DELETE", f"{group}/mutatingadmissionpolicies/{name}")


def gates(api: Api) -> list[str]:
    """Those of a Pod that would be created now."""
    probe = {"metadata": {"generateName": "probe-"}, "spec": SPEC}
    made = api.request("POST", f"{api.path('Pod')}?dryRun=All", probe)
    return [one["name"] for one in made["spec"].get("schedulingGates", [])]


@pytest.mark.usefixtures("gated")
def test_a_preflight_pod_that_a_gate_holds_back_is_not_said_to_check_anything(api: Api) -> None:
    """It takes half a minute: so long a queue may take without a word."""
    wait_for(lambda: gates(api) == [GATE], "the API server has heard of the policy")
    job = api.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    told = api.wait_reason("FineTuneJob", "router", "Queued", 60)
    assert f"the scheduling gate {GATE}" in condition(told, "Ready")["message"]
    assert condition(told, "Stalled")["status"] == "False"
    path = api.path("Pod", pod["metadata"]["name"])
    api.request("PATCH", path, {"spec": {"schedulingGates": None}}, "application/merge-patch+json")
    api.wait("FineTuneJob", "router", lambda found: GATE not in condition(found, "Ready")["message"], 60)


@pytest.fixture
def before(api: Api, operator: OperatorProcess) -> Iterator[Object]:
    """A FineTuneJob at which no operator has looked yet: the test starts it."""
    operator.kill()
    yield api.create("FineTuneJob", "router", JOB)
    operator.kill()
    operator.start()


def child(api: Api, job: Object) -> Object:
    """Metadata of the first try's preflight, as any release names and labels it."""
    owner = Owner("FineTuneJob", api.namespace, "router", job["metadata"]["uid"])
    return metadata(owner, preflight_pod_name(owner, f"1-{RUN_DIGEST}", 1), "preflight")


def test_a_pod_that_a_crash_left_behind_before_its_status_was_written_is_the_first_try(
    api: Api, before: Object, operator: OperatorProcess
) -> None:
    pod = api.request("POST", api.path("Pod"), {"metadata": child(api, before), "spec": SPEC})
    operator.start()
    found = api.wait_reason("FineTuneJob", "router", "Validating")
    assert found["status"]["preflight"] == {"jobName": pod["metadata"]["name"], "try": 1}
    played.ends(api, pod, PREFLIGHT_REPORT)
    api.wait_children(before, "train", "Job")
    assert [one["metadata"]["uid"] for one in api.children_of(before, "preflight", "Pod")] == [pod["metadata"]["uid"]]


@pytest.mark.parametrize("ends_before", [True, False], ids=["has ended", "runs"])
def test_the_preflight_job_of_an_earlier_release_is_honoured(
    api: Api, before: Object, operator: OperatorProcess, ends_before: bool
) -> None:
    """It is what the status names, and the operator is upgraded while it runs or when it has ended."""
    meta = child(api, before)
    template = {"metadata": {name: meta[name] for name in ("labels", "annotations")}, "spec": SPEC}
    spec = {"backoffLimit": 0, "template": template}
    made = api.request("POST", api.path("Job"), {"metadata": meta, "spec": spec})
    (pod,) = api.wait_children(before, "preflight", "Pod")
    played.runs(api, pod)
    status = {"phase": "Validating", "runId": "1", "runNumber": 1, "runDigest": RUN_DIGEST, "className": "cpu"}
    preflight = {"try": 1, "jobName": made["metadata"]["name"]}
    status |= {"startTime": played.MOMENT, "observedGeneration": 1, "preflight": preflight}
    status |= {"storageUri": f"s3://models/finetune/{api.namespace}/router/1-{RUN_DIGEST}-00000000"}
    api.patch("FineTuneJob", "router", {"status": status}, "status")
    if ends_before:
        played.ends(api, pod, PREFLIGHT_REPORT)
        api.wait("Job", made["metadata"]["name"], lambda one: condition(one, "Complete").get("status") == "True")
    operator.start()
    if not ends_before:
        api.wait_reason("FineTuneJob", "router", "Validating")
        played.ends(api, pod, PREFLIGHT_REPORT)
    api.wait_children(before, "train", "Job")
    assert [one["metadata"]["uid"] for one in api.children_of(before, "preflight", "Pod")] == [pod["metadata"]["uid"]]
