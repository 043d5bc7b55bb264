"""Whether an object that exists asks for what is wanted, when a newer operator has stored it."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_client import FineTuneJob, StorageOptions
from finetune_client.connecting import Source
from finetune_client.errors import DifferentSpecError, FineTuneError, InvalidSpecError
from finetune_client.kinds import EVALUATIONS, FINE_TUNE_JOBS
from finetune_client.manifest import check_same, manifest_of
from finetune_client.sync.connection import Connection
from tests.unit.kubectl_finetune.cluster_objects import job

SPEC = {"model": {"uri": "s3://models/base"}, "dataset": {"training": {"uri": "s3://data/train.jsonl"}}}
WANTED = manifest_of(FINE_TUNE_JOBS, SPEC, "router", "team-a")


def stored(**more: Any) -> dict[str, Any]:
    return {**job(), "spec": {**SPEC, **more}}


def test_defaults_of_fields_that_only_a_newer_operator_knows_make_no_difference() -> None:
    newer = {**SPEC["dataset"], "shuffling": "Full"}
    check_same(FINE_TUNE_JOBS, WANTED, stored(dataset=newer, schedulingPolicy={"type": "Gang"}))


def test_of_gates_and_limits_the_advice_is_a_change_and_of_the_rest_another_run() -> None:
    measured = {"candidates": [{"name": "tuned", "model": {"uri": "s3://models/tuned"}}]}
    measured |= {"baseline": {"model": {"uri": "s3://models/base"}}, "dataset": {"uri": "s3://data/test.jsonl"}}
    spec = {**measured, "graders": [{"name": "exact", "type": "StringCheck"}]}
    live = {**job(), "kind": "Evaluation", "spec": spec}
    gates: dict[str, Any] = {"gates": [{"grader": "exact", "minimum": 0.5}]}
    for changes, advice in (
        (gates, r"evaluation\.change\(\.\.\.\)"),
        ({**gates, "onError": "Fail"}, r"evaluation\.rerun\(changes"),
    ):
        wanted = manifest_of(EVALUATIONS, {**spec, **changes}, "router", "team-a")
        with pytest.raises(DifferentSpecError, match=advice):
            check_same(EVALUATIONS, wanted, live)


def test_values_that_only_another_version_admits_are_a_difference() -> None:
    live = stored(adapter={"type": "Sparse", "sparse": {}}, retryLimit=10**6, hyperparameters={"epochs": -1})
    with pytest.raises(DifferentSpecError, match=r"spec\.adapter\.type: it has 'Sparse'") as error:
        check_same(FINE_TUNE_JOBS, WANTED, live)
    assert "spec.hyperparameters.epochs" in [path for path, _, _ in error.value.differences]


def test_what_this_version_cant_read_is_said_with_what_to_do() -> None:
    told = r"^FineTuneJob router exists in team-a.*can't read it: spec\.dataset: .*Install the client of the operator's"
    with pytest.raises(FineTuneError, match=told):
        check_same(FINE_TUNE_JOBS, WANTED, stored(dataset=["s3://data/train.jsonl"]))


def test_a_field_that_does_not_exist_is_an_invalid_spec_before_anything_is_asked_of_the_cluster() -> None:
    with pytest.raises(InvalidSpecError, match=r"^FineTuneJob router: spec\.learnRate: "):
        manifest_of(FINE_TUNE_JOBS, {**WANTED["spec"], "learnRate": 1}, "router", "team-a")


def test_the_spec_of_an_object_of_a_newer_operator_can_be_read() -> None:
    found = FineTuneJob(Connection(Source(None, None, False)), stored(schedulingPolicy={}), StorageOptions())
    assert found.spec.model.uri == "s3://models/base"
