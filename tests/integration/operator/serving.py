"""A ModelDeployment that serves, with Pods that are played, and hands that meddle with it as kubectl does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from tests.integration.operator import played
from tests.integration.operator.api import Api, Object, RefusedError, condition, wait_for
from tests.integration.operator.jobs import DEPLOYMENT, EVALUATION, JOB, RESULT, evaluation_report

STRATEGIC = "application/strategic-merge-patch+json"


def serves(api: Api, **changes: Any) -> Object:
    """A model that passed its gate is available; returns the ModelDeployment."""
    is_trained(api)
    evaluation = api.create("Evaluation", "router", EVALUATION)
    (pod,) = api.wait_children(evaluation, "evaluate", "Pod")
    played.ends(api, pod, evaluation_report(tuned=0.75))
    deployment = api.create("ModelDeployment", "router", {**DEPLOYMENT, **changes})
    all_are_ready(api, deployment)
    return api.wait_reason("ModelDeployment", "router", "Available")


def is_trained(api: Api) -> None:
    """A FineTuneJob whose result is there: that it has trained is played."""
    api.create("FineTuneJob", "router", {**JOB, "suspend": True})
    status = api.wait_reason("FineTuneJob", "router", "Suspended")["status"]
    api.put_status("FineTuneJob", "router", {**status, "phase": "Succeeded", "result": RESULT.to_wire()})


def all_are_ready(api: Api, deployment: Object, number: int = 1) -> None:
    """Every serving Pod answers."""
    for pod in api.wait_children(deployment, "serve", "Pod", number):
        played.ready(api, pod)


def becomes_available(api: Api, deployment: Object) -> None:
    """The Pods answer, whichever revision they are of, and those of the older ones go."""
    answers_until(api, deployment, lambda found: condition(found, "Ready").get("reason") == "Available")


def answers_until(api: Api, deployment: Object, until: Callable[[Object], bool]) -> Object:
    """Whatever Pods there are answer, those that come and those that are about to go; returns the ModelDeployment."""

    def is_so() -> bool:
        for pod in api.children_of(deployment, "serve", "Pod"):
            with contextlib.suppress(RefusedError):  # It has gone.
                played.ready(api, pod)
        return until(api.get("ModelDeployment", "router"))

    wait_for(is_so, "its Pods answer, and its status says so")
    return api.get("ModelDeployment", "router")


def raise_gate(api: Api) -> Object:
    """The gate of what serves is raised: from now on the next revision waits."""
    api.patch("Evaluation", "router", {"spec": {"gates": [{"grader": "exact", "minimum": 0.99}]}})
    return api.wait_reason("ModelDeployment", "router", "GateFailed")


def template(api: Api) -> Object:
    found: Object = api.get("Deployment", "router")["spec"]["template"]["spec"]
    return found


def edit(api: Api, spec: Object, manager: str = "kubectl-edit") -> None:
    """Change the Deployment as `kubectl edit`, `set image` and `set env` do."""
    path = f"{api.path('Deployment', 'router')}?fieldManager={manager}"
    api.request("PATCH", path, {"spec": spec}, STRATEGIC)


def scale(api: Api, kind: str, replicas: int) -> None:
    """`kubectl scale`."""
    path = f"{api.path(kind, 'router')}/scale?fieldManager=kubectl"
    api.request("PATCH", path, {"spec": {"replicas": replicas}}, "application/merge-patch+json")


def expect_spec(api: Api, kind: str, spec: Object) -> None:
    """Wait until the spec is this again."""
    wait_for(lambda: bool(api.get(kind, "router")["spec"] == spec), f"the {kind} is as it was: {spec}")


def expect_made_again(api: Api, gone: Object) -> Object:
    """Wait until an object of this name is there that is not the one that was deleted."""
    name, uid = gone["metadata"]["name"], gone["metadata"]["uid"]
    kind = gone["kind"]

    def is_another() -> bool:
        return any(
            item["metadata"]["name"] == name and item["metadata"]["uid"] != uid and not _is_going(item)
            for item in api.items(kind)
        )

    wait_for(is_another, f"{kind} {name} is made again")
    return api.get(kind, name)


def quiet_versions(api: Api, deployment: Object) -> dict[str, str]:
    """What tells a write of the operator, of all that it applies for it and of its status; and which Pods there are.

    The status of a Deployment and of a Pod, which have another resource version then, is written by Kubernetes.
    """
    found = {kind: items for kind, items in api.children(deployment["metadata"]["uid"]).items()}
    found["ModelDeployment"] = [api.get("ModelDeployment", deployment["metadata"]["name"])]
    read = {"Deployment": _applied_version, "Pod": lambda pod: ""}
    return {
        item["metadata"]["name"] + item["metadata"]["uid"]: read.get(kind, _resource_version)(item)
        for kind, items in found.items()
        for item in items
    }


def _resource_version(item: Object) -> str:
    return str(item["metadata"]["resourceVersion"])


def _applied_version(deployment: Object) -> str:
    """Its spec's, and what the API server has on account of the operator, with the time of its last change."""
    (ours,) = [
        entry
        for entry in deployment["metadata"]["managedFields"]
        if (entry["manager"], entry["operation"]) == ("finetune-operator", "Apply")
    ]
    return f"{deployment['metadata']['generation']} {json.dumps(ours)}"


def ready_message(item: Object) -> str:
    message: str = condition(item, "Ready")["message"]
    return message


def _is_going(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]
