"""The gateway of a ModelDeployment: when the Service leads to it, what is said of it, and that it goes as it came."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune_api.conditions import Reason
from finetune_api.pod_contracts.run import SERVING_DRAIN_SECONDS, SERVING_LINGER_SECONDS
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.kube.resources import Object
from finetune_operator.modeldeployment.observed import ObservedModelDeployment
from finetune_operator.modeldeployment.plan import plan
from finetune_operator.pods.warning_events import WarningEvent
from tests.unit.operator.deployment_states import (
    after,
    answering,
    deployment_spec,
    observed_deployment,
    rolled_out,
    stored,
)
from tests.unit.operator.modeldeployment.plans import decide, serving
from tests.unit.operator.states import NOW, ago, pod, resolved_class

IMAGE = "example.com/operator:1"
WITH_GATEWAY = deployment_spec(gateway={})


def asked(**changes: Any) -> ObservedModelDeployment:
    """A model that serves, of which a gateway is asked for by now."""
    return replace(serving(), spec=WITH_GATEWAY, gateway_image=IMAGE, **changes)


def applied(observed: ObservedModelDeployment, kind: str, role: str) -> Object:
    (found,) = [
        item
        for item in plan(observed, NOW).apply
        if item["kind"] == kind and item["metadata"]["labels"]["finetune.dev/role"] == role
    ]
    return found


def with_gateway(ready: int, number: int = 2) -> ObservedModelDeployment:
    """What was applied is there, and so many Pods of the gateway are ready."""
    observed = after(asked(), plan(asked(), NOW))
    extras = [
        rolled_out(item, number, readyReplicas=ready) if item["kind"] == "Deployment" else item
        for item in observed.extras
    ]
    return replace(observed, extras=tuple(extras))


def behind_gateway() -> ObservedModelDeployment:
    """The gateway is ready, and the Service leads there."""
    return after(with_gateway(ready=2), plan(with_gateway(ready=2), NOW))


def behind(observed: ObservedModelDeployment) -> str:
    """The role of the Pods that the Service leads to once the plan is done."""
    service = after(observed, plan(observed, NOW)).service
    assert service is not None
    role: str = service["spec"]["selector"]["finetune.dev/role"]
    return role


def test_without_one_nothing_is_there_for_it() -> None:
    kinds = [item["kind"] for item in plan(observed_deployment(gateway_image=IMAGE), NOW).apply]
    assert kinds == ["ConfigMap", "Deployment", "Service"]
    assert plan(replace(serving(), gateway_image=IMAGE), NOW).apply == ()


def test_it_starts_beside_what_serves_and_the_service_leads_there_once_it_answers() -> None:
    starting = decide(asked())
    kinds = ["Service", "Deployment", "PodDisruptionBudget"]
    assert [write.partition("/")[0] for write in starting.decision.writes] == kinds
    assert "Service/router" not in starting.decision.writes
    assert (starting.decision.phase, starting.decision.reason) == ("RollingOut", Reason.ROLLING_OUT)
    assert behind(with_gateway(ready=0)) == "serve"
    assert "0 of 2 Pods of the gateway are ready" in decide(with_gateway(ready=0)).message
    assert behind(with_gateway(ready=1)) == "gateway"
    assert decide(behind_gateway()).decision.reason == Reason.AVAILABLE
    assert decide(behind_gateway()).decision.writes == ()


def test_the_service_stays_with_it_while_none_of_its_pods_answers() -> None:
    """Its limits hold, whatever ails it."""
    failing = replace(behind_gateway(), extras=with_gateway(ready=0).extras)
    assert behind(failing) == "gateway"
    assert not decide(failing).decision.ready


def test_it_chooses_among_the_pods_that_serve_by_the_name_of_a_headless_service() -> None:
    servers, gateway = applied(asked(), "Service", "serve"), applied(asked(), "Deployment", "gateway")
    serving_pods = (serving().deployment or {})["spec"]["selector"]["matchLabels"]
    assert (servers["spec"]["clusterIP"], servers["spec"]["selector"]) == ("None", serving_pods)
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert f"--servers={servers['metadata']['name']}.team-a.svc" in container["args"], "of any domain"
    assert container["image"] == IMAGE


def test_it_has_nothing_that_it_has_no_need_of() -> None:
    """No accelerator, no token, no volume, and nothing of the storage."""
    class_ = resolved_class(
        accelerator={"resourceName": "nvidia.com/gpu", "countPerNode": 1},
        scheduling={"nodeSelector": {"gpu": "yes"}},
        storage={"credentialsSecretName": None, "serviceAccountName": "storage"},
    )
    spec = applied(replace(asked(), class_=class_), "Deployment", "gateway")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert not {"volumes", "serviceAccountName", "nodeSelector", "initContainers"} & spec.keys()
    (container,) = spec["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert "volumeMounts" not in container
    assert spec["terminationGracePeriodSeconds"] > SERVING_LINGER_SECONDS + SERVING_DRAIN_SECONDS


def test_its_limits_are_those_of_the_spec() -> None:
    limits = {"replicas": 3, "inFlightLimit": 5, "queueLimit": 7, "queueSeconds": 9}
    gateway = applied(replace(asked(), spec=deployment_spec(gateway=limits)), "Deployment", "gateway")
    assert gateway["spec"]["replicas"] == 3
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert {"--in-flight=5", "--queue=7", "--queue-seconds=9"} < set(container["args"])


def test_what_keeps_its_pods_from_starting_is_reported() -> None:
    missing = WarningEvent("p", "FailedMount", 'secret "pull" not found', ago(9))
    waiting = pod("", phase="Pending", uid="p")
    starting = replace(with_gateway(0), gateway_pods=(waiting,), warnings=(missing,))
    result = decide(after(starting, plan(starting, NOW)))
    assert (result.decision.reason, result.decision.stalled) == (Reason.SECRET_NOT_FOUND, True)
    assert result.message.startswith("Of the gateway: ")


def test_an_operator_without_its_image_says_so_and_serves_without_it() -> None:
    result = decide(replace(serving(), spec=WITH_GATEWAY))
    assert (result.decision.reason, result.decision.stalled) == (Reason.INVALID_SPEC, True)
    assert "--gateway-image" in result.message
    assert result.decision.writes == ()


def test_asked_for_no_more_it_goes_after_the_service_has_turned_back() -> None:
    without = replace(behind_gateway(), spec=deployment_spec())
    gone = decide(without)
    assert gone.decision.writes == ("Service/router",), "applied before anything is deleted"
    kinds = ["Deployment", "PodDisruptionBudget", "Service"]
    assert sorted(name.partition("/")[0] for name in gone.decision.deletes) == kinds
    left = after(without, gone.plan)
    assert (left.service or {})["spec"]["selector"]["finetune.dev/role"] == "serve"
    assert left.extras == ()
    assert decide(left).decision.reason == Reason.AVAILABLE


def test_what_others_change_in_it_is_put_right_and_reported_by_its_name() -> None:
    observed = behind_gateway()
    (gateway,) = [item for item in observed.extras if item["kind"] == "Deployment"]
    name = gateway["metadata"]["name"]
    ours = stored({part: value for part, value in gateway.items() if part != "status"})
    del ours["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]
    theirs = {"manager": "kubectl", "operation": "Update", "time": "2026-11-22T11:00:00Z"}
    ours["metadata"]["managedFields"].append({**theirs, "fieldsV1": {"f:spec": {"f:replicas": {}}}})
    meddled = tuple(rolled_out(ours, 2) if item is gateway else item for item in observed.extras)
    result = decide(replace(observed, extras=meddled))
    assert result.decision.writes == (f"Deployment/{name}",)
    assert [one.field for one in result.status.drift] == [f"Deployment {name} spec.replicas"]


def without_ready_pods(observed: ObservedModelDeployment) -> ObservedModelDeployment:
    """None of the gateway's Pods is ready."""
    extras = [
        rolled_out(item, 2, readyReplicas=0) if item["kind"] == "Deployment" else item for item in observed.extras
    ]
    return replace(observed, extras=tuple(extras))


