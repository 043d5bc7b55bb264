"""A FineTuneJob and its class: whether it is there, and what it allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.finetunejob.beginnings import NEW, PREFLIGHT_OBJECTS, decide
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    PREFLIGHT_1,
    Decision,
    earlier_conditions,
    job,
    job_spec,
    job_status,
    observed_job,
    preflight_status,
    resolved_class,
)

# The class.


def test_without_its_class_a_job_is_stalled_and_nothing_is_made() -> None:
    assert decide(observed_job(NEW, class_=CLASS_NOT_FOUND)).decision == Decision(
        "Validating", "ClassNotFound", stalled=True, event="Warning ClassNotFound"
    )


def test_a_class_that_appears_clears_the_diagnosis() -> None:
    waiting = plan(observed_job(NEW, class_=CLASS_NOT_FOUND), NOW).status
    assert decide(observed_job(waiting)).decision == Decision(
        "Validating", "Validating", writes=PREFLIGHT_OBJECTS, again_in=15, event="Normal Validating"
    )


def test_a_class_that_goes_away_does_not_stop_what_runs() -> None:
    checking = plan(observed_job(NEW), NOW).status
    decision = decide(observed_job(checking, job(PREFLIGHT_1), class_=CLASS_NOT_FOUND)).decision
    assert (decision.reason, decision.deletes) == ("Validating", ())


# The class's policy.


CLIMBING = "s3://team-data/../other-team/train.jsonl"


@pytest.mark.parametrize(
    ("spec", "limits", "reason", "told"),
    [
        (
            {"parallelism": {"nodes": 9}},
            {},
            Reason.LIMIT_EXCEEDED,
            ["nodes is 9", "'cpu'", "allows 8", "raise limits.nodes"],
        ),
        (
            {"activeDeadlineSeconds": 7200},
            {"limits": {"activeDeadlineSeconds": 3600}},
            Reason.LIMIT_EXCEEDED,
            ["activeDeadlineSeconds is 7200", "allows 3600"],
        ),
        (
            {"model": {"uri": "hf://org/name"}},
            {"sources": {"models": ["s3://models/*"]}},
            Reason.SOURCE_NOT_ALLOWED,
            ["model 'hf://org/name'", "it allows s3://models/*", "spec.sources.models"],
        ),
        (
            {"dataset": {"training": {"uri": "s3://private/train.jsonl"}}},
            {"sources": {"datasets": ["s3://team-data/*"]}},
            Reason.SOURCE_NOT_ALLOWED,
            ["dataset 's3://private/train.jsonl'", "spec.sources.datasets"],
        ),
        (
            {"dataset": {"validation": {"uri": "s3://private/valid.jsonl"}}},
            {"sources": {"datasets": ["s3://data/*"]}},
            Reason.SOURCE_NOT_ALLOWED,
            ["dataset 's3://private/valid.jsonl'"],
        ),
        (
            {"dataset": {"training": {"uri": CLIMBING}}},
            {"sources": {"datasets": ["s3://team-data/*"]}},
            Reason.SOURCE_NOT_ALLOWED,
            [f"dataset '{CLIMBING}'"],
        ),
        ({}, {"sources": {"models": []}}, Reason.SOURCE_NOT_ALLOWED, ["it allows none"]),
        (
            {"adapter": {"type": "QLoRA"}},
            {},
            Reason.INVALID_SPEC,
            ["QLoRA", "FineTuneClass 'cpu' has none", "Use LoRA, or a class with spec.accelerator"],
        ),
        (
            {"parallelism": {"processesPerNode": 8}},
            {"accelerator": {"countPerNode": 4}},
            Reason.INVALID_SPEC,
            ["processesPerNode is 8", "FineTuneClass 'cpu' have 4 (accelerator.countPerNode)", "more nodes"],
        ),
    ],
    ids=[
        "nodes",
        "deadline",
        "model",
        "training data",
        "validation data",
        "a path that climbs",
        "no model at all",
        "4 bits without an accelerator",
        "more processes than accelerators",
    ],
)
def test_what_the_class_does_not_allow_is_refused_with_what_it_allows(
    spec: dict[str, Any], limits: dict[str, Any], reason: Reason, told: list[str]
) -> None:
    result = decide(observed_job(NEW, spec=job_spec(**spec), class_=resolved_class(**limits)))
    assert replace(result.decision, again_in=None) == Decision(
        "Validating", reason, stalled=True, event=f"Warning {reason}"
    )
    assert all(part in result.message for part in told), result.message


def test_preflight_that_the_class_no_longer_allows_goes_on_and_is_not_made_again() -> None:
    spec, stricter = job_spec(parallelism={"nodes": 3}), resolved_class(limits={"nodes": 2})
    before = job_status(preflight=preflight_status(), conditions=earlier_conditions(Reason.VALIDATING))
    running = decide(observed_job(before, job(PREFLIGHT_1), spec=spec, class_=stricter))
    assert running.decision == Decision("Validating", "Validating", again_in=15)
    retried = before.model_copy(update={"preflight": preflight_status(succeeded=False, retry_time=NOW)})
    again = decide(observed_job(retried, spec=spec, class_=stricter))
    assert (again.decision.reason, again.decision.writes) == ("LimitExceeded", ())
