"""Evaluations keep their word: tries are bounded, the end is the end, and nothing runs that nobody waits for."""

from __future__ import annotations

import secrets

import pytest

from finetune_api.conditions import Reason
from finetune_api.model_usage import ModelUsage
from finetune_api.pod_contracts.outcome import Failure
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled, wait_for
from tests.integration.operator.conftest import CLASS
from tests.integration.operator.jobs import EVALUATION, JOB, LINE_7, NETWORK_FAILURE, evaluation_report
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.serving import all_are_ready, is_trained
from tests.integration.operator.test_metrics import expect_forgotten

pytestmark = pytest.mark.usefixtures("operator")


def begins(api: Api, **changes: object) -> tuple[Object, Object]:
    """An evaluation of a model that is there; returns it and its Pod."""
    is_trained(api)
    evaluation = api.create("Evaluation", "router", {**EVALUATION, **changes})
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    return evaluation, pod


def retry_now(api: Api) -> None:
    """That the pause before the next try is over is played."""
    status = api.wait("Evaluation", "router", lambda found: "retryTime" in found["status"])["status"]
    api.put_status("Evaluation", "router", {**status, "retryTime": played.MOMENT})


def expect_over(api: Api, reason: str) -> Object:
    over = api.wait_reason("Evaluation", "router", reason)
    assert over["status"]["phase"] == "Failed"
    assert condition(over, "Failed")["status"] == "True"
    assert "completionTime" in over["status"]
    return over


def test_what_can_not_succeed_is_over_at_once_and_another_run_id_starts_again(api: Api) -> None:
    evaluation, pod = begins(api)
    played.ends(api, pod, LINE_7)
    over = expect_over(api, "DatasetInvalid")
    assert stalled(over)[1].endswith("Change spec.runId to evaluate again.")
    assert len(api.children_of(evaluation, "evaluate", "Job")) == 1
    api.patch("Evaluation", "router", {"spec": {"runId": "2"}})
    again = api.wait_reason("Evaluation", "router", "Evaluating")
    assert condition(again, "Failed").get("status") != "True"


def test_what_may_heal_is_tried_as_often_as_allowed(api: Api) -> None:
    evaluation, pod = begins(api, retryLimit=1)
    played.ends(api, pod, NETWORK_FAILURE)
    retrying = api.wait_reason("Evaluation", "router", "StorageUnreachable")
    assert retrying["status"]["phase"] == "Retrying"
    assert condition(retrying, "Failed").get("status") != "True"
    retry_now(api)
    (second,) = _another(api, evaluation, pod)
    played.ends(api, second, NETWORK_FAILURE)
    over = expect_over(api, "RetryLimitReached")
    assert "failed 2 times, more often than retryLimit 1 allows. Last failure: StorageUnreachable" in stalled(over)[1]


def test_a_disruption_does_not_count(api: Api) -> None:
    evaluation, pod = begins(api, retryLimit=0)
    played.is_disrupted(api, pod)
    retrying = api.wait_reason("Evaluation", "router", "Retrying")
    assert (retrying["status"]["disruptions"], retrying["status"].get("retries", 0)) == (1, 0)
    assert "EvictionByEvictionAPI" in condition(retrying, "Ready")["message"]
    retry_now(api)
    (second,) = _another(api, evaluation, pod)
    played.ends(api, second, evaluation_report(tuned=0.75))
    api.wait_reason("Evaluation", "router", "Evaluated")


def _another(api: Api, evaluation: Object, pod: Object) -> list[Object]:
    def others() -> list[Object]:
        pods = api.children_of(evaluation, "evaluate", "Pod")
        return [item for item in pods if item["metadata"]["uid"] != pod["metadata"]["uid"]]

    wait_for(lambda: len(others()) == 1, "the Pod of the next try")
    return others()


def test_a_job_that_has_not_started_is_recreated_when_its_class_is_corrected(api: Api) -> None:
    name = f"cpu-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, "images": {"trainer": "example.com/typo:1"}})
    evaluation, pod = begins(api, className=name)
    played.waits(api, pod, "ImagePullBackOff", 'Back-off pulling image "example.com/typo:1"')
    api.wait_reason("Evaluation", "router", "ImagePullFailed")
    api.patch("FineTuneClass", name, {"spec": {"images": {"trainer": "example.com/trainer:2"}}})
    (corrected,) = _another(api, evaluation, pod)
    assert corrected["spec"]["containers"][0]["image"] == "example.com/trainer:2"
    played.runs(api, corrected)
    api.wait_reason("Evaluation", "router", "Evaluating")
    api.patch("FineTuneClass", name, {"spec": {"images": {"trainer": "example.com/trainer:3"}}})
    played.ends(api, corrected, evaluation_report(tuned=0.75))
    done = api.wait_reason("Evaluation", "router", "Evaluated")
    assert done["status"].get("retries", 0) == 0


