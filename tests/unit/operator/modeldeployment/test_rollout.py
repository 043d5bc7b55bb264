"""The rollout of a ModelDeployment: what is applied, when it is available, and what ails its Pods."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.modeldeployment import DriftedField, ModelDeploymentStatus
from finetune_api.pod_contracts.outcome import Failure
from finetune_api.pod_contracts.run import (
    SERVING_DRAIN_SECONDS,
    SERVING_LINGER_SECONDS,
    STORAGE_CREDENTIALS_DIRECTORY,
    ModelSource,
)
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.models.resolve import ResolvedModel
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.deployment_states import (
    DEPLOYMENT,
    GATED,
    deployment_spec,
    observed_deployment,
    verdict,
)
from tests.unit.operator.evaluation_states import tuned
from tests.unit.operator.modeldeployment.plans import decide, serving
from tests.unit.operator.states import (
    NOW,
    Decision,
    ago,
    decided,
    earlier_conditions,
    pod,
    resolved_class,
)
from tests.unit.operator.states import told as told_by

# The rollout.


def test_without_a_gate_a_model_is_served_at_once() -> None:
    result = decide(observed_deployment())
    config_map = result.decision.writes[0]
    assert config_map.startswith("ConfigMap/router-serve-")
    assert result.decision == Decision(
        "RollingOut",
        "RollingOut",
        writes=(config_map, "Deployment/router", "Service/router"),
        again_in=15,
        event="Normal RollingOut",
    )
    assert result.status.url == "http://router.team-a.svc/v1"
    assert result.status.model_name == "router"
    assert result.status.class_name == resolved_class().name
    assert result.status.applied == tuned().source
    assert (result.status.revision, result.status.served) == (None, None)


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({}, "RollingOut"),
        ({"observedGeneration": 0, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}, "Available"),
    ],
    ids=["new", "status is of before", "none is new yet", "an old one remains", "not ready", "rolled out"],
)
def test_it_is_available_when_every_replica_is_new_and_ready(status: dict[str, int], phase: str) -> None:
    observed = serving()
    assert observed.deployment is not None
    result = decide(replace(observed, deployment={**observed.deployment, "status": status}))
    assert result.decision.phase == phase
    assert result.decision.ready is (phase == "Available")
    assert result.decision.again_in == (15 if phase == "RollingOut" else None)


def test_what_is_available_says_what_to_ask_for() -> None:
    result = decide(serving())
    assert result.decision == Decision("Available", "Available", ready=True)
    assert result.message == "Model 'router' is served at http://router.team-a.svc/v1."
    assert (result.status.replicas, result.status.ready_replicas) == (1, 1)


def test_nothing_is_applied_again_while_it_is_what_was_applied() -> None:
    observed = serving(spec=deployment_spec(**GATED), gate=verdict(True))
    again = plan(observed, NOW)
    assert (again.apply, again.delete, again.status) == ((), (), observed.status)


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ((pod("", phase="Pending", waiting_reason="ImagePullBackOff"),), Reason.IMAGE_PULL_FAILED),
        ((pod("", phase="Pending", unschedulable_since=ago(31)),), Reason.UNSCHEDULABLE),
        (
            (pod("", phase="Running", waiting_reason="CrashLoopBackOff", exit_code=1, message="ImportError: x"),),
            Reason.FAILED,
        ),
        (
            (pod("", phase="Running", waiting_reason="CrashLoopBackOff", exit_code=137, oom_killed=True),),
            Reason.OUT_OF_MEMORY,
        ),
        (
            (pod("", phase="Failed", disk_exceeded='Usage of EmptyDir volume "models" exceeds the limit "20Gi".'),),
            Reason.OUT_OF_DISK,
        ),
    ],
)
def test_a_rollout_that_does_not_come_along_is_diagnosed(pods: tuple[Any, ...], reason: Reason) -> None:
    observed = serving()
    assert observed.deployment is not None
    starting = replace(observed, deployment={**observed.deployment, "status": {}}, pods=pods)
    result = decide(starting)
    assert result.decision == Decision("Blocked", reason, stalled=True, again_in=15, event=f"Warning {reason}")


def test_refused_pods_are_reported_from_the_deployments_own_condition() -> None:
    observed = serving()
    assert observed.deployment is not None
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": 'pods "router-5d8" is forbidden: exceeded quota: team, requested: pods=1, limited: pods=9',
    }
    refused = replace(observed, deployment={**observed.deployment, "status": {"conditions": [condition]}})
    assert decide(refused).decision.reason == Reason.QUOTA_EXCEEDED
    gone = {**condition, "status": "False"}
    cleared = replace(observed, deployment={**observed.deployment, "status": {"conditions": [gone]}})
    assert decide(cleared).decision.reason == Reason.ROLLING_OUT


def test_a_volume_that_a_server_waits_for_is_reported_by_an_event() -> None:
    observed = serving()
    assert observed.deployment is not None
    starting = replace(
        observed,
        deployment={**observed.deployment, "status": {}},
        pods=(pod("", phase="Pending", uid="p"),),
        warnings=(WarningEvent("p", "FailedMount", 'secret "s3-credentials" not found', ago(9)),),
    )
    assert decide(starting).decision.reason == Reason.SECRET_NOT_FOUND


def test_recreate_ends_the_pods_before_and_rolling_update_starts_beside_them() -> None:
    def strategy(**changes: Any) -> Any:
        observed = observed_deployment(spec=deployment_spec(**changes))
        return next(item for item in plan(observed, NOW).apply if item["kind"] == "Deployment")["spec"]["strategy"]

    assert strategy() == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert strategy(rollout={"type": "Recreate"}) == {"type": "Recreate"}


def test_a_pod_that_is_to_go_has_the_time_to_complete_its_answers() -> None:
    """Its end is after the requests that still come, and after the answers that it has begun."""
    (deployment,) = [item for item in plan(observed_deployment(), NOW).apply if item["kind"] == "Deployment"]
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > SERVING_LINGER_SECONDS + SERVING_DRAIN_SECONDS


def test_a_drain_takes_several_replicas_one_at_a_time_and_a_single_one_at_once() -> None:
    """A budget of one Pod allows the eviction of all, so that it may stay when replicas are scaled down."""

    def budgets(observed: ObservedModelDeployment) -> list[Any]:
        return [item for item in plan(observed, NOW).apply if item["kind"] == "PodDisruptionBudget"]

    one, several = deployment_spec(), deployment_spec(replicas=2)
    assert budgets(observed_deployment(spec=one)) == []
    (budget,) = budgets(observed_deployment(spec=several))
    (deployment,) = [
        item for item in plan(observed_deployment(spec=several), NOW).apply if item["kind"] == "Deployment"
    ]
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": deployment["spec"]["selector"],
    }
    scaled_up = decide(replace(serving(), spec=several))
    assert [write for write in scaled_up.decision.writes if "Budget" in write] == [
        f"PodDisruptionBudget/{budget['metadata']['name']}"
    ]
    assert "recreated" not in scaled_up.message, "it has never been there"
    assert budgets(replace(serving(spec=several), spec=one)) == [], "what is there is left alone"


def test_replicas_of_one_revision_are_spread_where_that_is_possible() -> None:
    (deployment,) = [item for item in plan(observed_deployment(), NOW).apply if item["kind"] == "Deployment"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for one in spread:
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"
        assert one["labelSelector"] == deployment["spec"]["selector"]
        assert one["matchLabelKeys"] == ["pod-template-hash"], "Pods of the revision before do not count"


# The next model.


def test_scaled_to_zero_it_says_that_nobody_answers() -> None:
    result = decide(serving(spec=deployment_spec(replicas=0)))
    assert result.decision == Decision("Available", "Available", ready=True)
    assert "`kubectl scale mdep`" in result.message


def test_one_that_begins_with_no_replicas_is_available_at_once() -> None:
    first = decide(observed_deployment(spec=deployment_spec(replicas=0)))
    assert "Deployment/router" in first.decision.writes
    assert first.decision.reason == Reason.AVAILABLE
    assert first.decision.event == "Normal Available"
    assert "Scaled to zero" in first.message


@pytest.mark.parametrize("replicas", [1, 0])
def test_scaled_down_it_says_that_pods_end_and_not_that_they_start(replicas: int) -> None:
    observed = replace(serving(spec=deployment_spec(replicas=2)), spec=deployment_spec(replicas=replicas))
    result = decide(observed)
    assert result.decision.reason == Reason.ROLLING_OUT
    assert result.message.startswith("Scaled down: the Pods that are not needed any more end.")


def test_no_more_replicas_than_the_class_allows() -> None:
    observed = replace(serving(), spec=deployment_spec(replicas=9))
    result = decide(observed)
    deployment = next(item for item in result.plan.apply if item["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 8
    assert result.decision.reason == Reason.LIMIT_EXCEEDED
    assert "Meanwhile, revision 'sha256:aa' is served" in result.message


def test_an_autoscaler_that_asks_for_more_than_the_class_allows_blocks_nothing() -> None:
    observed = replace(serving(spec=deployment_spec(replicas=8)), spec=deployment_spec(replicas=9))
    result = decide(observed)
    assert result.decision == Decision("Available", Reason.LIMIT_EXCEEDED, ready=True, event="Normal LimitExceeded")
    assert result.message == (
        "spec.replicas is 9; FineTuneClass 'cpu' allows 8. Lower it, or ask the platform team to raise "
        "limits.replicas of the class. "
        "Model 'router' is served at http://router.team-a.svc/v1."
    )
    rolled = decide(replace(observed, model=tuned("sha256:bb")))
    assert rolled.status.applied == tuned("sha256:bb").source
    assert rolled.decision.phase == "RollingOut"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exit_code": 1}, True),
        ({"exit_code": 1, "ready": True}, False),
        ({"exit_code": 143, "deletion_time": ago(1)}, False),
        ({"exit_code": 0}, False),
    ],
    ids=["ended with an error", "serves since", "is being deleted", "ended well"],
)
def test_a_container_that_ended_is_reported_at_once(changes: dict[str, Any], told: bool) -> None:
    """One that runs longer than the kubelet's pause before it is started again never shows CrashLoopBackOff."""
    observed = serving()
    assert observed.deployment is not None
    said = told_by(Failure(reason=Reason.MODEL_NOT_FOUND, message="Nothing is at s3://models/typo."))
    started = pod("", phase="Pending", **{"message": said, **changes})
    result = decide(replace(observed, deployment={**observed.deployment, "status": {}}, pods=(started,)))
    assert result.decision.reason == (Reason.MODEL_NOT_FOUND if told else Reason.ROLLING_OUT)
    assert result.decision.phase == ("Blocked" if told else "RollingOut")


