"""Plays the kubelet: there is no node, so tests write Pod statuses as a kubelet would. Everything else is real.

The Job controller, the Deployment controller and the garbage collector then do what they do in any cluster.
"""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

from finetune_api.pod_contracts.outcome import (
    EXIT_DISRUPTED,
    AnyReport,
    DatasetReport,
    EvaluationReport,
    Failure,
    TrainReport,
)
from finetune_api.pod_contracts.termination_message import to_termination_message
from tests.integration.operator.api import Api, Object, RefusedError, condition

ANY_FOLDER = "s3://models/finetune"
"""Stands in the reports of tests for the folder of the run that they are of."""
MOMENT = "2026-11-22T12:00:00Z"


def waits(api: Api, pod: Object, reason: str, message: str) -> None:
    """The container can't be started."""
    _container(api, pod, "Pending", {"waiting": {"reason": reason, "message": message}})


def is_placed(api: Api, pod: Object) -> None:
    """After the real scheduler found no node for it, it gets one."""
    name = pod["metadata"]["name"]
    api.wait("Pod", name, lambda found: condition(found, "PodScheduled").get("reason") == "Unschedulable")
    is_bound(api, pod)


def is_warned_of(api: Api, pod: Object, reason: str, message: str) -> None:
    """The kubelet records an Event."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    meta = pod["metadata"]
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}."},
        "involvedObject": {name: meta[name] for name in ("name", "namespace", "uid")} | {"kind": "Pod"},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": {"component": "kubelet"},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
    api.request("POST", api.path("Event"), body)


def runs(api: Api, pod: Object) -> None:
    """The container runs."""
    _container(api, pod, "Running", {"running": {"startedAt": MOMENT}})


def ready(api: Api, pod: Object) -> None:
    """The container runs and its readiness probe succeeds."""
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": MOMENT} for kind in ("ContainersReady", "Ready")
    ]
    _container(api, pod, "Running", {"running": {"startedAt": MOMENT}}, conditions)


def ends(api: Api, pod: Object, answer: AnyReport | str, exit_code: int = 0) -> None:
    """The container ended, and left this in its termination message."""
    if isinstance(answer, Failure):
        exit_code = 1
    message = answer if isinstance(answer, str) else to_termination_message(in_its_folder(api, pod, answer))
    ended = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "message": message,
        "startedAt": MOMENT,
        "finishedAt": MOMENT,
    }
    _container(api, pod, "Succeeded" if exit_code == 0 else "Failed", {"terminated": ended})


def is_disrupted(api: Api, pod: Object) -> None:
    """The Pod is evicted: it is told to stop, and does."""
    moved = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        # The disruption controller takes it back from a Pod that did not end within two minutes of it.
        "lastTransitionTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    api.patch("Pod", pod["metadata"]["name"], {"status": {"conditions": [moved]}}, "status")
    ends(api, pod, "", EXIT_DISRUPTED)


def is_bound(api: Api, pod: Object) -> None:
    """It is on a node, so that whoever deletes it has to wait for the kubelet.

    So has the Job controller: from a second after the first failure in a gang on, it deletes the Pods that still run.
    There is no node, and such a Pod is removed after 40 s. Each gets another one: they are counted from when a Pod of
    that node was first seen, so that of one node for all every test's Pods would go at once, be they a second old.
    """
    name = pod["metadata"]["name"]
    target = {"apiVersion": "v1", "kind": "Node", "name": f"node-of-{name}"}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    api.request("POST", api.path("Pod", name) + "/binding", body)


def has_stopped(api: Api, pod: Object) -> None:
    """Its containers have ended after it was deleted: the kubelet says so, and then lets it go."""
    ends(api, pod, "", EXIT_DISRUPTED)
    with contextlib.suppress(RefusedError):  # The garbage collector or the Job controller may have been faster.
        api.request("DELETE", api.path("Pod", pod["metadata"]["name"]), {"gracePeriodSeconds": 0})


def in_its_folder(api: Api, pod: Object, answer: AnyReport) -> AnyReport:
    """The report with the URIs that the trainer would write: below the folder that its run configuration names."""
    if not isinstance(answer, DatasetReport | TrainReport | EvaluationReport):
        return answer
    folder = json.loads(run_files(api, pod)["run.json"])["outputUri"]
    text = answer.model_dump_json(by_alias=True).replace(f"{ANY_FOLDER}/", f"{folder}/")
    return type(answer).model_validate_json(text)


def run_files(api: Api, template: Object) -> dict[str, str]:
    """What the kubelet puts into the run configuration's folder: from the Pod's annotations, or from a ConfigMap.

    `template`: the Pod, or its Job's template.
    """
    (volume,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "run"]
    if "configMap" in volume:
        data: dict[str, str] = api.get("ConfigMap", volume["configMap"]["name"])["data"]
        return data
    annotations = template["metadata"]["annotations"]
    items = volume["downwardAPI"]["items"]
    return {item["path"]: annotations[item["fieldRef"]["fieldPath"].split("'")[1]] for item in items}


def _container(api: Api, pod: Object, phase: str, state: Object, conditions: list[Any] | None = None) -> None:
    (container,) = pod["spec"]["containers"]
    is_ready = conditions is not None
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": is_ready,
        "restartCount": 0,
        "started": is_ready,
        "state": state,
    }
    body = {"phase": phase, "containerStatuses": [status], **({"conditions": conditions} if is_ready else {})}
    api.patch("Pod", pod["metadata"]["name"], {"status": body}, "status")