@pytest.mark.parametrize("how", ["deleted and made again", "run again"])
def test_nothing_runs_on_about_a_model_that_is_not_there_any_more(api: Api, how: str) -> None:
    evaluation, pod = begins(api)
    played.runs(api, pod)
    if how == "run again":
        api.patch("FineTuneJob", "router", {"spec": {"runId": "2"}})
    else:
        api.delete("FineTuneJob", "router")
        wait_for(lambda: not api.exists("FineTuneJob", "router"), "it is gone")
        api.create("FineTuneJob", "router", {**JOB, "suspend": True})
    api.wait_reason("Evaluation", "router", "WaitingForModel")
    wait_for(lambda: api.children_of(evaluation, "evaluate", "Job") == [], "its Job is ended")
    wait_for(lambda: api.children_of(evaluation, "evaluate", "Pod") == [], "and its Pod")


def test_a_finished_evaluation_judges_another_model_of_its_job_too(api: Api, operator: OperatorProcess) -> None:
    evaluation, pod = begins(api)
    played.ends(api, pod, evaluation_report(tuned=0.75))
    api.wait_reason("Evaluation", "router", "Evaluated")
    (first,) = api.wait_children(evaluation, "evaluate", "Job")
    api.wait("Job", first["metadata"]["name"], lambda found: "completionTime" in found.get("status", {}))

    def touch() -> None:
        api.patch("FineTuneJob", "router", {"metadata": {"annotations": {"touched": secrets.token_hex(4)}}})

    expect_forgotten(operator, "Evaluation", touch)
    status = api.get("FineTuneJob", "router")["status"]
    result = {**status["result"], "digest": "sha256:bb"}
    api.put_status("FineTuneJob", "router", {**status, "result": result})
    wait_for(lambda: names(api, evaluation) - {first["metadata"]["name"]}, "another Job judges the other model")


def names(api: Api, evaluation: Object) -> set[str]:
    return {job["metadata"]["name"] for job in api.children_of(evaluation, "evaluate", "Job")}


def test_what_waits_for_a_gate_that_failed_for_good_says_so(api: Api) -> None:
    _, pod = begins(api)
    api.wait_reason("Evaluation", "router", "Evaluating")  # its Pod is there before its status says so
    spec = {
        "className": "cpu",
        "model": EVALUATION["candidates"][0]["model"],
        "gate": {"evaluationRef": {"name": "router"}},
    }
    api.create("ModelDeployment", "router", spec)
    waits = api.wait_reason("ModelDeployment", "router", "WaitingForGate")
    assert (
        condition(waits, "Ready")["message"] == "Evaluation 'router' has not evaluated this model yet: it is running."
    )
    gone = Failure(reason=Reason.DATASET_NOT_FOUND, message="Nothing is at s3://data/test.jsonl")
    played.ends(api, pod, gone)
    held = api.wait("ModelDeployment", "router", lambda found: stalled(found)[0] == "WaitingForGate")
    assert "failed and has no result: Nothing is at s3://data/test.jsonl. " in stalled(held)[1]


OLD, NEW = "s3://models/old", "s3://models/new"
JUDGE: Object = {"name": "judge", "url": "https://api.example.com/v1", "credentialsSecretName": "openai"}
TONE: Object = {
    "name": "tone",
    "type": "ScoreModel",
    "scoreModel": {"model": "judge", "input": [{"content": "Rate {{sample.output_text}}"}]},
}


def test_a_model_that_grades_is_the_classs_and_its_key_is_mounted_by_name(api: Api) -> None:
    name = f"judges-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, CLASS)
    is_trained(api)
    gates = [{"grader": "tone", "minimum": 0.5}]
    spec = {**EVALUATION, "className": name, "graders": [TONE], "gates": gates, "budget": {"requests": 100}}
    evaluation = api.create("Evaluation", "router", spec)
    api.wait_reason("Evaluation", "router", "ModelNotListed")
    assert stalled(api.get("Evaluation", "router"))[1].startswith(
        f"Grader 'tone' asks the model 'judge', and FineTuneClass '{name}' lists none."
    )
    api.patch("FineTuneClass", name, {"spec": {"models": [JUDGE]}})
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    (key,) = [one for one in pod["spec"]["volumes"] if one["name"] == "model-key-judge"]
    assert key["secret"]["secretName"] == "openai"
    # The kubelet looks for the Secret; the operator never does.
    played.is_placed(api, pod)
    missing = 'MountVolume.SetUp failed for volume "model-key-judge" : secret "openai" not found'
    played.is_warned_of(api, pod, "FailedMount", missing)
    api.wait_reason("Evaluation", "router", "SecretNotFound")
    assert "can't read the key of the model 'judge'" in stalled(api.get("Evaluation", "router"))[1]


