"""One job of two Pods through every fault that a cluster of preemptible machines knows, again and again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from e2e.conftest import Shown
from e2e.demo import scenario
from e2e.demo.api import Api, condition
from e2e.demo.scenario import BUCKET, Platform
from e2e.s3 import NAMESPACE as STORAGE_NAMESPACE
from e2e.s3 import reach
from e2e.steps import step

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]

ROUNDS = 2 if os.environ.get("CI") else 1
NAMESPACE = "faults"
NAME = "survivor"
EVERY_STEPS = 20
STEPS_APART = 30
"""More than an interval: an attempt that is told to stop saves once more, and the next one is to train, too."""
BATCH = 8
FAULT_SECONDS = 300.0
TRAIN_PODS = "finetune.dev/role=train"
# The trainer's own process is a child of the container's first one, which starts it some time after the Pod is Running:
# the newest checkpoint may be the last save of the attempt before.
KILL_TRAINER = """
import os, pathlib, signal, time
def children():
    stats = [(process, process / "stat") for process in pathlib.Path("/proc").iterdir() if process.name.isdigit()]
    return [int(process.name) for process, stat in stats if process.name not in ("1", str(os.getpid()))
            and stat.exists() and stat.read_text().rpartition(")")[2].split()[1] == "1"]
deadline = time.monotonic() + 90
while not (found := children()):
    assert time.monotonic() < deadline, "the Pod has started no trainer for 90 seconds"
    time.sleep(0.2)
os.kill(max(found, key=lambda pid: int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])), signal.SIGKILL)
"""
STOP_FIRST_PROCESS = "import os, signal; os.kill(1, signal.SIGTERM)"


@pytest.fixture(scope="module")
def survivor(platform: Platform, shown: Shown) -> Iterator[dict[str, Any]]:
    """The job, once it has ended, after each fault has struck ROUNDS times."""
    scenario.upload(platform, None)
    api = platform.api
    # The storage is never the last: it would be struck when the job, which no fault then delays, is over already.
    faults = [restart_the_storage, delete_a_pod, drain_the_node, kill_rank_1] * ROUNDS
    with shown():
        _start(platform, steps=STEPS_APART * (len(faults) + 1))
        for number, fault in enumerate(faults, start=1):
            with step(f"Fault {number} of {len(faults)}: {fault.__name__.replace('_', ' ')}") as current:
                committed = _wait_for_checkpoint(platform, number * STEPS_APART, current.say)
                struck = _attempt(api.get(scenario.JOBS, NAMESPACE, NAME))
                fault(platform)
                current.say(f"struck after the checkpoint of step {committed}")
                if fault is not restart_the_storage:  # else the next fault may strike the same attempt
                    _wait(api, partial(_has_attempt_after, struck), current.say)
        with step("The job finishes") as current:
            job = _wait(api, lambda job: job.get("status", {}).get("phase") in ("Succeeded", "Failed"), current.say)
    yield job
    api.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def delete_a_pod(platform: Platform) -> None:
    platform.api.kubectl("-n", NAMESPACE, "delete", "pod", _pod(platform.api, 1), "--wait=false")


def drain_the_node(platform: Platform) -> None:
    """Evict the training Pods as `kubectl drain` does; the cluster's only node then takes Pods again."""
    node = platform.api.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    try:
        platform.api.kubectl(
            *("drain", node, f"--pod-selector={TRAIN_PODS}", "--delete-emptydir-data", "--ignore-daemonsets"),
            timeout=180,
        )
    finally:
        platform.api.kubectl("uncordon", node)


def kill_rank_1(platform: Platform) -> None:
    platform.api.kubectl("-n", NAMESPACE, "exec", _pod(platform.api, 1), "--", "python3", "-c", KILL_TRAINER)