def test_a_model_by_uri_is_its_own_revision() -> None:
    spec = deployment_spec(model={"fineTuneJobRef": None, "uri": "s3://models/base"})
    result = decide(serving(spec=spec, model=ResolvedModel(ModelSource(uri="s3://models/base"))))
    assert result.status.revision == "s3://models/base"


def test_nothing_applied_makes_it_unavailable_again() -> None:
    """A status that a restored backup brings along is not believed."""
    restored = ModelDeploymentStatus(
        phase="Available", replicas=3, ready_replicas=3, conditions=earlier_conditions(Reason.AVAILABLE, ready=True)
    )
    result = decide(observed_deployment(restored))
    assert (result.decision.phase, result.status.ready_replicas) == ("RollingOut", 0)


# What is applied.


def contested() -> ObservedModelDeployment:
    """An autoscaler has scaled the Deployment again, five times in a row."""
    observed = serving()
    assert observed.deployment is not None
    scaled = copy.deepcopy(observed.deployment)
    (ours,) = scaled["metadata"]["managedFields"]
    replicas = {"f:spec": {"f:replicas": ours["fieldsV1"]["f:spec"].pop("f:replicas")}}
    theirs = {"manager": "hpa", "operation": "Update", "subresource": "scale", "fieldsV1": replicas}
    scaled["metadata"]["managedFields"] = [ours, theirs]
    drift = DriftedField(field="Deployment spec.replicas", manager="hpa", corrections=5, last_correction_time=ago(3))
    return replace(observed, deployment=scaled, status=observed.status.model_copy(update={"drift": [drift]}))