def test_case_12_a_budget_that_is_used_up_is_no_pass_and_another_run_goes_on(api: Api) -> None:
    _, pod = begins(api)
    report = evaluation_report(tuned=0.75)
    over = report.scores[1].model_copy(update={"passed": 100, "failed": 50, "errored": 100, "over_budget": 100})
    usage = [ModelUsage(model="judge", requests=150, cached=3, prompt_tokens=1000, completion_tokens=200)]
    update = {"scores": [report.scores[0], over], "usage": usage, "warnings": ["JudgeUnreliable: by grader 'exact'"]}
    played.ends(api, pod, report.model_copy(update=update))
    ended = api.wait_reason("Evaluation", "router", "BudgetExceeded")
    assert ended["status"]["phase"] == "Inconclusive"
    assert condition(ended, "Passed")["status"] == "Unknown"
    assert ended["status"]["usage"] == [usage[0].to_wire()]
    assert ended["status"]["warnings"] == ["JudgeUnreliable: by grader 'exact'"]
    with pytest.raises(RefusedError, match=r"change spec\.runId too"):
        api.patch("Evaluation", "router", {"spec": {"budget": {"requests": 1000}}})
    api.patch("Evaluation", "router", {"spec": {"runId": "2", "budget": {"requests": 1000}}})
    api.wait_reason("Evaluation", "router", "Evaluating")


def test_an_evaluation_outlives_that_its_job_can_not_be_read(api: Api) -> None:
    """As in a rollback to a version that does not know what a newer one wrote."""
    _, pod = begins(api)
    readable = api.get("FineTuneJob", "router")["status"]
    api.put_status("FineTuneJob", "router", {**readable, "startTime": "soon"})
    told = api.wait(
        "Evaluation",
        "router",
        lambda found: "The running try continues" in condition(found, "Ready").get("message", ""),
    )
    assert "FineTuneJob 'router' can't be read" in condition(told, "Ready")["message"]
    assert api.exists("Pod", pod["metadata"]["name"])
    played.ends(api, pod, evaluation_report(tuned=0.75))
    api.wait_reason("Evaluation", "router", "Evaluated")
    api.put_status("FineTuneJob", "router", readable)


def test_an_evaluation_waits_while_two_revisions_of_a_model_deployment_answer(api: Api) -> None:
    deployment = api.create("ModelDeployment", "judge", {"className": "cpu", "model": {"uri": OLD}, "replicas": 2})
    all_are_ready(api, deployment, 2)
    api.wait_reason("ModelDeployment", "judge", "Available")
    old = {pod["metadata"]["name"] for pod in api.wait_children(deployment, "serve", "Pod", 2)}
    api.patch("ModelDeployment", "judge", {"spec": {"model": {"uri": NEW}}})
    pods = api.wait_children(deployment, "serve", "Pod", 3)
    (new,) = [pod for pod in pods if pod["metadata"]["name"] not in old]
    played.ready(api, new)
    api.wait("ModelDeployment", "judge", lambda found: answering(found) == {OLD, NEW})
    name = f"judges-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, "models": [{"name": "judge", "modelDeploymentRef": {"name": "judge"}}]})
    is_trained(api)
    spec = {**EVALUATION, "className": name, "graders": [TONE], "gates": [{"grader": "tone", "minimum": 0.5}]}
    evaluation = api.create("Evaluation", "router", spec)
    # Until a Pod of the old revision has gone, it has more of them, and is named first.
    told = f"is rolling out: {NEW} and {OLD} answer."
    waits = api.wait("Evaluation", "router", lambda found: told in condition(found, "Ready").get("message", ""))
    assert condition(waits, "Ready")["reason"] == "WaitingForModel"
    assert api.children_of(evaluation, "evaluate", "Job") == []


def answering(found: Object) -> set[str]:
    return {one["revision"] for one in found.get("status", {}).get("revisions", []) if one["readyReplicas"]}


def test_a_rollout_that_interrupts_a_try_does_not_count(api: Api) -> None:
    deployment = api.create("ModelDeployment", "judge", {"className": "cpu", "model": {"uri": OLD}})
    all_are_ready(api, deployment)
    api.wait_reason("ModelDeployment", "judge", "Available")
    (old,) = api.wait_children(deployment, "serve", "Pod")
    name = f"judges-{secrets.token_hex(4)}"
    api.create("FineTuneClass", name, {**CLASS, "models": [{"name": "judge", "modelDeploymentRef": {"name": "judge"}}]})
    gates = [{"grader": "tone", "minimum": 0.5}]
    evaluation, pod = begins(api, retryLimit=0, className=name, graders=[TONE], gates=gates)
    api.patch("ModelDeployment", "judge", {"spec": {"model": {"uri": NEW}}})
    pods = api.wait_children(deployment, "serve", "Pod", 2)
    (new,) = [one for one in pods if one["metadata"]["name"] != old["metadata"]["name"]]
    played.ready(api, new)
    api.wait("ModelDeployment", "judge", lambda found: answering(found) == {NEW})
    message = "The API of the model 'judge' now answers as revision 'sha256:bb', but was asked as 'sha256:aa'."
    played.ends(api, pod, Failure(reason=Reason.MODEL_CHANGED, message=message, retryable=True))
    retrying = api.wait_reason("Evaluation", "router", "Retrying")
    assert (retrying["status"]["disruptions"], retrying["status"].get("retries", 0)) == (1, 0)
    retry_now(api)
    _another(api, evaluation, pod)