def test_without_a_ready_pod_of_it_nothing_is_said_to_be_served() -> None:
    down = without_ready_pods(behind_gateway())
    result = decide(down)
    assert (result.decision.ready, result.decision.stalled) == (False, False)
    assert (result.decision.phase, result.decision.reason) == ("RollingOut", Reason.GATEWAY_UNAVAILABLE)
    assert result.message == (
        "0 of 2 Pods of the gateway are ready. Meanwhile, nothing is reachable: no Pod of the gateway is ready. "
        "Of the serving Pods, 1 of 1 are ready."
    )


def test_serving_pods_that_are_missing_at_the_same_time_do_not_hide_it() -> None:
    down = without_ready_pods(behind_gateway())
    assert down.deployment is not None
    starting = {**down.deployment, "status": {**down.deployment["status"], "readyReplicas": 0}}
    result = decide(replace(down, deployment=starting, pods=answering(starting, 1, ready=False)))
    assert result.decision.reason == Reason.GATEWAY_UNAVAILABLE
    assert "nothing is reachable" in result.message
    assert "0 of 1 are ready" in result.message

    crashed = pod("rs", 0, exit_code=3, waiting_message="no such model")
    result = decide(replace(down, deployment=starting, pods=(crashed,)))
    assert result.decision.stalled, "what has no cure by itself is told first"
    assert "nothing is reachable" in result.message


def test_what_the_next_revision_waits_for_does_not_hide_it() -> None:
    waiting = progressing(Reason.WAITING_FOR_MODEL, "FineTuneJob 'next' has not finished.")
    result = decide(replace(without_ready_pods(behind_gateway()), model=waiting))
    assert (result.decision.phase, result.decision.reason) == ("RollingOut", Reason.GATEWAY_UNAVAILABLE)
    assert "nothing is reachable" in result.message
    assert result.message.endswith("FineTuneJob 'next' has not finished.")
    missing = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'next' does not exist.")
    result = decide(replace(without_ready_pods(behind_gateway()), model=missing))
    assert result.decision.reason == Reason.REFERENCE_NOT_FOUND
    assert "nothing is reachable" in result.message
    assert "is served" not in result.message


def test_pods_of_its_template_before_can_be_reached() -> None:
    observed = behind_gateway()
    extras = [
        rolled_out(item, 2, updatedReplicas=0) if item["kind"] == "Deployment" else item for item in observed.extras
    ]
    result = decide(replace(observed, extras=tuple(extras)))
    assert (result.decision.reason, result.decision.ready) == (Reason.ROLLING_OUT, False)
    assert "is served: 1 of 1 replicas ready." in result.message
