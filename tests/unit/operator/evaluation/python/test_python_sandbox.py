"""The Pod of an evaluation with Python graders: their code has a container of its own, with nothing in it to take."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.pod_contracts.run import PYTHON_SANDBOX_SOCKET, EvaluateRun, NamedModel
from finetune_operator.evaluation.objects import evaluate_objects
from finetune_operator.evaluation.refusal import grading_refusal
from finetune_operator.kube.resources import Object
from finetune_operator.pods.observed import pod_view
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.evaluation_states import EVALUATION, evaluation_spec, tuned
from tests.unit.operator.states import resolved_class

CODE = {"name": "code", "type": "Python", "python": {"source": "def grade(sample, item):\n    return 1\n"}}
EXACT = {"name": "exact", "type": "StringCheck"}
CLASS = {
    "env": [{"name": "HTTPS_PROXY", "value": "http://user:password@proxy"}],
    "hub": {"tokenSecretName": "hub-token"},
}


def objects(*graders: dict[str, Any]) -> tuple[EvaluateRun, Object]:
    """The run configuration, and the Pod's spec."""
    spec = evaluation_spec(graders=list(graders), gates=[])
    model = NamedModel(name="tuned", model=tuned().source)
    endpoint = ProgressEndpoint("https://finetune.svc:8443", "PEM")
    made = evaluate_objects(EVALUATION, spec, resolved_class(**CLASS), [model], "try-1", progress=endpoint)
    config_map, job = made
    return EvaluateRun.model_validate_json(config_map["data"]["run.json"]), job["spec"]["template"]["spec"]


def test_without_python_graders_there_is_no_such_container() -> None:
    run, pod = objects(EXACT)
    assert run.python_sandbox is None
    assert "initContainers" not in pod


def test_the_container_has_no_secret_no_token_and_no_variable() -> None:
    run, pod = objects(EXACT, CODE)
    (container,) = pod["initContainers"]
    assert run.python_sandbox == PYTHON_SANDBOX_SOCKET
    assert (container["name"], container["restartPolicy"]) == ("python-sandbox", "Always")
    assert container["args"] == ["python-sandbox", PYTHON_SANDBOX_SOCKET]
    assert "env" not in container
    assert "envFrom" not in container
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = [volumes[mount["name"]] for mount in container["volumeMounts"]]
    assert [set(volume) - {"name"} for volume in mounted] == [{"emptyDir"}, {"emptyDir"}]
    assert pod["automountServiceAccountToken"] is False
    assert "shareProcessNamespace" not in pod


def test_it_is_another_user_without_privileges() -> None:
    (container,) = objects(CODE)[1]["initContainers"]
    pod = objects(CODE)[1]["securityContext"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsUser": 65533,
    }
    assert pod["runAsUser"] == 65532
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}


def test_all_that_both_containers_share_is_the_socket() -> None:
    pod = objects(CODE)[1]
    (container,), (trainer,) = pod["initContainers"], pod["containers"]
    shared = {one["name"] for one in container["volumeMounts"]} & {one["name"] for one in trainer["volumeMounts"]}
    assert shared == {"python-sandbox"}
    (mount,) = [one for one in trainer["volumeMounts"] if one["name"] == "python-sandbox"]
    assert mount["readOnly"] is True


def test_it_has_limits_of_its_own_and_fills_no_disk() -> None:
    pod = objects(CODE)[1]
    limits = pod["initContainers"][0]["resources"]["limits"]
    assert limits == {"cpu": "2", "memory": "2560Mi", "ephemeral-storage": "64Mi"}
    own = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"].startswith("python-")]
    assert own == [{"medium": "Memory", "sizeLimit": "1Mi"}, {"medium": "Memory", "sizeLimit": "256Mi"}]


def test_how_it_ends_is_not_how_the_pod_ends() -> None:
    statuses = {
        "phase": "Running",
        "initContainerStatuses": [
            {"name": "python-sandbox", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
        ],
        "containerStatuses": [{"name": "trainer", "state": {"running": {"startedAt": "2026-11-27T00:00:00Z"}}}],
    }
    pod = pod_view({"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": statuses})
    assert (pod.exit_code, pod.foreign_failure, pod.foreign_running) == (None, "", ())


def test_its_image_that_can_not_be_pulled_is_the_operators_own() -> None:
    statuses = {
        "phase": "Pending",
        "initContainerStatuses": [
            {"name": "python-sandbox", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}
        ],
        "containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}],
    }
    pod = pod_view({"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": statuses})
    assert (pod.waiting_reason, pod.waiting_foreign) == ("ImagePullBackOff", "")


@pytest.mark.parametrize(
    ("graders", "problem"),
    [
        ([{**CODE, "python": {"source": "def grade(a): pass"}}], "'code': python.source: line 1: grade must take"),
        (
            [
                {**CODE, "name": f"code-{at}", "python": {"source": f"{CODE['python']['source']}#{'x' * 200_000}"}}  # type: ignore[index]
                for at in range(3)
            ],
            "the sources of Python graders have 600,",
        ),
    ],
    ids=["no function", "too long together"],
)
def test_code_that_can_not_work_is_refused_before_a_pod_is_made(graders: list[dict[str, Any]], problem: str) -> None:
    refusal = grading_refusal(evaluation_spec(graders=graders, gates=[]))
    assert refusal is not None
    assert problem in refusal.message
