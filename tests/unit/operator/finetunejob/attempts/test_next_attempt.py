"""FineTuneJob, the next attempt: when it starts, from what, and beside what it never runs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, StartingModel
from finetune_operator.budgets.observed import ObservedBudget
from finetune_operator.finetunejob.plan import plan
from finetune_operator.pods.observed import PodView
from finetune_operator.progress.endpoint import ProgressEndpoint
from tests.unit.operator.finetunejob.attempts.attempt_states import (
    TRAIN_2_OBJECTS,
    TRAINING,
    TWO_NODES,
    decide,
    gang,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NETWORK_FAILURE,
    NOW,
    RESULT,
    STORAGE_URI,
    TRAIN_1,
    TRAIN_2,
    TRAIN_REPORT,
    Decision,
    ago,
    decided,
    failed_pod,
    files_of,
    job,
    job_spec,
    job_status,
    later,
    observed_job,
    of_job,
    pod,
    resolved_class,
    succeeded_pod,
    trained_status,
)


@pytest.mark.parametrize("storage", [{"bucket": "other"}, {"prefix": "elsewhere"}])
def test_a_run_keeps_its_place_in_the_storage_for_its_life(storage: dict[str, Any]) -> None:
    """Elsewhere it would begin at step 0, and its checkpoints would be nobody's."""
    moved = resolved_class(storage=storage)
    result = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed"), class_=moved))
    assert result.decision.writes == TRAIN_2_OBJECTS
    (made,) = result.plan.create
    assert json.loads(files_of(made)["run.json"])["outputUri"] == STORAGE_URI
    assert result.status.storage_uri == STORAGE_URI


@pytest.mark.parametrize(("began_at", "names"), [("", "https://new.example.com"), ("https://old.example.com", None)])
def test_a_run_keeps_the_endpoint_of_its_storage_too(began_at: str, names: str | None) -> None:
    status = between_attempts(0).model_copy(update={"storage_endpoint": began_at})
    moved = resolved_class(storage={"endpoint": names})
    result = decide(observed_job(status, job(TRAIN_1, "Failed"), class_=moved))
    (made,) = result.plan.create
    assert json.loads(files_of(made)["run.json"])["storage"].get("endpoint") == (began_at or None)
    assert [folder.endpoint for folder in result.status.storage_folders] == [began_at]


def test_an_endpoint_never_gets_the_credentials_of_another() -> None:
    """A class that names another endpoint names its Secret and region too."""
    place = {"endpoint": "https://old.test", "region": "eu-1", "pathStyle": True, "credentialsSecretName": "old"}
    first = decide(observed_job(job_status(), class_=resolved_class(storage=place))).status
    begun = between_attempts(0).model_copy(
        update={"storage_endpoint": first.storage_endpoint, "storage_access": first.storage_access}
    )
    rotated = resolved_class(storage={**place, "credentialsSecretName": "rotated"})
    moved = resolved_class(storage={"endpoint": "https://new.test", "region": "us-9", "credentialsSecretName": "new"})
    for class_, secret in ((rotated, "rotated"), (moved, "old")):
        result = decide(observed_job(begun, job(TRAIN_1, "Failed"), class_=class_))
        (made,) = result.plan.create
        reached = json.loads(files_of(made)["run.json"])["storage"]
        assert (reached["endpoint"], reached["region"], reached["pathStyle"]) == ("https://old.test", "eu-1", True)
        volumes = made["spec"]["template"]["spec"]["volumes"]
        assert [one["secret"]["secretName"] for one in volumes if "secret" in one] == [secret]
        assert result.status.storage_access.credentials_secret_name == secret


def test_the_endpoint_is_that_of_the_preflight_that_looked_there() -> None:
    """A class that is corrected before anything was written is heeded."""
    status = decide(observed_job(job_status(), class_=resolved_class(storage={"endpoint": "http://a.test"}))).status
    assert (status.storage_endpoint, status.storage_folders[0].endpoint) == ("http://a.test", "http://a.test")


def test_a_class_that_names_another_place_recreates_no_waiting_attempt() -> None:
    started = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed")))
    (made,) = [item for item in started.plan.create if item["kind"] == "Job"]
    waiting = job(TRAIN_2, digest=made["metadata"]["annotations"]["finetune.dev/applied-digest"])
    moved = resolved_class(storage={"bucket": "other"})
    assert decide(observed_job(started.status, waiting, class_=moved)).decision.writes == ()


