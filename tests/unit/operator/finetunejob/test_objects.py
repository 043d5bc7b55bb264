"""The objects of a FineTuneJob, as far as an attempt's end depends on them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.pod_contracts.run import TrainRun
from finetune_operator.finetunejob.objects import (
    accelerator_memory,
    attempt_objects,
    grace_seconds,
    preflight_objects,
)
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.states import (
    MODEL_SOURCE,
    OWNER,
    attempt_of,
    class_spec,
    files_of,
    job_spec,
    resolved_class,
    template_of,
)


def train_job(checkpoint_seconds: float | None = None) -> dict[str, Any]:
    *_, body = attempt_objects(attempt_of(checkpoint_seconds=checkpoint_seconds))
    return body


@pytest.mark.parametrize(
    ("measured", "grace"), [(None, 120), (0.5, 120), (30, 120), (31, 122), (600.4, 1261), (1770, 3600), (9e9, 3600)]
)
def test_the_pods_get_time_for_a_step_and_a_save(measured: float | None, grace: int) -> None:
    assert grace_seconds(measured) == grace
    assert train_job(measured)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace


def test_a_ranks_failure_ends_the_gang_at_once_and_is_distinguished_from_a_disruption() -> None:
    spec = train_job()["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    disrupted, told_to_stop, failed = spec["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert told_to_stop["onExitCodes"] == {"operator": "In", "values": [143]}
    assert failed["onExitCodes"] == {"operator": "NotIn", "values": [0]}
    assert [rule["action"] for rule in (disrupted, told_to_stop, failed)] == ["Count", "Count", "FailJob"]


def test_the_run_configuration_travels_with_the_job_as_the_annotations_of_its_pods() -> None:
    """No other object has to be written, or deleted, with it."""
    endpoint = ProgressEndpoint("https://finetune.svc:8443/", "-----BEGIN CERTIFICATE-----")
    (preflight,) = preflight_objects(OWNER, job_spec(), resolved_class(), MODEL_SOURCE, 1)
    *_, train = attempt_objects(replace(attempt_of(job_spec()), endpoint=endpoint))
    assert files_of(preflight).keys() == {"run.json"}
    assert files_of(train).keys() == {"run.json", "progress-ca.crt"}
    annotations = train["spec"]["template"]["metadata"]["annotations"]
    assert TrainRun.model_validate_json(annotations["finetune.dev/run"]).attempt == 1
    assert annotations["finetune.dev/progress-ca"] == endpoint.ca


def test_config_maps_of_a_dataset_are_mounted_where_it_is_read() -> None:
    """Optional: preflight has better words for one that is not there than a Pod that does not start."""
    dataset = {
        "training": {"uri": None, "configMapRef": {"name": "small"}},
        "validation": {"configMapRef": {"name": "held-out", "key": "valid.jsonl"}},
    }
    spec = job_spec(dataset=dataset)
    *_, preflight = preflight_objects(OWNER, spec, resolved_class(), MODEL_SOURCE, 1)
    *_, train = attempt_objects(attempt_of(spec))
    for job in (preflight, train):
        pod = template_of(job)["spec"]
        assert [volume for volume in pod["volumes"] if volume["name"].startswith("dataset-")] == [
            {"name": "dataset-training", "configMap": {"name": "small", "optional": True}},
            {
                "name": "dataset-validation",
                "configMap": {
                    "name": "held-out",
                    "optional": True,
                    "items": [{"key": "valid.jsonl", "path": "valid.jsonl"}],
                },
            },
        ]
        (container,) = pod["containers"]
        mounts = [mount for mount in container["volumeMounts"] if mount["name"].startswith("dataset-")]
        assert [(mount["mountPath"].rpartition("/")[2], mount["readOnly"]) for mount in mounts] == [
            ("training", True),
            ("validation", True),
        ]


def test_the_trainer_learns_which_datasets_are_allowed() -> None:
    class_ = resolved_class(sources={"datasets": ["s3://data/*"]})
    (made,) = preflight_objects(OWNER, job_spec(), class_, MODEL_SOURCE, 1)
    assert json.loads(files_of(made)["run.json"])["allowedDatasets"] == ["s3://data/*"]


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
    (made,) = preflight_objects(OWNER, job_spec(), resolved_class(accelerator=accelerator), MODEL_SOURCE, 1)
    run = json.loads(files_of(made)["run.json"])
    assert (run["acceleratorMemory"], run["onAccelerators"]) == (seen, accelerator is not None)
