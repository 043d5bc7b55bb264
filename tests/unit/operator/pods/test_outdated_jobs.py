"""Which Jobs are made anew because what they were made from has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.digest import DIGEST_ANNOTATION
from finetune_operator.finetunejob.objects import preflight_objects
from finetune_operator.finetunejob.plan import plan
from finetune_operator.kube.resources import Object
from finetune_operator.pods.leftovers import is_outdated
from finetune_operator.pods.observed import PodView
from tests.unit.operator.states import (
    MODEL_SOURCE,
    NOW,
    OWNER,
    PREFLIGHT_1,
    RESOLVED,
    TRAIN_1,
    attempt_status,
    decided,
    job,
    job_spec,
    job_status,
    observed_job,
    pod,
    preflight_status,
    resolved_class,
    trained_status,
)


def preflight(**class_changes: Any) -> list[Object]:
    return preflight_objects(OWNER, job_spec(), resolved_class(**class_changes), MODEL_SOURCE, 1)


def digest(objects: list[Object]) -> str:
    (found,) = [item for item in objects if item["kind"] in ("Pod", "Job")]
    stored: str = found["metadata"]["annotations"][DIGEST_ANNOTATION]
    return stored


@pytest.mark.parametrize(
    "changed",
    [
        {"images": {"trainer": "example.com/trainer:2"}},
        {"storage": {"credentialsSecretName": "another"}},
        {"storage": {"endpoint": "https://s3.example.com"}},
        {"sources": {"datasets": ["s3://data/*"]}},
    ],
    ids=["image", "Secret", "what only run.json says", "what only run.json says, too"],
)
def test_a_job_is_outdated_when_anything_of_it_would_be_made_otherwise(changed: dict[str, Any]) -> None:
    made = job(PREFLIGHT_1, digest=digest(preflight()))
    assert is_outdated(made, [], lambda: preflight(**changed))
    assert not is_outdated(made, [], preflight)
    assert not is_outdated(made, [], lambda: None), "a class that refuses alters nothing"
    assert not is_outdated(made, [], lambda: preflight(limits={"nodes": 7}))
    without_digest = job(PREFLIGHT_1)
    assert not is_outdated(without_digest, [], lambda: preflight(**changed)), "an operator wrote it that knew of none"


@pytest.mark.parametrize(
    ("pods", "started"),
    [
        ((), False),
        ((pod(TRAIN_1, 0, "Pending"), pod(TRAIN_1, 1, "Pending")), False),
        ((pod(TRAIN_1, 0), pod(TRAIN_1, 1, "Pending")), False),
        ((pod(TRAIN_1, 0), pod(TRAIN_1, 1)), True),
        ((pod(TRAIN_1, 0, "Failed", exit_code=1), pod(TRAIN_1, 1, "Pending")), True),
    ],
    ids=["no Pod yet", "none runs", "one of two waits for the other", "the gang runs", "one has ended"],
)
def test_a_gang_has_started_when_all_of_it_runs(pods: tuple[PodView, ...], started: bool) -> None:
    made = job(TRAIN_1, parallelism=2, digest="as it was")
    assert is_outdated(made, pods, preflight) is not started
    assert not is_outdated(replace(made, state="Failed"), pods, preflight)


def test_the_end_is_recorded_before_the_job_is_deleted_and_does_not_count() -> None:
    status = trained_status(attempt_status(retries=1), phase="Queued", resolved=RESOLVED)
    waiting = job(TRAIN_1, digest="as it was")
    first = decided(plan(observed_job(status, waiting), NOW))
    assert (first.decision.phase, first.decision.deletes, first.decision.again_in) == ("Queued", (), 0)
    assert [(end.number, end.outcome) for end in first.status.ended_attempts] == [(1, "Replaced")]
    second = decided(plan(observed_job(first.status, waiting), NOW))
    assert second.decision.deletes == (f"Job/{TRAIN_1}",)
    third = decided(plan(observed_job(second.status), NOW))
    assert (third.status.attempt.number, third.status.attempt.retries, third.status.attempt.disruptions) == (2, 1, 0)


def test_a_preflight_that_the_class_keeps_from_starting_is_recreated() -> None:
    waiting = job(PREFLIGHT_1, role="preflight", digest="as it was")
    first = decided(plan(observed_job(job_status(preflight=preflight_status()), waiting), NOW))
    second = decided(plan(observed_job(first.status, waiting), NOW))
    assert second.decision.deletes == (f"Job/{PREFLIGHT_1}",)
    third = decided(plan(observed_job(second.status), NOW))
    assert third.status.preflight.try_number == 2
    assert third.status.failure is None