def test_a_field_that_somebody_added_is_gone_after_one_look() -> None:
    """First it is made ours, and then applied without it."""
    observed = serving()
    assert observed.deployment is not None
    paused = copy.deepcopy(observed.deployment)
    added = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    paused["metadata"] |= {"resourceVersion": "7", "managedFields": [*paused["metadata"]["managedFields"], added]}
    writes = plan(replace(observed, deployment=paused), NOW)
    assert [body["kind"] for body in writes.merge] == ["Deployment"]
    assert [body["kind"] for body in writes.apply] == ["Deployment"]


@pytest.mark.parametrize(
    ("changes", "applied"),
    [
        ({}, []),
        ({"generation": 2}, []),
        ({"spec": deployment_spec(replicas=2)}, ["Deployment", "PodDisruptionBudget"]),
        ({"class_": resolved_class(images={"trainer": "example.com/trainer:2"})}, ["Deployment"]),
        ({"model": tuned("sha256:bb")}, ["ConfigMap", "Deployment"]),
    ],
    ids=["nothing new", "another gate", "more replicas", "another image of the class", "a new revision"],
)
def test_what_is_new_does_not_wait_for_a_contest(changes: dict[str, Any], applied: list[str]) -> None:
    plan_of = plan(replace(contested(), **changes), NOW)
    assert [body["kind"] for body in plan_of.apply] == applied
    assert decided(plan_of).decision.reason == Reason.DRIFT_CONTESTED