def test_a_result_is_judged_by_what_its_run_was_asked_though_the_next_run_is_asked_for() -> None:
    """It completes just as runId and model.uri change: nobody forged anything."""
    begun = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed"))).status
    assert begun.starting_model == StartingModel(uri="s3://models/base")
    spec = job_spec(runId="2", model={"uri": "s3://models/another"})
    done = decide(
        observed_job(begun, job(TRAIN_2, "Complete"), pods=(succeeded_pod(TRAIN_2, TRAIN_REPORT),), spec=spec)
    )
    assert (done.status.phase, done.status.result) == ("Succeeded", RESULT)
    (run,) = plan(observed_job(done.status, spec=spec), NOW).status.history
    assert (run.phase, run.result_uri) == ("Succeeded", RESULT.uri)


def between_attempts(retry_in: float, **changes: Any) -> FineTuneJobStatus:
    status = plan(gang("Failed", failed_pod(TRAIN_1, NETWORK_FAILURE)), NOW).status
    assert status.attempt is not None
    attempt = status.attempt.model_copy(update={"next_time": later(retry_in), **changes})
    return status.model_copy(update={"attempt": attempt})


def test_until_its_time_the_next_attempt_waits() -> None:
    observed = observed_job(between_attempts(retry_in=7), job(TRAIN_1, "Failed"))
    assert decide(observed).decision == Decision("Retrying", "Retrying", again_in=7)


def test_the_next_attempt_has_its_own_objects_and_remembers_the_counts() -> None:
    observed = observed_job(between_attempts(0, disruptions=2), job(TRAIN_1, "Failed"))
    result = decide(observed)
    assert result.decision == Decision("Queued", "Queued", writes=TRAIN_2_OBJECTS, again_in=15)
    attempt = result.status.attempt
    assert (attempt.number, attempt.job_name, attempt.retries, attempt.disruptions) == (2, TRAIN_2, 1, 2)
    assert (attempt.class_generation, attempt.start_time, attempt.next_time) == (4, NOW, None)


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (pod(TRAIN_1, 1), f"Waiting for 1 Pod to save and end: {TRAIN_1}-1-abcde."),
        (pod(TRAIN_1, 1, phase="Pending"), f"Waiting for 1 Pod to end: {TRAIN_1}-1-abcde."),
        (
            pod(TRAIN_1, 1, deletion_time=later(40)),
            f"Waiting for 1 Pod to save and end, by 12:00:40 UTC at the latest: {TRAIN_1}-1-abcde.",
        ),
        (
            pod(TRAIN_1, 1, deletion_time=ago(179)),
            f"Waiting for 1 Pod to save and end, by 11:57:01 UTC at the latest: {TRAIN_1}-1-abcde.",
        ),
    ],
    ids=["not told to stop yet", "never started", "saves a checkpoint", "late"],
)
def test_two_attempts_never_run_side_by_side(left: PodView, told: str) -> None:
    """Though its Job is gone, a Pod may run: what counts are containers."""
    result = decide(observed_job(between_attempts(0), pods=(left,)))
    assert result.decision == Decision("Retrying", "Retrying", again_in=15)
    assert result.message == f"{told} Attempt 1 failed (StorageUnreachable: The storage did not answer.)"


IN_QUEUE = resolved_class(scheduling={"queueName": "gpus"})
NO_NODE = {"phase": "Pending", "unschedulable_since": ago(31)}
ROOM = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("job_changes", "pod_changes", "reason", "told"),
    [
        ({}, {"phase": "Pending"}, "Queued", "waiting to start"),
        ({"suspended": True, "queue_name": "gpus"}, None, "Queued", "quota in queue 'gpus'"),
        ({}, {**NO_NODE, "unschedulable_message": ROOM}, "Queued", ROOM),
        ({}, {**NO_NODE, "unschedulable_message": "0/3 nodes fit."}, "Unschedulable", "0/3 nodes fit."),
    ],
    ids=["starts", "in a queue", "waits for room", "fits no node"],
)
def test_why_the_attempt_before_failed_is_reported_until_the_next_one_trains(
    job_changes: dict[str, Any], pod_changes: dict[str, Any] | None, reason: str, told: str
) -> None:
    failure = "Attempt 1 failed (StorageUnreachable: The storage did not answer.)"
    started = decide(observed_job(between_attempts(0), class_=IN_QUEUE))
    assert started.message == f"The Job is waiting for quota in queue 'gpus' (Kueue starts it). {failure}"
    pods = () if pod_changes is None else (pod(TRAIN_2, **pod_changes),)
    waiting = decide(observed_job(started.status, job(TRAIN_2, **job_changes), pods=pods))
    assert waiting.decision.reason == reason
    assert told in waiting.message
    assert waiting.message.endswith(f" {failure}")
    trains = decide(observed_job(waiting.status, job(TRAIN_2), pods=(pod(TRAIN_2),)))
    assert (trains.decision.reason, failure in trains.message) == ("Training", False)


