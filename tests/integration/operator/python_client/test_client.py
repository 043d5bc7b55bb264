"""Both Python clients against a real API server and operator, with jobs whose Pods are played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.components.control_plane import ControlPlane
from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.pod_contracts.outcome import Failure
from finetune_client import (
    DeletedError,
    DifferentSpecError,
    FineTuneError,
    ForbiddenError,
    GitOpsWarning,
    InvalidSpecError,
    NoResultError,
    NotFoundError,
    RunFailedError,
    StalledError,
    WaitTimeoutError,
)
from tests.integration.operator import played
from tests.integration.operator.api import Api
from tests.integration.operator.jobs import DEPLOYMENT, EVALUATION, JOB, LINE_7, RESULT, starts_training, trains

pytestmark = pytest.mark.usefixtures("operator")

CRASH = Failure(
    reason=Reason.LOSS_NOT_FINITE,
    message="The loss became NaN at step 7.",
    rank=1,
    suggestion="Halve hyperparameters.learningRate.",
    log="step 6\nstep 7 loss=nan",
)
SECONDS = 60.0


def test_a_job_is_created_once_however_often_a_cell_is_run(client: Any, api: Api, tmp_path: Path) -> None:
    """A model of the spec, a dict, a whole object and a file say the same."""
    job = client.create(FineTuneJobSpec.from_wire(JOB), name="router", labels={"team": "a"})
    whole = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "router"}, "spec": JOB}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump_all([{"kind": "ConfigMap"}, whole]))
    assert {client.create(given, name="router").uid for given in (JOB, whole, file, str(file))} == {job.uid}
    assert client.create(whole).uid == job.uid
    stored = api.get("FineTuneJob", "router")
    assert stored["metadata"]["labels"] == {"team": "a"}
    assert [one.name for one in client.list()] == ["router"] == [one.name for one in client.list(labels={"team": "a"})]
    assert client.list(labels={"team": "b"}) == []


def test_another_spec_under_the_same_name_is_refused_with_what_differs(client: Any) -> None:
    client.create(JOB, name="router")
    with pytest.raises(
        DifferentSpecError, match=r"spec\.hyperparameters\.epochs: it has nothing, given is 5.0"
    ) as error:
        client.create({**JOB, "hyperparameters": {"epochs": 5}}, name="router")
    assert [path for path, _, _ in error.value.differences] == ["spec.hyperparameters.epochs"]


def test_what_changed_during_the_run_is_no_other_spec(client: Any) -> None:
    job = client.create(JOB, name="router")
    job.suspend()
    job.rerun()
    assert client.create(JOB, name="router").uid == job.uid
    with pytest.raises(DifferentSpecError, match=r"spec\.runId: it has '2', given is '7'"):
        client.create({**JOB, "runId": "7"}, name="router")


def test_what_is_wrong_is_said_before_and_by_the_api_server(client: Any, api: Api, tmp_path: Path) -> None:
    for given, told in (
        ({**JOB, "epochs": 3}, r"spec\.epochs: Extra inputs"),
        ({"kind": "Evaluation", "spec": EVALUATION}, "A FineTuneJob of .* is expected"),
        ({"metadata": {"namespace": "elsewhere"}, "spec": JOB}, "namespace 'elsewhere'"),
        (tmp_path / "nothing.yaml", "can't be read: No such file"),
    ):
        with pytest.raises(FineTuneError, match=told):
            client.create(given, name="router")
    with pytest.raises(FineTuneError, match="can't be the name"):
        client.create(JOB, name="Not_A_Name")
    with pytest.raises(InvalidSpecError, match=r"needs parallelism\.strategy DDP"):
        client.create({**JOB, "adapter": {"type": "QLoRA"}, "parallelism": {"strategy": "FSDP"}}, name="router")
    assert not api.exists("FineTuneJob", "router")
    with pytest.raises(NotFoundError, match='"nothing" not found'):
        client.get("nothing")


def test_a_job_is_waited_for_until_it_has_its_result(client: Any, api: Api) -> None:
    job = client.create(JOB, name="router")
    with pytest.raises(NoResultError, match=r"had no result .* job.wait\(\)"):
        _ = job.result
    trains(api, api.get("FineTuneJob", "router"))
    seen: list[str] = []
    job.wait(timeout=SECONDS, on_progress=lambda progress: seen.append(progress.phase))
    assert seen[-1] == "Succeeded"
    assert job.result.digest == RESULT.digest and job.result.uri.endswith("/result")
    assert job.status.phase == job.phase == "Succeeded" and job.spec.class_name == "cpu"
    with pytest.raises(FineTuneError, match=r"has ended already, as Succeeded. job.rerun\(\)"):
        job.suspend()
    api.patch("FineTuneJob", "router", {"spec": {"suspend": True}})
    api.wait(
        "FineTuneJob", "router", lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"]
    )
    job.resume()
    assert api.get("FineTuneJob", "router")["spec"]["suspend"] is False
    about = {(event.about, event.fields.text("reason")) for event in job.events()}
    assert ("FineTuneJob/router", "Succeeded") in about


def test_a_failed_run_is_an_error_that_says_why_and_what_to_do(client: Any, api: Api) -> None:
    job = client.create(JOB, name="router")
    _, pods = starts_training(api, api.get("FineTuneJob", "router"))
    job.wait("Started", timeout=SECONDS)
    for pod in pods:
        played.is_bound(api, pod)
    played.ends(api, pods[1], CRASH)
    played.ends(api, pods[0], "", 1)
    with pytest.raises(RunFailedError, match="LossNotFinite") as error:
        job.wait(timeout=SECONDS)
    assert error.value.reason == "LossNotFinite" and "NaN at step 7" in error.value.detail
    assert error.value.next_steps[0] == "Halve hyperparameters.learningRate."
    assert any("job.rerun()" in step for step in error.value.next_steps)
    assert error.value.log.splitlines()[-1] == "step 7 loss=nan"
    assert job.wait("Ended", timeout=SECONDS).phase == "Failed"
    for pod in api.children(job.uid)["Pod"]:
        api.request("DELETE", api.path("Pod", pod["metadata"]["name"]), {"gracePeriodSeconds": 0})
    assert list(job.logs(rank=1)) == ["step 6", "step 7 loss=nan"], "the Pods are gone: what the status has kept"
    assert list(job.logs(follow=True, timeout=SECONDS)) == [], "it ends with the run"


def test_a_job_that_waits_for_someone_ends_the_wait(client: Any, api: Api) -> None:
    job = client.create(JOB, name="router")
    (pod,) = api.wait_children(api.get("FineTuneJob", "router"), "preflight", "Pod")
    played.ends(api, pod, LINE_7)
    with pytest.raises(StalledError, match="line 7: the last message is not the assistant's") as error:
        job.wait(timeout=SECONDS, stalled_after=0)
    assert error.value.reason == "DatasetInvalid"
    with pytest.raises(StalledError):
        job.wait(timeout=SECONDS, stalled_after=1), "though nothing changes any more"
    with pytest.raises(TimeoutError, match="it goes on") as late:
        job.wait(timeout=0.5)
    assert isinstance(late.value, WaitTimeoutError)


def test_a_run_is_suspended_resumed_cancelled_and_run_again(client: Any, api: Api) -> None:
    job = client.create(JOB, name="router")
    assert job.suspend().spec.suspend is True
    assert job.resume().spec.suspend is False
    job.cancel()
    with pytest.raises(RunFailedError, match="was cancelled") as error:
        job.wait(timeout=SECONDS)
    assert error.value.next_steps == ("Run again: job.rerun()",)
    job.rerun(changes={"hyperparameters": {"learningRate": 1.0e-4}})
    spec = api.get("FineTuneJob", "router")["spec"]
    assert (spec["runId"], spec["cancel"], spec["hyperparameters"]["learningRate"]) == ("2", False, 1.0e-4)
    with pytest.raises(InvalidSpecError, match=r"spec\.runId"):
        job.rerun("not/valid")
    with pytest.raises(FineTuneError, match="runId '2' of FineTuneJob router is that of the present run"):
        job.rerun("2")


def test_who_sets_a_change_back_is_warned_of(client: Any) -> None:
    job = client.create(JOB, name="router", labels={"kustomize.toolkit.fluxcd.io/name": "app"})
    with pytest.warns(GitOpsWarning, match="Flux manages this object"):
        job.suspend()


def test_a_handle_is_of_one_object_and_of_none_after_it(client: Any, api: Api) -> None:
    job = client.create(JOB, name="router")
    job.delete(wait=True)
    assert not api.exists("FineTuneJob", "router")
    job.delete()
    another = client.create(JOB, name="router")
    for use in (job.refresh, job.suspend, lambda: job.wait(timeout=SECONDS)):
        with pytest.raises(DeletedError, match="another one of its name"):
            use()
    job.delete()
    assert client.get("router").uid == another.uid, "which it does not delete"


def test_evaluations_and_deployments_are_objects_too(client: Any, api: Api) -> None:
    evaluation = client.evaluations.create(EVALUATION, name="router")
    assert client.evaluations.create(EVALUATION, name="router").uid == evaluation.uid
    with pytest.raises(StalledError, match="router") as error:
        evaluation.wait(timeout=SECONDS, stalled_after=0)
    assert error.value.reason == "ReferenceNotFound"
    assert evaluation.passed is None and evaluation.scores == []
    with pytest.raises(NoResultError, match="has no report yet"):
        evaluation.report()
    stricter = [{**EVALUATION["gates"][0], "minimumDelta": 0.3}]
    assert evaluation.change({"gates": stricter}).spec.gates[0].minimum_delta == 0.3
    assert (evaluation.run_id, client.evaluations.create({**EVALUATION, "gates": stricter}, name="router").uid) == (
        "1",
        evaluation.uid,
    )
    with pytest.raises(InvalidSpecError, match=r"change spec\.runId too \(gates may change at any time\)"):
        evaluation.change({"onError": "Fail"})
    with pytest.raises(FineTuneError, match=r"evaluation\.rerun\(changes"):
        evaluation.change({"runId": "2"})
    with pytest.raises(RunFailedError):
        evaluation.cancel().wait(timeout=SECONDS)
    deployment = client.deployments.create(DEPLOYMENT, name="router")
    assert deployment.scale(2).spec.replicas == 2
    assert client.deployments.create(DEPLOYMENT, name="router").uid == deployment.uid, "replicas are scaled"
    with pytest.raises(NoResultError, match="did not serve"):
        deployment.openai()
    assert deployment.openai(base_url="http://localhost:8000/v1").base_url.host == "localhost"
    deployment.delete(wait=True)
    assert not api.exists("ModelDeployment", "router")


def test_a_user_without_rights_is_told_whom_to_ask(connect: Any, cluster: ControlPlane, api: Api) -> None:
    api.create("FineTuneJob", "router", JOB)
    nobody = connect(cluster.kubeconfig_for("nobody"))
    for use in (lambda: nobody.get("router"), nobody.list, lambda: nobody.create(JOB, name="other")):
        with pytest.raises(ForbiddenError, match="Ask the platform team for a role"):
            use()


def test_a_user_who_may_read_but_not_watch_waits_too(connect: Any, cluster: ControlPlane, api: Api) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{api.namespace}"
    rules = [{"apiGroups": ["finetune.dev"], "resources": ["finetunejobs"], "verbs": ["get"]}]
    api.request("POST", f"{rbac}/roles", {"metadata": {"name": "getter"}, "rules": rules})
    binding = {
        "metadata": {"name": "getter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "getter"},
        "subjects": [{"kind": "User", "name": "getter", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    api.request("POST", f"{rbac}/rolebindings", binding)
    job = api.create("FineTuneJob", "router", JOB)
    waited = connect(cluster.kubeconfig_for("getter")).get("router")
    seen: list[str] = []

    def cancels(progress: Any) -> None:
        if not seen:
            api.patch("FineTuneJob", "router", {"spec": {"cancel": True}})
        seen.append(progress.phase)

    with pytest.raises(RunFailedError, match="was cancelled"):
        waited.wait(timeout=SECONDS, on_progress=cancels)
    assert waited.uid == job["metadata"]["uid"] and seen[-1] == "Cancelled"
    with pytest.raises(ForbiddenError, match="cannot list resource"):
        waited.events()


def test_a_container_that_has_not_started_has_no_log_yet(client: Any, api: Api) -> None:
    job = client.create(JOB, name="router")
    api.wait_children(api.get("FineTuneJob", "router"), "preflight", "Pod")
    with pytest.raises(FineTuneError):
        list(job.logs())
