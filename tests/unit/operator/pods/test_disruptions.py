"""Why a Pod was disrupted is recorded as soon as it is seen, and whose reports are rejected is said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.lifecycle import Disruption
from finetune_api.pod_contracts.progress import CheckpointReport
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.observed import PodView
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.states import (
    LOST_PEER,
    NETWORK_FAILURE,
    NOW,
    PREFLIGHT_1,
    TRAIN_1,
    attempt_status,
    decided,
    failed_pod,
    job,
    job_status,
    observed_job,
    pod,
    preflight_status,
    trained_status,
)

EVICTED = "EvictionByEvictionAPI: Eviction API: evicting"


def decide(*args: Any, **kwargs: Any) -> Any:
    return decided(plan(observed_job(*args, **kwargs), NOW))


def test_an_eviction_is_written_down_while_the_pod_is_still_there() -> None:
    evicted = pod(TRAIN_1, 1, disrupted=True, disruption=EVICTED)
    seen = decide(trained_status(), job(TRAIN_1, parallelism=2), pods=(pod(TRAIN_1), evicted))
    expected = Disruption(pod=evicted.name, reason="EvictionByEvictionAPI", message="Eviction API: evicting")
    assert seen.status.attempt.disruption == expected
    later = decide(seen.status, job(TRAIN_1, "Failed", parallelism=2), pods=(failed_pod(TRAIN_1, LOST_PEER),))
    (ended,) = later.status.ended_attempts
    assert (ended.outcome, ended.reason) == ("Disrupted", "EvictionByEvictionAPI")
    assert f"Pod {evicted.name} was disrupted (EvictionByEvictionAPI: Eviction API: evicting)." == ended.message
    assert later.status.attempt.disruptions == 1
    assert later.message.startswith(f"Attempt 1 was disrupted ({ended.message}) The next one resumes")


def test_a_pod_that_stayed_after_all_is_judged_by_what_it_says() -> None:
    stayed = failed_pod(TRAIN_1, NETWORK_FAILURE)
    seen = Disruption(pod=stayed.name, reason="PreemptionByScheduler", message="")
    status = trained_status(attempt_status(disruption=seen))
    (ended,) = decide(status, job(TRAIN_1, "Failed"), pods=(stayed,)).status.ended_attempts
    assert (ended.outcome, ended.reason) == ("Failed", "StorageUnreachable")


def test_a_preflight_that_is_evicted_starts_again_and_blames_nobody() -> None:
    evicted = pod(PREFLIGHT_1, disrupted=True, disruption=EVICTED)
    before = job_status(preflight=preflight_status())
    seen = decide(before, job(PREFLIGHT_1, role="preflight"), pods=(evicted,))
    gone = decide(seen.status, job(PREFLIGHT_1, "Failed", role="preflight"))
    assert (gone.decision.phase, gone.decision.reason, gone.decision.stalled) == ("Validating", "Validating", False)
    assert "was disrupted (EvictionByEvictionAPI" in gone.message
    assert gone.status.failure is None
    assert gone.decision.again_in == 10


@pytest.mark.parametrize(
    "pods", [(), (pod(PREFLIGHT_1, phase="Failed", exit_code=143, disrupted=True, disruption=EVICTED),)]
)
def test_a_preflight_that_does_not_end_is_reported_by_its_deadline_and_ends_the_run(pods: tuple[PodView, ...]) -> None:
    before = job_status(preflight=preflight_status())
    words = "Job was active longer than specified deadline"
    late = job(PREFLIGHT_1, "Failed", role="preflight", reason="DeadlineExceeded", message=words)
    over = decide(before, late, pods=pods)
    assert over.status.failure.reason == Reason.DEADLINE_EXCEEDED
    assert "activeDeadlineSeconds" in over.message
    assert (over.decision.phase, over.decision.reason, over.decision.stalled) == ("Failed", "DeadlineExceeded", True)
    assert over.message.endswith("change runId.")
    again = decide(over.status, late, pods=pods)
    assert (again.decision.writes, again.status) == ((), over.status)


@pytest.mark.parametrize(
    ("endpoint", "refused"),
    [
        (ProgressEndpoint("https://finetune.svc:8443", "PEM"), False),
        (ProgressEndpoint("https://finetune.svc:8443", "another CA"), True),
        (ProgressEndpoint("https://elsewhere.svc:8443", "PEM"), True),
        (None, True),
    ],
    ids=["as it was", "another CA", "another address", "no endpoint"],
)
def test_a_run_whose_reports_are_refused_says_so(endpoint: ProgressEndpoint | None, refused: bool) -> None:
    made = ProgressEndpoint("https://finetune.svc:8443", "PEM")
    status = trained_status(attempt_status(reports_to=made.digest))
    told = decide(status, job(TRAIN_1), pods=(pod(TRAIN_1),), progress_endpoint=endpoint)
    assert ("it rejects their reports" in told.message) is refused
    arrived = decide(
        status, job(TRAIN_1), pods=(pod(TRAIN_1),), progress_endpoint=endpoint, checkpoint_report=CheckpointReport()
    )
    assert "refused" not in arrived.message
    unknown = decide(trained_status(), job(TRAIN_1), pods=(pod(TRAIN_1),), progress_endpoint=endpoint)
    assert "refused" not in unknown.message


def test_a_job_without_parallelism_runs_nothing_and_is_followed_by_another_attempt() -> None:
    """`kubectl patch job ... {"spec": {"parallelism": 0}}`: its Pods are told to stop, and none comes again."""
    seen = plan(observed_job(trained_status(), job(TRAIN_1, parallelism=0)), NOW).status
    (end,) = seen.ended_attempts
    assert (end.outcome, end.reason) == ("Disrupted", "JobChanged")
    left = job(TRAIN_1, parallelism=0)
    deleted = plan(observed_job(seen, left), NOW + timedelta(seconds=30)).delete
    assert left.name in {child.name for child in deleted}