def test_the_next_attempt_does_not_wait_for_a_lost_node_and_says_so() -> None:
    lost = pod(TRAIN_1, 1, deletion_time=ago(180))
    started = decide(observed_job(between_attempts(0), pods=(lost,)))
    assert started.decision.writes == TRAIN_2_OBJECTS
    queued = decide(observed_job(started.status, job(TRAIN_2), pods=(lost,)))
    assert f"No longer waiting for {lost.name}: the node does not respond" in queued.message


def test_a_job_that_is_still_active_is_ended_before_the_next_attempt() -> None:
    observed = observed_job(between_attempts(0), job(TRAIN_1))
    result = decide(observed)
    assert result.decision == Decision("Retrying", "Retrying", deletes=of_job(TRAIN_1), again_in=15)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_": CLASS_NOT_FOUND}, Reason.CLASS_NOT_FOUND),
        ({"class_": resolved_class(sources={"models": []})}, Reason.SOURCE_NOT_ALLOWED),
        (
            {"class_": resolved_class(limits={"nodes": 1}), "spec": TWO_NODES},
            Reason.LIMIT_EXCEEDED,
        ),
    ],
)
def test_a_changed_class_is_asked_before_each_attempt_and_leaves_a_running_one_alone(
    changes: dict[str, Any], reason: Reason
) -> None:
    waits = decide(observed_job(between_attempts(0), job(TRAIN_1, "Failed"), **changes))
    assert waits.decision == Decision("Retrying", reason, stalled=True, event=f"Warning {reason}")
    running = observed_job(trained_status(conditions=TRAINING), job(TRAIN_1), pods=(pod(TRAIN_1),), **changes)
    assert decide(running).decision == Decision("Training", "Training")


def test_a_used_up_budget_keeps_the_next_attempt_until_it_renews() -> None:
    """The time of it does not count for the deadline."""
    class_ = resolved_class(limits={"acceleratorHoursPerMonth": 1}, accelerator={})
    budget = ObservedBudget("finetune-system", (), "2026-11", "cpu", {"somebody": 3600})
    observed = observed_job(
        between_attempts(0),
        job(TRAIN_1, "Failed"),
        class_=class_,
        budget=budget,
        spec=job_spec(activeDeadlineSeconds=130),
    )
    result = decide(observed)
    until_december = (datetime(2026, 12, 1, tzinfo=UTC) - NOW).total_seconds()
    assert result.decision == Decision(
        "Retrying", "BudgetExceeded", stalled=True, again_in=until_december, event="Warning BudgetExceeded"
    )
    assert result.status.suspend_time == NOW
    renewed = replace(observed, status=result.status, budget=replace(budget, month="2026-12", ledger={}))
    december = decided(plan(renewed, datetime(2026, 12, 1, tzinfo=UTC)), datetime(2026, 12, 1, tzinfo=UTC))
    assert december.decision.writes == TRAIN_2_OBJECTS
    assert (december.status.suspend_time, december.status.suspended_seconds) == (None, until_december)
    assert december.decision.again_in == 130 - 120


def test_an_attempt_whose_status_was_lost_in_a_crash_is_not_made_twice() -> None:
    """The operator died between making the Job and writing the status: the same names come again."""
    status = between_attempts(0)
    first = plan(observed_job(status, job(TRAIN_1, "Failed")), NOW)
    again = plan(observed_job(status, job(TRAIN_1, "Failed"), job(TRAIN_2)), NOW + timedelta(seconds=5))
    assert again.create == first.create
    assert TRAIN_2 not in {child.name for child in again.delete}


def test_the_pods_of_a_job_that_was_made_in_vain_are_waited_for_before_it_is_made_again() -> None:
    """The operator died after making the Job, the run was suspended and resumed: its Pods still save."""
    result = decide(observed_job(between_attempts(0), pods=(pod(TRAIN_2, deletion_time=later(40)),)))
    assert result.decision == Decision("Retrying", "Retrying", again_in=15)


def test_a_pod_learns_where_to_report_and_whom_to_trust() -> None:
    endpoint = ProgressEndpoint("https://finetune.svc:8443/", "-----BEGIN CERTIFICATE-----")
    (train_job,) = plan(observed_job(between_attempts(0), progress_endpoint=endpoint), NOW).create
    path = f"/v1alpha1/namespaces/team-a/finetunejobs/router/attempts/{TRAIN_2}"
    assert f'"url":"https://finetune.svc:8443{path}"' in files_of(train_job)["run.json"]
    assert files_of(train_job)["progress-ca.crt"] == endpoint.ca
    volumes = {volume["name"] for volume in train_job["spec"]["template"]["spec"]["volumes"]}
    assert "progress-token" in volumes
