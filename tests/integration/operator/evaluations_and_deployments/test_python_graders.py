"""An Evaluation with Python graders: code that can't work makes no Pod, and other code a Pod with a sandbox."""

from __future__ import annotations

import pytest

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.outcome import Failure
from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, stalled
from tests.integration.operator.jobs import EVALUATION
from tests.integration.operator.serving import is_trained

pytestmark = pytest.mark.usefixtures("operator")


def code(source: str) -> Object:
    """The spec of an Evaluation with this code."""
    grader = {"name": "code", "type": "Python", "python": {"source": source}}
    return {**EVALUATION, "graders": [grader], "gates": [{"grader": "code", "minimumDelta": 0.2}]}


GRADES = code("def grade(sample, item):\n    return 1.0\n")


def test_code_that_can_not_work_is_reported_with_its_line_and_makes_no_pod(api: Api) -> None:
    is_trained(api)
    evaluation = api.create("Evaluation", "router", code("x = 1\ndef grade(sample, item)\n    return 1.0\n"))
    told = api.wait_reason("Evaluation", "router", "InvalidSpec")
    assert "spec.graders: 'code': python.source: line 2: expected ':'." in stalled(told)[1]
    assert api.children_of(evaluation, "evaluate", "Job") == []


def test_code_that_is_too_long_is_refused_at_once(api: Api) -> None:
    with pytest.raises(RefusedError, match="Too long: may not be more than 262144"):
        api.create("Evaluation", "router", code(f"def grade(sample, item): return 1.0 #{'x' * 262_144}"))


def test_a_namespace_that_demands_the_restricted_level_admits_the_sandbox(api: Api) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    path, merge = f"/api/v1/namespaces/{api.namespace}", "application/merge-patch+json"
    api.request("PATCH", path, {"metadata": {"labels": label}}, merge)
    is_trained(api)
    evaluation = api.create("Evaluation", "router", GRADES)
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    (sandbox,) = pod["spec"]["initContainers"]
    assert (sandbox["name"], sandbox["restartPolicy"]) == ("python-sandbox", "Always")
    assert sandbox.get("env", []) == []
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounted = [volumes[mount["name"]] for mount in sandbox["volumeMounts"]]
    assert [sorted(volume) for volume in mounted] == [["emptyDir", "name"]] * 2, "also after every admission plugin"


def test_a_sandbox_that_does_not_hold_ends_the_evaluation(api: Api) -> None:
    is_trained(api)
    evaluation = api.create("Evaluation", "router", GRADES)
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, Failure(reason=Reason.SANDBOX_UNAVAILABLE, message="It does not hold.", retryable=False))
    over = api.wait_reason("Evaluation", "router", "SandboxUnavailable")
    assert over["status"]["phase"] == "Failed"
    assert condition(over, "Failed")["status"] == "True"
    assert len(api.children_of(evaluation, "evaluate", "Job")) == 1
