"""What a tenant with the chart's edit role makes by hand is nobody's child, whatever its labels and messages say."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import yaml

from e2e.cluster.binaries import binaries
from e2e.cluster.components.control_plane import ControlPlane
from e2e.cluster.machine.commands import run
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.pod_contracts.outcome import EvaluationReport, PreflightReport, TrainReport
from finetune_api.pod_contracts.termination_message import to_termination_message
from finetune_operator.core.ownership import Owner
from finetune_operator.finetunejob.objects import preflight_pod_name
from finetune_operator.finetunejob.run_identity import run_key
from tests.integration.crds import CRDS
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, wait_for
from tests.integration.operator.finetunejobs.test_progress import report, run_configuration, token
from tests.integration.operator.jobs import (
    DEPLOYMENT,
    EVALUATION,
    JOB,
    LINE_7,
    LOST_PEER,
    NETWORK_FAILURE,
    PREFLIGHT_REPORT,
    RESULT,
    TRAIN_REPORT,
    by_index,
    evaluation_report,
    starts_training,
    trains,
)
from tests.integration.operator.process import OperatorProcess

pytestmark = pytest.mark.usefixtures("operator")

TENANT = "tenant"
CHART = CRDS.parent / "charts" / "finetune-operator"
FORGED = ("app.kubernetes.io/managed-by", "finetune.dev/owner-uid", "finetune.dev/role", "batch.kubernetes.io/job-name")


@pytest.fixture(scope="module")
def roles(cluster: ControlPlane) -> None:
    """The chart's roles for users."""
    text = run(binaries(["helm"])["helm"], "template", "x", CHART, "--show-only", "templates/userroles.yaml")
    api = Api(cluster, "")
    for role in [item for item in yaml.safe_load_all(text) if item and item["kind"] == "ClusterRole"]:
        api.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)


