"""The objects of a FineTuneJob, as far as an attempt's end depends on them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.finetunejob.objects import (
    accelerator_memory,
    attempt_objects,
    grace_seconds,
    preflight_objects,
)
from tests.unit.operator.states import MODEL_SOURCE, OWNER, RESOLVED, class_spec, job_spec, resolved_class


def train_job(checkpoint_seconds: float | None = None) -> dict[str, Any]:
    *_, body = attempt_objects(OWNER, job_spec(), resolved_class(), MODEL_SOURCE, RESOLVED, 1, None, checkpoint_seconds)
    return body


@pytest.mark.parametrize(
    ("measured", "grace"), [(None, 120), (0.5, 120), (30, 120), (31, 122), (600.4, 1261), (1770, 3600), (9e9, 3600)]
)
def test_the_pods_get_time_for_a_step_and_a_save(measured: float | None, grace: int) -> None:
    assert grace_seconds(measured) == grace
    assert train_job(measured)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace


def test_a_ranks_failure_ends_the_gang_at_once_and_is_told_from_a_disruption() -> None:
    spec = train_job()["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    disrupted, told_to_stop, failed = spec["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert told_to_stop["onExitCodes"] == {"operator": "In", "values": [143]}
    assert failed["onExitCodes"] == {"operator": "NotIn", "values": [0]}
    assert [rule["action"] for rule in (disrupted, told_to_stop, failed)] == ["Count", "Count", "FailJob"]


@pytest.mark.parametrize(
    ("accelerator", "seen"),
    [
        (None, None),
        ({"resourceName": "nvidia.com/gpu"}, None),
        ({"memory": "80Gi"}, 80 * 1024**3),
        ({"memory": "24G"}, 24 * 1000**3),
        ({"memory": "1.5Ti"}, 3 * 1024**4 // 2),
        ({"memory": "16384Mi"}, 16 * 1024**3),
    ],
)
def test_preflight_learns_the_memory_of_an_accelerator(accelerator: dict[str, Any] | None, seen: int | None) -> None:
    assert accelerator_memory(class_spec(accelerator=accelerator)) == seen
    config_map, _ = preflight_objects(OWNER, job_spec(), resolved_class(accelerator=accelerator), MODEL_SOURCE, 1)
    assert json.loads(config_map["data"]["run.json"])["acceleratorMemory"] == seen
