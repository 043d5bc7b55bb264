"""A rollout on the real API server: what the status says of it is what its Pods, of either revision, do."""

from __future__ import annotations

import pytest

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, stalled, wait_for
from tests.integration.operator.serving import all_are_ready, becomes_available, expect_made_again, ready_message, scale

pytestmark = pytest.mark.usefixtures("operator")

OLD, NEW = "s3://models/old", "s3://models/new"


def serves_old(api: Api, **changes: object) -> Object:
    """A model without a gate is available."""
    deployment = api.create("ModelDeployment", "router", {"className": "cpu", "model": {"uri": OLD}, **changes})
    all_are_ready(api, deployment, int(str(changes.get("replicas", 1))))
    return api.wait_reason("ModelDeployment", "router", "Available")


def counts(found: Object) -> dict[str, tuple[int, int]]:
    return {
        one["revision"]: (one["replicas"], one["readyReplicas"]) for one in found.get("status", {}).get("revisions", [])
    }


def new_pods(api: Api, deployment: Object, old: list[Object], number: int) -> list[Object]:
    """The Pods that the Deployment controller has made beside these."""
    names = {pod["metadata"]["name"] for pod in old}
    pods = api.wait_children(deployment, "serve", "Pod", number + len(old))
    return [pod for pod in pods if pod["metadata"]["name"] not in names]


def test_a_model_whose_rollout_is_stuck_is_not_called_served(api: Api) -> None:
    deployment = serves_old(api)
    old = api.wait_children(deployment, "serve", "Pod")
    api.patch("ModelDeployment", "router", {"spec": {"model": {"uri": NEW}}})
    (new,) = new_pods(api, deployment, old, 1)
    begun = api.wait("ModelDeployment", "router", lambda found: counts(found) == {OLD: (1, 1), NEW: (1, 0)})
    assert (begun["status"]["revision"], begun["status"]["served"]) == (OLD, {"uri": OLD})
    assert begun["status"]["applied"] == {"uri": NEW}

    played.waits(api, new, "ImagePullBackOff", "no such image")
    stuck = api.wait_reason("ModelDeployment", "router", "ImagePullFailed")
    assert (stuck["status"]["revision"], stuck["status"]["readyReplicas"]) == (OLD, 1)
    assert (
        f"Meanwhile, revision {OLD!r} (1 ready) is served; of {NEW!r} 0 of 1 replicas are ready." in stalled(stuck)[1]
    )

    played.ready(api, new)
    done = api.wait_reason("ModelDeployment", "router", "Available")
    assert (done["status"]["revision"], counts(done)) == (NEW, {NEW: (1, 1)})


def test_two_models_that_answer_during_a_rollout_are_both_named(api: Api) -> None:
    deployment = serves_old(api, replicas=2)
    old = api.wait_children(deployment, "serve", "Pod", 2)
    api.patch("ModelDeployment", "router", {"spec": {"model": {"uri": NEW}}})
    (new,) = new_pods(api, deployment, old, 1)
    played.ready(api, new)
    both = api.wait("ModelDeployment", "router", lambda found: counts(found) == {OLD: (1, 1), NEW: (2, 1)})
    assert both["status"]["revision"] == OLD, "it is to go, and has not"
    assert f"Meanwhile, revisions {NEW!r} (1 ready) and {OLD!r} (1 ready) are served." in ready_message(both)


def test_a_model_of_which_no_pod_answers_is_served_by_nobody(api: Api) -> None:
    api.create("ModelDeployment", "router", {"className": "cpu", "model": {"uri": OLD}})
    begun = api.wait("ModelDeployment", "router", lambda found: counts(found) == {OLD: (1, 0)})
    assert begun["status"]["applied"] == {"uri": OLD}
    assert not {"revision", "served"} & begun["status"].keys()
    assert "Meanwhile, no Pod is serving: 0 of 1 replicas ready." in ready_message(begun)


def corrections(api: Api) -> list[str]:
    return [item["message"] for item in api.items("Event") if item["reason"] == "DriftCorrected"]


@pytest.mark.parametrize(
    ("replicas", "who"), [(3, "which 'kubectl' set."), (0, "which somebody changed or removed.")], ids=["up", "to zero"]
)
def test_a_correction_is_an_event_that_names_field_and_manager_once(api: Api, replicas: int, who: str) -> None:
    """The API server writes down no manager of a scale to 0."""
    deployment = serves_old(api)
    for _ in range(3):
        scale(api, "Deployment", replicas)
        wait_for(lambda: api.get("Deployment", "router")["spec"]["replicas"] == 1, "it is put back")
        becomes_available(api, deployment)
    (told,) = corrections(api)
    assert told.startswith(f"Reverted: Deployment spec.replicas, {who}")
    assert "kubectl scale mdep router" in told


def test_what_was_deleted_and_made_again_is_an_event(api: Api) -> None:
    serves_old(api)
    gone = {**api.get("Service", "router"), "kind": "Service"}
    api.delete("Service", "router")
    expect_made_again(api, gone)
    wait_for(lambda: corrections(api) == ["Recreated after it was deleted: Service 'router'."], "it is told")


def test_what_a_pod_waits_for_is_said_at_once(api: Api) -> None:
    """The real scheduler finds no node, and it is too early to call that a blockage."""
    api.create("ModelDeployment", "router", {"className": "cpu", "model": {"uri": OLD}})
    found = api.wait("ModelDeployment", "router", lambda item: "can't be scheduled" in str(item.get("status")))
    assert "Meanwhile, no Pod is serving: 0 of 1 replicas ready." in ready_message(found)


def test_the_strategy_may_change_and_the_history_names_both_models(api: Api) -> None:
    """To Recreate, in which the API server allows nothing of a rolling update, and back."""
    serves_old(api)
    api.patch("ModelDeployment", "router", {"spec": {"rollout": {"type": "Recreate"}, "model": {"uri": NEW}}})
    wait_for(lambda: api.get("Deployment", "router")["spec"]["strategy"] == {"type": "Recreate"}, "it is Recreate")
    begun = api.wait("ModelDeployment", "router", lambda found: len(found["status"].get("history", [])) == 2)
    newest, before = begun["status"]["history"]
    assert (newest["revision"], before["revision"]) == (NEW, OLD)
    assert "availableTime" in before and "availableTime" not in newest
    api.patch("ModelDeployment", "router", {"spec": {"rollout": {"type": "RollingUpdate"}}})
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    wait_for(lambda: api.get("Deployment", "router")["spec"]["strategy"]["type"] == "RollingUpdate", "it rolls again")
    assert api.get("Deployment", "router")["spec"]["strategy"].keys() == rolling.keys()


def test_several_replicas_have_a_disruption_budget_which_is_kept_as_it_is(api: Api) -> None:
    deployment = serves_old(api)
    api.patch("ModelDeployment", "router", {"spec": {"replicas": 2}})
    (budget,) = api.wait_children(deployment, "serve", "PodDisruptionBudget")
    name = budget["metadata"]["name"]
    all_are_ready(api, deployment, 2)
    protected = api.wait("PodDisruptionBudget", name, lambda found: found.get("status", {}).get("expectedPods") == 2)
    assert protected["status"]["desiredHealthy"] == 1
    api.patch("PodDisruptionBudget", name, {"spec": {"maxUnavailable": 2}}, query="fieldManager=kubectl-edit")
    wait_for(lambda: api.get("PodDisruptionBudget", name)["spec"] == budget["spec"], "it is as it was")
    api.delete("PodDisruptionBudget", name)
    expect_made_again(api, {**budget, "kind": "PodDisruptionBudget"})
