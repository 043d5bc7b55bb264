"""What the benchmark asks of the API server: finished jobs and their status, live ones at a rate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from benchmarks.controller.products.product import Product
from finetune_operator.kube.client import Kube
from finetune_operator.kube.resources import RESOURCES

PARALLEL = 32
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Say = Callable[[str], None]


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path, product: Product) -> AsyncIterator[Kube]:
    """The API server, for PARALLEL requests at a time."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = PARALLEL
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration) as api:
        yield Kube(api, resources={*RESOURCES, product.jobs})


def team(number: int, namespaces: int) -> str:
    """The namespace of the job with this number."""
    return f"team-{number % namespaces:02}"


async def run_one(kube: Kube, product: Product, name: str, namespace: str, seconds: float) -> dict[str, Any]:
    """Create one job and wait until it has succeeded; returns it. Raises TimeoutError, and StepFailed."""
    await kube.create(product.jobs, namespace, product.job(name, namespace))
    async with asyncio.timeout(seconds):
        while True:
            found = await kube.get(product.jobs, namespace, name)
            if found is not None and product.has_succeeded(found):
                return found
            await asyncio.sleep(0.2)


async def seed_finished(
    kube: Kube, product: Product, template: dict[str, Any], count: int, namespaces: int, say: Say
) -> None:
    """Finished jobs: copies of one that really ran to its end, status and all; without Pods, as after their TTL.

    The times of a status are moved with the creation: an end before it would be a wrong clock's, and be corrected.
    """
    name_before = json.dumps(template["metadata"]["name"])[1:-1]
    status = json.dumps(template["status"])
    slots = asyncio.Semaphore(PARALLEL)
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        name, namespace = f"finished-{number:05}", team(number, namespaces)
        async with slots:
            body = product.job(name, namespace)
            made = await kube.create(product.jobs, namespace, body)
            later = _created(made) - _created(template)
            await kube.apply_status(
                {
                    "apiVersion": body["apiVersion"],
                    "kind": body["kind"],
                    "metadata": {"name": name, "namespace": namespace, "uid": made["metadata"]["uid"]},
                    "status": moved(json.loads(status.replace(name_before, name)), later),
                }
            )
        done += 1
        if done % 100 == 0:
            say(f"{done:,} of {count:,}")

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))


def moved(value: Any, later: timedelta) -> Any:
    """A part of a status with every time in it so much later."""
    if isinstance(value, dict):
        return {name: moved(item, later) for name, item in value.items()}
    if isinstance(value, list):
        return [moved(item, later) for item in value]
    if isinstance(value, str) and _TIME.fullmatch(value):
        return f"{datetime.fromisoformat(value) + later:%Y-%m-%dT%H:%M:%SZ}"
    return value


def _created(body: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"])


async def create_live(
    kube: Kube, product: Product, prefix: str, count: int, per_second: float, namespaces: int, say: Say
) -> float:
    """Create jobs at a steady rate, whether anybody keeps up or not; returns how late the latest request was."""
    start, latest = time.monotonic(), 0.0
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            due = start + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            latest = max(latest, time.monotonic() - due)
            namespace = team(number, namespaces)
            body = product.job(f"{prefix}-{number:05}", namespace)
            tasks.create_task(kube.create(product.jobs, namespace, body))
            if number % 20 == 0:
                say(f"{number:,} of {count:,} created")
    return latest
