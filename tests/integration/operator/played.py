"""Plays the kubelet: there is no node, so tests write Pod statuses as a kubelet would. Everything else is real.

The Job controller, the Deployment controller and the garbage collector then do what they do in any cluster.
"""

from __future__ import annotations

from typing import Any

from finetune_api.outcome import EvaluationReport, Failure, PreflightReport, TrainReport, to_termination_message
from tests.integration.operator.api import Api, Object

MOMENT = "2026-11-22T12:00:00Z"


def waits(api: Api, pod: Object, reason: str, message: str) -> None:
    """The container can't be started."""
    _container(api, pod, "Pending", {"waiting": {"reason": reason, "message": message}})


def runs(api: Api, pod: Object) -> None:
    """The container runs."""
    _container(api, pod, "Running", {"running": {"startedAt": MOMENT}})


def ready(api: Api, pod: Object) -> None:
    """The container runs and its readiness probe succeeds."""
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": MOMENT} for kind in ("ContainersReady", "Ready")
    ]
    _container(api, pod, "Running", {"running": {"startedAt": MOMENT}}, conditions)


def ends(
    api: Api, pod: Object, answer: PreflightReport | TrainReport | EvaluationReport | Failure | str, exit_code: int = 0
) -> None:
    """The container ended, and left this in its termination message."""
    if isinstance(answer, Failure):
        exit_code = 1
    message = answer if isinstance(answer, str) else to_termination_message(answer)
    ended = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "message": message,
        "startedAt": MOMENT,
        "finishedAt": MOMENT,
    }
    _container(api, pod, "Succeeded" if exit_code == 0 else "Failed", {"terminated": ended})


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