def test_a_pod_identity_is_the_fetching_containers_only() -> None:
    """What the webhooks of AWS, Azure and Alibaba are told: the Pod's other container gets no token and no variable."""
    identity = resolved_class(storage={"credentialsSecretName": None, "serviceAccountName": "storage"})
    template = plan(observed_deployment(class_=identity), NOW).apply[1]["spec"]["template"]
    assert [container["name"] for container in template["spec"]["containers"]] == ["server"]
    skipped = {
        name: value for name, value in template["metadata"]["annotations"].items() if name.endswith("/skip-containers")
    }
    assert skipped == {
        "eks.amazonaws.com/skip-containers": "server",
        "azure.workload.identity/skip-containers": "server",
        "pod-identity.alibabacloud.com/skip-containers": "server",
    }
    assert template["spec"]["initContainers"][0]["name"] == "fetch"
    by_secret = plan(observed_deployment(), NOW).apply[1]["spec"]["template"]["metadata"]["annotations"]
    assert not any(name.endswith("/skip-containers") for name in by_secret)


def test_the_server_has_no_credential_and_serves_what_was_fetched_read_only() -> None:
    _, deployment, service = plan(observed_deployment(), NOW).apply
    pod_spec = deployment["spec"]["template"]["spec"]
    (fetch,), (server,) = pod_spec["initContainers"], pod_spec["containers"]
    assert STORAGE_CREDENTIALS_DIRECTORY in json.dumps(fetch)
    assert STORAGE_CREDENTIALS_DIRECTORY not in json.dumps(server)
    assert "AWS_" not in json.dumps(server)
    assert pod_spec["automountServiceAccountToken"] is False
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in server["volumeMounts"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == DEPLOYMENT.uid