def restart_the_storage(platform: Platform) -> None:
    """End the storage's process, and wait until its container runs again in the same Pod, with its data."""
    restarts = _storage_restarts(platform.api)
    storage = platform.api.kubectl(
        *("-n", STORAGE_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=seaweedfs"),
        *("-o", "jsonpath={.items[0].metadata.name}"),
    )
    platform.api.kubectl(
        *("-n", STORAGE_NAMESPACE, "debug", f"pod/{storage}", f"--image={platform.images.trainer}"),
        *("--profile=restricted", "--target=seaweedfs", "--quiet", "--", "python3", "-c", STOP_FIRST_PROCESS),
    )
    deadline = time.monotonic() + FAULT_SECONDS
    while _storage_restarts(platform.api) in (None, restarts):
        assert time.monotonic() < deadline, "the storage does not come back"
        time.sleep(0.5)


def _storage_restarts(api: Api) -> int | None:
    """How often the storage's container has been started again; None while it is not ready."""
    status = "{.items[0].status.containerStatuses[0].ready} {.items[0].status.containerStatuses[0].restartCount}"
    pods = ("-n", STORAGE_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=seaweedfs")
    ready, restarts = api.kubectl(*pods, "-o", f"jsonpath={status}").split()
    return int(restarts) if ready == "true" else None


def test_the_job_finishes(survivor: dict[str, Any]) -> None:
    assert survivor["status"]["phase"] == "Succeeded", condition(survivor, "Stalled")
    assert survivor["status"]["progress"]["percent"] == 100


def test_no_fault_counts_as_a_failure_of_the_training(survivor: dict[str, Any]) -> None:
    attempt = survivor["status"]["attempt"]
    assert attempt["retries"] == 0, survivor["status"].get("endedAttempts")
    # A storage that is away for a moment only delays.
    assert attempt["disruptions"] == 3 * ROUNDS
    assert attempt["number"] == 3 * ROUNDS + 1


def test_at_most_one_checkpoint_interval_is_lost_each_time(survivor: dict[str, Any], platform: Platform) -> None:
    key = survivor["status"]["storageUri"].removeprefix(f"s3://{BUCKET}/") + "/events.jsonl"
    with reach(platform.storage) as s3:
        lines = s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read().splitlines()
    resumed = {event["attempt"]: event["step"] for event in map(json.loads, lines) if event.get("type") == "resumed"}
    ended = survivor["status"]["endedAttempts"]
    assert ended
    for attempt in ended:
        if attempt["outcome"] == "Disrupted" and "step" in attempt:  # without one it had nothing to lose
            # One that is struck before it has read its checkpoint resumes nothing; the one after it does.
            following = min(number for number in resumed if number > attempt["number"])
            assert attempt["step"] - resumed[following] <= EVERY_STEPS, (attempt, resumed)


def _start(platform: Platform, steps: int) -> None:
    api, quickstart = platform.api, scenario.QUICKSTART
    namespace, job = [
        yaml.safe_load((quickstart / name).read_text()) for name in ("1-namespace.yaml", "3-finetunejob.yaml")
    ]
    namespace["metadata"]["name"] = NAMESPACE
    job["metadata"] = {"name": NAME, "namespace": NAMESPACE}
    job["spec"]["dataset"]["training"]["limit"] = {"examples": steps * BATCH // ROUNDS}
    job["spec"]["hyperparameters"] |= {"epochs": ROUNDS, "batchSize": BATCH}
    job["spec"]["checkpoints"] = {"everySteps": EVERY_STEPS, "keep": 2}
    api.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=150)
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
    api.kubectl("apply", "-f", str(quickstart / "2-finetuneclass.yaml"))
    secret = scenario.credentials(platform.storage, NAMESPACE)
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([secret, job]))


def _wait_for_checkpoint(platform: Platform, step: int, say: Callable[[str], None]) -> int:
    """The step of the newest checkpoint in the ledger, once it is this one or a later one, with both Pods running."""

    def reached(job: dict[str, Any]) -> bool:
        status = job.get("status", {})
        assert status.get("phase") not in ("Succeeded", "Failed"), status
        newest = max((found["step"] for found in status.get("checkpoints", [])), default=0)
        return status.get("phase") == "Training" and newest >= step

    job = _wait(platform.api, reached, say)
    newest: int = max(found["step"] for found in job["status"]["checkpoints"])
    return newest


def _attempt(job: dict[str, Any]) -> int:
    number: int = job["status"]["attempt"]["number"]
    return number


def _has_attempt_after(struck: int, job: dict[str, Any]) -> bool:
    return _attempt(job) > struck


def _wait(api: Api, done: Callable[[dict[str, Any]], bool], say: Callable[[str], None]) -> dict[str, Any]:
    deadline = time.monotonic() + FAULT_SECONDS
    while True:
        job = api.get(scenario.JOBS, NAMESPACE, NAME)
        if done(job):
            return job
        assert time.monotonic() < deadline, job.get("status")
        say(scenario.describe_job(job))
        time.sleep(0.5)


def _pod(api: Api, rank: int) -> str:
    """The running Pod of this rank."""
    return api.kubectl(
        *("-n", NAMESPACE, "get", "pods", "--field-selector=status.phase=Running"),
        *("-l", f"{TRAIN_PODS},batch.kubernetes.io/job-completion-index={rank}"),
        *("-o", "jsonpath={.items[0].metadata.name}"),
    )