@pytest.fixture
def tenant(cluster: ControlPlane, api: Api, roles: None) -> Iterator[Api]:
    """A user who may do in the test's namespace what `edit` may, and no more."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "tenant"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": TENANT}],
    }
    api.request("POST", f"/apis/{group}/v1/namespaces/{api.namespace}/rolebindings", binding)
    user = Api(cluster, api.namespace, TENANT)

    def may_work() -> bool:
        try:
            user.items("FineTuneJob")
        except RefusedError:
            return False
        return True

    wait_for(may_work, "the role's rights")
    yield user


def forged(tenant: Api, api: Api, pod: Object, says: PreflightReport | TrainReport | EvaluationReport) -> Object:
    """A Pod by hand with the labels and annotations of a real one, that ends with this message."""
    meta = pod["metadata"]
    body: Object = {
        "metadata": {
            "name": f"by-hand-{meta['name']}"[:63],
            "labels": {name: meta["labels"][name] for name in FORGED if name in meta["labels"]},
            "annotations": copy.deepcopy(meta["annotations"]),
        },
        "spec": {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "example.com/mine:1"}]},
    }
    made = tenant.request("POST", tenant.path("Pod"), body)
    with pytest.raises(RefusedError):
        tenant.patch("Pod", made["metadata"]["name"], {"status": {"phase": "Succeeded"}}, "status")
    # The kubelet reports what the tenant's container wrote.
    played.ends(api, made, to_termination_message(says))
    return made


def test_a_preflight_that_failed_does_not_succeed_by_a_pod_made_by_hand(tenant: Api, api: Api) -> None:
    job = tenant.create("FineTuneJob", "router", JOB)
    (pod,) = api.wait_children(job, "preflight", "Pod")
    forged(tenant, api, pod, PREFLIGHT_REPORT)
    played.ends(api, pod, LINE_7)
    found = api.wait_reason("FineTuneJob", "router", "DatasetInvalid")
    assert found["status"]["preflight"]["succeeded"] is False
    assert api.children_of(job, "train", "Job") == []


def test_a_training_that_failed_has_no_result_by_a_pod_made_by_hand(tenant: Api, api: Api) -> None:
    theirs = RESULT.model_copy(update={"uri": "s3://models/finetune/team-b/theirs/1-deadbeef/result"})
    job = tenant.create("FineTuneJob", "router", {**JOB, "retryLimit": 0})
    _, pods = starts_training(api, job)
    forged(tenant, api, pods[0], TRAIN_REPORT.model_copy(update={"result": theirs}))
    for pod in pods:
        played.is_bound(api, pod)
    for pod in pods:
        played.ends(api, pod, NETWORK_FAILURE if pod is pods[0] else LOST_PEER)
    status = api.wait_reason("FineTuneJob", "router", "RetryLimitReached")["status"]
    assert status["phase"] == "Failed"
    assert "result" not in status


def test_what_a_real_pod_reports_is_held_against_what_was_asked(tenant: Api, api: Api) -> None:
    """Somebody who may exec into it wrote the message: another's model is not served in this one's name."""
    theirs = RESULT.model_copy(update={"uri": "s3://models/finetune/team-b/theirs/1-deadbeef/result"})
    job = tenant.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    for pod in by_index(pods):
        said = TRAIN_REPORT.model_copy(update={"result": theirs})
        played.ends(api, pod, to_termination_message(said) if pod is pods[0] else "")
    status = api.wait_reason("FineTuneJob", "router", "ReportRefused")["status"]
    assert (status["phase"], "result" in status) == ("Failed", False)


def test_an_evaluation_does_not_pass_and_nothing_is_served_by_a_pod_made_by_hand(tenant: Api, api: Api) -> None:
    trains(api, tenant.create("FineTuneJob", "router", JOB))
    evaluation = tenant.create("Evaluation", "router", EVALUATION)
    tenant.create("ModelDeployment", "router", DEPLOYMENT)
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    forged(tenant, api, pod, evaluation_report(tuned=1.0))
    played.ends(api, pod, NETWORK_FAILURE)
    found = api.wait("Evaluation", "router", lambda item: "failure" in item.get("status", {}))
    assert "results" not in found["status"]
    assert condition(found, "Passed").get("status") != "True"
    assert api.items("Deployment") == []


def test_pods_and_jobs_of_others_hold_nothing_up(tenant: Api, api: Api) -> None:
    """Neither does a Pod with our labels that runs for ever keep the next attempt waiting."""
    job = tenant.create("FineTuneJob", "router", JOB)
    _, pods = starts_training(api, job)
    meta = pods[0]["metadata"]
    labels = {name: meta["labels"][name] for name in FORGED}
    container = {"name": "trainer", "image": "example.com/mine:1"}
    of_a_job = {name: value for name, value in labels.items() if name != "batch.kubernetes.io/job-name"}
    template = {"metadata": {"labels": of_a_job}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    foreign = {"metadata": {"name": "by-hand", "labels": of_a_job}, "spec": {"template": template}}
    tenant.request("POST", tenant.path("Job"), foreign)
    by_hand = {"metadata": {"name": "by-hand", "labels": labels}, "spec": template["spec"]}
    made = tenant.request("POST", tenant.path("Pod"), by_hand)
    played.runs(api, made)
    tenant.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    api.wait_reason("FineTuneJob", "router", "Suspended")
    assert api.exists("Job", "by-hand"), "what is somebody else's is not removed"
    assert api.exists("Pod", "by-hand")


def test_a_pod_made_by_hand_reports_no_progress(tenant: Api, api: Api, operator: OperatorProcess) -> None:
    job = tenant.create("FineTuneJob", "router", JOB)
    train, pods = starts_training(api, job)
    configuration, ca = run_configuration(api, train)
    assert configuration.progress is not None
    meta = pods[0]["metadata"]
    body = {
        "metadata": {"name": "by-hand", "labels": dict(meta["labels"]), "annotations": dict(meta["annotations"])},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "example.com/mine:1"}]},
    }
    for label in ("batch.kubernetes.io/controller-uid", "controller-uid"):
        del body["metadata"]["labels"][label]
    made = tenant.request("POST", tenant.path("Pod"), body)
    assert report(configuration.progress.url, ca, token(api, made)) == 401
    assert report(configuration.progress.url, ca, token(api, pods[0])) == 200


def test_a_name_of_ours_that_somebody_has_taken_is_reported(tenant: Api, api: Api) -> None:
    """A Pod of a coming preflight, laid there before: it would do what the tenant chose."""
    job = tenant.create("FineTuneJob", "router", {**JOB, "suspend": True})
    status = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    owner = Owner("FineTuneJob", api.namespace, "router", job["metadata"]["uid"])
    name = preflight_pod_name(owner, run_key(FineTuneJobStatus.model_validate(status)), 1)
    spec = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "example.com/mine:1"}]}
    tenant.request("POST", tenant.path("Pod"), {"metadata": {"name": name}, "spec": spec})
    tenant.patch("FineTuneJob", "router", {"spec": {"suspend": False}})
    found = api.wait_reason("FineTuneJob", "router", "NameConflict")
    assert name in condition(found, "Stalled")["message"]
    assert api.children_of(job, "preflight", "Pod") == []
    tenant.delete("Pod", name)
    tenant.patch("FineTuneJob", "router", {"metadata": {"annotations": {"tried": "again"}}})
    api.wait_children(job, "preflight", "Pod")


def test_a_job_with_our_finalizer_from_elsewhere_goes_when_it_is_deleted(
    tenant: Api, api: Api, operator: OperatorProcess
) -> None:
    """As from a backup that was restored: somebody else's field manager holds the entry."""
    ours = "finetune.dev/storage"
    job = tenant.create("FineTuneJob", "restored", {**JOB, "suspend": True}, finalizers=[ours])
    wait_for(lambda: ours not in api.get("FineTuneJob", "restored")["metadata"].get("finalizers", []), "it is released")
    tenant.patch("FineTuneJob", "restored", {"metadata": {"finalizers": [ours]}})
    tenant.delete("FineTuneJob", "restored")
    wait_for(lambda: not api.exists("FineTuneJob", "restored"), "the job is gone")
    released = [line for line in operator.log.read_text().splitlines() if job["metadata"]["uid"] in line]
    assert sum("released" in line for line in released) <= 1
