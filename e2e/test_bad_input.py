"""Bad input on the real cluster: each leaves Stalled=True with its own reason and the fix, and clears by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from e2e.demo import scenario
from e2e.demo.api import Api, Object, condition
from e2e.demo.scenario import BUCKET, DATASET_KEY, Platform
from e2e.s3 import S3, reach

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

STALLED_SECONDS = 60.0
CLEARED_SECONDS = 120.0
NAMESPACE = "bad-input"
UNCREDENTIALED = "bad-input-without-secret"
REASONS = {
    "no-dataset": "DatasetNotFound",
    "line-7": "DatasetInvalid",
    "no-secret": "SecretNotFound",
    "no-class": "ClassNotFound",
}
"""By what each job is stalled."""
LATE, BROKEN = f"{DATASET_KEY}/late.jsonl", f"{DATASET_KEY}/broken.jsonl"
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


@pytest.fixture(scope="module")
def stalled(api: Api, s3: S3) -> dict[str, Object]:
    """Every job once it is stalled by its reason: all are applied at once, as each waits for a Pod of its own."""
    lines = GOOD.splitlines()
    lines[6] = json.dumps({"messages": [{"role": "user", "content": "no answer follows"}]}).encode()
    s3.delete(BUCKET, LATE)
    s3.put(BUCKET, BROKEN, b"\n".join(lines))
    _apply(api, "no-dataset", dataset=LATE)
    _apply(api, "line-7", dataset=BROKEN)
    _apply(api, "no-secret")
    _apply(api, "no-class", class_name="late")
    return {name: _wait(api, name, _stalled_by(reason), STALLED_SECONDS) for name, reason in REASONS.items()}


@pytest.fixture(scope="module")
def mended(platform: Platform, api: Api, s3: S3, stalled: dict[str, Object]) -> Iterator[None]:
    """The user has done what each message says."""
    s3.put(BUCKET, LATE, GOOD)
    s3.put(BUCKET, BROKEN, GOOD)
    secret = scenario.credentials(platform.storage, UNCREDENTIALED)
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret))
    document = yaml.safe_load((scenario.QUICKSTART / "2-finetuneclass.yaml").read_text())
    document["metadata"] = {"name": "late"}
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document))
    yield
    api.kubectl("delete", "ftc", "late")


def test_dataset_that_does_not_exist(stalled: dict[str, Object]) -> None:
    assert LATE in condition(stalled["no-dataset"], "Stalled")["message"]


def test_broken_line_7(stalled: dict[str, Object]) -> None:
    (error,) = stalled["line-7"]["status"]["dataset"]["errors"]
    assert (error["file"], error["line"]) == ("training", 7)
    assert "assistant" in error["message"]
    assert "line 7" in condition(stalled["line-7"], "Stalled")["message"].lower()


def test_credentials_missing(stalled: dict[str, Object]) -> None:
    assert "s3-credentials" in condition(stalled["no-secret"], "Stalled")["message"]


def test_class_that_does_not_exist(stalled: dict[str, Object]) -> None:
    assert "'late'" in condition(stalled["no-class"], "Stalled")["message"]


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("name", REASONS)
def test_it_clears_by_itself_once_it_is_mended(api: Api, name: str) -> None:
    _wait(api, name, _cleared, CLEARED_SECONDS)
    # What the test wanted to see is seen: don't train.
    api.kubectl("-n", _namespace(name), "delete", "ftj", name, "--wait=false")


def _namespace(name: str) -> str:
    return UNCREDENTIALED if name == "no-secret" else NAMESPACE


def _apply(api: Api, name: str, *, dataset: str = f"{DATASET_KEY}/valid.jsonl", class_name: str = "quickstart") -> None:
    """Apply a FineTuneJob with a dataset of this key."""
    spec: dict[str, Any] = {
        "className": class_name,
        "model": {"uri": f"s3://{BUCKET}/{scenario.MODEL_KEY}"},
        "dataset": {"training": {"uri": f"s3://{BUCKET}/{dataset}"}},
        "hyperparameters": {"epochs": 1},
    }
    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": _namespace(name)},
        "spec": spec,
    }
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))


def _stalled_by(reason: str) -> Callable[[Object], bool]:
    def holds(item: Object) -> bool:
        stalled = condition(item, "Stalled")
        return stalled.get("status") == "True" and stalled.get("reason") == reason

    return holds


def _cleared(item: Object) -> bool:
    """Preflight has passed: nothing is stalled, and the dataset's examples are counted."""
    counted = item["status"].get("dataset", {}).get("training") is not None
    return condition(item, "Stalled").get("status") == "False" and counted


def _wait(api: Api, name: str, holds: Callable[[Object], bool], seconds: float) -> Object:
    deadline = time.monotonic() + seconds
    while not holds(item := api.get(scenario.JOBS, _namespace(name), name)):
        assert time.monotonic() < deadline, item.get("status")
        time.sleep(0.5)
    return item
