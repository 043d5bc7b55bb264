"""What the benchmark asks of the API server: the class, finished FineTuneJobs and their status, live ones at a rate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_api.base import API_VERSION
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import FINE_TUNE_CLASSES, FINE_TUNE_JOBS

CLASS = "benchmark"
PARALLEL = 32

Say = Callable[[str], None]


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[Kube]:
    """The API server, for PARALLEL requests at a time."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = PARALLEL
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield Kube(api)


def team(number: int, namespaces: int) -> str:
    """The namespace of the job with this number."""
    return f"team-{number % namespaces:02}"


def job(name: str, namespace: str) -> dict[str, Any]:
    """A FineTuneJob as a user writes it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "className": CLASS,
            "model": {"uri": "s3://models/base"},
            "adapter": {"type": "LoRA", "lora": {"rank": 16, "alpha": 32}},
            "dataset": {
                "training": {"uri": f"s3://data/{name}/train.jsonl"},
                "validation": {"uri": f"s3://data/{name}/valid.jsonl"},
            },
            "hyperparameters": {"epochs": 3, "batchSize": 16},
            "checkpoints": {"keep": 3, "best": {"metric": "EvalLoss", "goal": "Minimize"}},
        },
    }


async def make_class(kube: Kube) -> None:
    """The class of all jobs."""
    body = {
        "apiVersion": API_VERSION,
        "kind": "FineTuneClass",
        "metadata": {"name": CLASS},
        "spec": {
            "storage": {"bucket": "models", "credentialsSecretName": "s3-credentials"},
            "resources": {"cpu": "100m", "memory": "1Gi"},
        },
    }
    await kube.create(FINE_TUNE_CLASSES, None, body)


async def run_one(kube: Kube, name: str, namespace: str, phase: str, seconds: float) -> dict[str, Any]:
    """Create one job and wait until it is in a phase; returns it. Raises TimeoutError."""
    await kube.create(FINE_TUNE_JOBS, namespace, job(name, namespace))
    async with asyncio.timeout(seconds):
        while True:
            found = await kube.get(FINE_TUNE_JOBS, namespace, name)
            if found is not None and found.get("status", {}).get("phase") == phase:
                return found
            await asyncio.sleep(0.2)


async def seed_finished(kube: Kube, template: dict[str, Any], count: int, namespaces: int, say: Say) -> None:
    """Finished jobs: copies of one that really ran to its end, status and all; without Pods, as after their TTL."""
    name_before = json.dumps(template["metadata"]["name"])[1:-1]
    status = json.dumps(template["status"])
    slots = asyncio.Semaphore(PARALLEL)
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        name, namespace = f"finished-{number:05}", team(number, namespaces)
        async with slots:
            made = await kube.create(FINE_TUNE_JOBS, namespace, job(name, namespace))
            await kube.apply_status(
                {
                    "apiVersion": API_VERSION,
                    "kind": "FineTuneJob",
                    "metadata": {"name": name, "namespace": namespace, "uid": made["metadata"]["uid"]},
                    "status": json.loads(status.replace(name_before, name)),
                }
            )
        done += 1
        if done % 100 == 0:
            say(f"{done:,} of {count:,}")

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))


async def create_live(kube: Kube, count: int, per_second: float, namespaces: int, say: Say) -> float:
    """Create jobs at a steady rate, whether the operator keeps up or not; returns how late the latest request was."""
    start, latest = time.monotonic(), 0.0
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            due = start + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            latest = max(latest, time.monotonic() - due)
            namespace = team(number, namespaces)
            tasks.create_task(kube.create(FINE_TUNE_JOBS, namespace, job(f"live-{number:05}", namespace)))
            if number % 20 == 0:
                say(f"{number:,} of {count:,} created")
    return latest
