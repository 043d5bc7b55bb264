"""Objects as the API server has them: a job at each stage, its Pods, Events."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_view.object_view import ObjectView, object_view

Object = dict[str, Any]
NOW = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)
UID = "6a7fdc64-0000-4000-8000-000000000001"


def before_now(seconds: float) -> str:
    return f"{NOW - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def condition(kind: str, status: str, reason: str, message: str, seconds: float = 60) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before_now(seconds),
    }


def job(status: Object | None = None, spec: Object | None = None, **metadata: Any) -> Object:
    """A FineTuneJob whose status describes its spec."""
    asked = {
        "model": {"uri": "s3://models/base"},
        "dataset": {"training": {"uri": "s3://data/train.jsonl"}},
        "parallelism": {"nodes": 2, "processesPerNode": 4},
        "retryLimit": 3,
        "runId": "1",
        "suspend": False,
    }
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {
            "name": "router",
            "namespace": "team-a",
            "uid": UID,
            "generation": 2,
            "creationTimestamp": before_now(7200),
            **metadata,
        },
        "spec": {**asked, **(spec or {})},
        "status": {"observedGeneration": 2, "runId": "1", "className": "h100", **(status or {})},
    }


TRAINING: Object = {
    "phase": "Training",
    "startTime": before_now(3600),
    "conditions": [
        condition("Ready", "False", "Training", "The training Pods are running.", 3600),
        condition("Stalled", "False", "Progressing", "No problem is known."),
    ],
    "attempt": {
        "number": 2,
        "state": "Running",
        "jobName": "router-train-2",
        "retries": 1,
        "disruptions": 1,
        "startTime": before_now(1290),
        "podsStartTime": before_now(1200),
    },
    "endedAttempts": [
        {
            "number": 1,
            "outcome": "Disrupted",
            "reason": "NodeLost",
            "message": "The node is gone.",
            "startTime": before_now(3500),
            "endTime": before_now(1300),
            "step": 120,
        }
    ],
    "progress": {
        "step": 420,
        "totalSteps": 1000,
        "percent": 42,
        "epoch": 1.26,
        "loss": 0.52345,
        "evalLoss": 0.61,
        "learningRate": 0.0002,
        "tokensPerSecond": 12345.6,
        "estimatedRemaining": "42m",
    },
    "checkpoints": [{"step": 400, "uri": "s3://m/c", "size": 3 * 2**20, "committedTime": before_now(90)}],
    "dataset": {"training": {"examples": 1500, "tokens": 90000}, "warnings": ["3 examples are longer than 512"]},
    "usage": {"month": "2026-11", "className": "h100", "acceleratorSeconds": 36000},
}
FAILED: Object = {
    **TRAINING,
    "phase": "Failed",
    "completionTime": before_now(60),
    "conditions": [
        condition("Ready", "False", "CUDAOutOfMemory", "The accelerator ran out of memory."),
        condition("Stalled", "True", "CUDAOutOfMemory", "The accelerator ran out of memory."),
        condition("Failed", "True", "CUDAOutOfMemory", "The accelerator ran out of memory."),
    ],
    "failure": {
        "reason": "CUDAOutOfMemory",
        "message": "The accelerator ran out of memory: 80 GiB are in use.",
        "pod": "router-train-2-1-abcde",
        "rank": 5,
        "suggestion": "Set hyperparameters.batchSize to 8.",
        "log": "\n".join(f"line {number}" for number in range(1, 31)),
    },
}
SUCCEEDED: Object = {
    **TRAINING,
    "phase": "Succeeded",
    "completionTime": before_now(60),
    "conditions": [
        condition("Ready", "True", "Succeeded", "The model is at s3://m/result."),
        condition("Stalled", "False", "Progressing", "No problem is known."),
    ],
    "result": {"uri": "s3://m/result", "step": 1000, "evalLoss": 0.5, "reportUri": "s3://m/result/report.html"},
}


def seen(status: Object | None = None, **changes: Any) -> ObjectView:
    return object_view(job(status, **changes))


def pod(
    job_name: str, index: int = 0, role: str = "train", seconds: float = 600, state: Object | None = None
) -> Object:
    name = f"{job_name}-{index}-abcde"
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-{name}",
            "creationTimestamp": before_now(seconds),
            "labels": {
                "finetune.dev/role": role,
                "finetune.dev/owner-uid": UID,
                "batch.kubernetes.io/job-name": job_name,
                "batch.kubernetes.io/job-completion-index": str(index),
            },
        },
        "spec": {"containers": [{"name": "istio-proxy"}, {"name": "trainer"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state or {"running": {}}}]},
    }


def event(about: Object, reason: str, message: str, seconds: float = 30, **changes: Any) -> Object:
    metadata = about["metadata"]
    return {
        "kind": "Event",
        "metadata": {"name": reason, "uid": f"event-{reason}-{metadata['name']}"},
        "involvedObject": {"kind": about["kind"], "name": metadata["name"], "uid": metadata["uid"]},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": before_now(seconds),
        "count": 1,
        **changes,
    }


def with_condition(status: Object, kind: str, **changes: Any) -> Object:
    """The status with one of its conditions changed."""
    copied = copy.deepcopy(status)
    for one in copied["conditions"]:
        if one["type"] == kind:
            one.update(changes)
    return copied
