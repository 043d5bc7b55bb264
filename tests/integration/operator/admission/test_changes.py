"""A change of a spec: what needs another runId."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import EVALUATION, GRADER, JOB
from tests.integration.operator.api import Api, RefusedError

# A change of spec.


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"suspend": True}, True),
        ({"ttlSecondsAfterFinished": 60}, True),
        ({"runId": "2"}, True),
        ({"runId": "2", "hyperparameters": {"epochs": 5}, "model": {"uri": "s3://models/other"}}, True),
        ({"hyperparameters": {"epochs": 5}}, False),
        ({"model": {"uri": "s3://models/other"}}, False),
        ({"dataset": {"validation": {"splitPercent": 10}}}, False),
        ({"retryLimit": 5}, True),
        ({"className": "other"}, False),
        ({"activeDeadlineSeconds": 60}, True),
        ({"suspend": True, "retryLimit": 5}, True),
        ({"retryLimit": 5, "hyperparameters": {"epochs": 5}}, False),
        ({"adapter": None}, True),
        ({"parallelism": {"nodes": 1}}, True),
    ],
    ids=str,
)
def test_a_change_of_a_job_needs_another_run_id(api: Api, changes: dict[str, Any], taken: bool) -> None:
    """What only says a default in other words is no change."""
    name = f"router-{secrets.token_hex(4)}"
    api.create("FineTuneJob", name, JOB)
    if taken:
        api.patch("FineTuneJob", name, {"spec": changes}, query="fieldValidation=Strict")
        return
    with pytest.raises(RefusedError) as refused:
        api.patch("FineTuneJob", name, {"spec": changes}, query="fieldValidation=Strict")
    assert "changing the spec starts a new run: change spec.runId too" in refused.value.message


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"gates": [{"grader": "exact", "minimum": 0.9}]}, True),
        ({"runId": "2", "dataset": {"maxExamples": 10}}, True),
        ({"dataset": {"maxExamples": 10}}, False),
        ({"generation": {"maxTokens": 10}}, False),
        ({"baseline": {"model": {"uri": "s3://models/base"}}}, False),
        ({"graders": [{**GRADER, "stringCheck": {"operation": "Ne"}}]}, False),
        ({"budget": {"requests": 10}}, False),
        ({"benchmarks": [{"name": "arc", "task": "arc_easy", "mirror": {"uri": "s3://data/mirror"}}]}, False),
    ],
    ids=str,
)
def test_a_change_of_what_is_measured_needs_another_run_id(api: Api, changes: dict[str, Any], taken: bool) -> None:
    name = f"router-{secrets.token_hex(4)}"
    api.create("Evaluation", name, EVALUATION)
    if taken:
        api.patch("Evaluation", name, {"spec": changes})
        return
    with pytest.raises(RefusedError, match=r"changing what is measured starts a new run: change spec\.runId too"):
        api.patch("Evaluation", name, {"spec": changes})
