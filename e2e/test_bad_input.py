"""Bad input on the real cluster: each leaves Stalled=True with its own reason and the fix, and clears by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from e2e.demo import scenario
from e2e.demo.api import Api, condition
from e2e.demo.scenario import BUCKET, DATASET_KEY, Platform
from e2e.s3 import S3, reach

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

STALLED_SECONDS = 60.0
CLEARED_SECONDS = 120.0
NAMESPACE = "bad-input"
UNCREDENTIALED = "bad-input-without-secret"
GOOD = (scenario.QUICKSTART / "data" / "valid.jsonl").read_bytes()


@pytest.fixture(scope="module")
def s3(platform: Platform) -> Iterator[S3]:
    """The storage in the cluster, with the quickstart's model and dataset in it."""
    scenario.upload(platform, None)
    with reach(platform.storage) as storage:
        yield storage


@pytest.fixture(scope="module")
def api(platform: Platform, s3: S3) -> Iterator[Api]:
    """Two namespaces; only one of them holds the storage's credentials."""
    api = platform.api
    for namespace in (NAMESPACE, UNCREDENTIALED):
        document = yaml.safe_load((scenario.QUICKSTART / "1-namespace.yaml").read_text())
        document["metadata"]["name"] = namespace
        api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document))
    api.kubectl("apply", "-f", str(scenario.QUICKSTART / "2-finetuneclass.yaml"))
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(scenario.credentials(platform.storage, NAMESPACE)))
    yield api
    api.kubectl("delete", "namespace", NAMESPACE, UNCREDENTIALED, "--wait=false")


def test_dataset_that_does_not_exist(api: Api, s3: S3) -> None:
    key = f"{DATASET_KEY}/late.jsonl"
    s3.delete(BUCKET, key)
    _apply(api, NAMESPACE, "no-dataset", dataset=f"s3://{BUCKET}/{key}")
    stalled = _wait(api, NAMESPACE, "no-dataset", _stalled_by("DatasetNotFound"), STALLED_SECONDS)
    assert key in condition(stalled, "Stalled")["message"]
    s3.put(BUCKET, key, GOOD)
    _wait(api, NAMESPACE, "no-dataset", _cleared, CLEARED_SECONDS)


def test_broken_line_7(api: Api, s3: S3) -> None:
    key = f"{DATASET_KEY}/broken.jsonl"
    lines = GOOD.splitlines()
    lines[6] = json.dumps({"messages": [{"role": "user", "content": "no answer follows"}]}).encode()
    s3.put(BUCKET, key, b"\n".join(lines))
    _apply(api, NAMESPACE, "line-7", dataset=f"s3://{BUCKET}/{key}")
    stalled = _wait(api, NAMESPACE, "line-7", _stalled_by("DatasetInvalid"), STALLED_SECONDS)
    (error,) = stalled["status"]["dataset"]["errors"]
    assert (error["file"], error["line"]) == ("training", 7)
    assert "assistant" in error["message"]
    assert "line 7" in condition(stalled, "Stalled")["message"].lower()
    s3.put(BUCKET, key, GOOD)
    _wait(api, NAMESPACE, "line-7", _cleared, CLEARED_SECONDS)


def test_credentials_missing(platform: Platform, api: Api) -> None:
    _apply(api, UNCREDENTIALED, "no-secret", dataset=f"s3://{BUCKET}/{DATASET_KEY}/valid.jsonl")
    stalled = _wait(api, UNCREDENTIALED, "no-secret", _stalled_by("SecretNotFound"), STALLED_SECONDS)
    assert "s3-credentials" in condition(stalled, "Stalled")["message"]
    secret = scenario.credentials(platform.storage, UNCREDENTIALED)
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret))
    _wait(api, UNCREDENTIALED, "no-secret", _cleared, CLEARED_SECONDS)


def test_class_that_does_not_exist(api: Api) -> None:
    _apply(api, NAMESPACE, "no-class", dataset=f"s3://{BUCKET}/{DATASET_KEY}/valid.jsonl", class_name="late")
    stalled = _wait(api, NAMESPACE, "no-class", _stalled_by("ClassNotFound"), STALLED_SECONDS)
    assert "'late'" in condition(stalled, "Stalled")["message"]
    document = yaml.safe_load((scenario.QUICKSTART / "2-finetuneclass.yaml").read_text())
    document["metadata"] = {"name": "late"}
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document))
    _wait(api, NAMESPACE, "no-class", _cleared, CLEARED_SECONDS)
    api.kubectl("delete", "ftc", "late")


def _apply(api: Api, namespace: str, name: str, *, dataset: str, class_name: str = "quickstart") -> None:
    """Apply a FineTuneJob."""
    spec: dict[str, Any] = {
        "className": class_name,
        "model": {"uri": f"s3://{BUCKET}/{scenario.MODEL_KEY}"},
        "dataset": {"training": {"uri": dataset}},
        "hyperparameters": {"epochs": 1},
    }
    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))


def _stalled_by(reason: str) -> Callable[[dict[str, Any]], bool]:
    def holds(item: dict[str, Any]) -> bool:
        stalled = condition(item, "Stalled")
        return stalled.get("status") == "True" and stalled.get("reason") == reason

    return holds


def _cleared(item: dict[str, Any]) -> bool:
    """Preflight has passed: nothing is stalled, and the dataset's examples are counted."""
    counted = item["status"].get("dataset", {}).get("training") is not None
    return condition(item, "Stalled").get("status") == "False" and counted


def _wait(
    api: Api, namespace: str, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float
) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not holds(item := api.get(scenario.JOBS, namespace, name)):
        assert time.monotonic() < deadline, item.get("status")
        time.sleep(0.5)
    # What the test wanted to see is seen: don't train.
    if holds is _cleared:
        api.kubectl("-n", namespace, "delete", "ftj", name, "--wait=false")
    return item
