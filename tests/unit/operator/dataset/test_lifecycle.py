"""A Dataset's run, from creation to its revision: retried, suspended, cancelled, limited, cleared away."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.conditions import ConditionType, Reason
from finetune_api.dataset import DatasetStatus
from finetune_api.lifecycle import FailureStatus
from finetune_api.pod_contracts.run import DatasetRun
from finetune_operator.dataset.kind import dataset
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.plan import plan
from finetune_operator.dataset.refusal import spec_refusal
from finetune_operator.environment import Environment
from finetune_operator.models.endpoints import endpoint_config
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.dataset_states import (
    FOLDER,
    REPORT,
    built_status,
    dataset_job,
    dataset_spec,
    dataset_status,
    observed_dataset,
    revision,
    run_of,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    NETWORK_FAILURE,
    NOW,
    Decided,
    Decision,
    ago,
    decided,
    earlier_conditions,
    failed_pod,
    files_of,
    job,
    later,
    pod,
    reason_of,
    resolved_class,
    succeeded_pod,
    template_of,
)

JOB, RETRY = dataset_job(), dataset_job(2)
BUILDING = earlier_conditions(Reason.BUILDING)
RUNS = dataset_status(conditions=BUILDING, observed_generation=1)
BUILT = earlier_conditions(Reason.SUCCEEDED, ready=True)


def decide(observed: ObservedDataset) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def failed_condition(status: DatasetStatus) -> str | None:
    return next((one.reason for one in status.conditions if one.type == ConditionType.FAILED), None)


def ended(answer: Any) -> ObservedDataset:
    """The first try failed so."""
    return observed_dataset(RUNS, job(JOB, "Failed"), pods=(failed_pod(JOB, answer),))


# A run that goes well.


def test_a_new_dataset_gets_a_pod_that_knows_everything() -> None:
    begun = decide(observed_dataset(spec=dataset_spec(split={"testPercent": 10}), status=DatasetStatus()))
    (name,) = begun.decision.writes
    assert (begun.decision.phase, begun.decision.reason) == ("Building", "Building")
    assert begun.decision.event == "Normal Building"
    (body,) = begun.plan.create
    assert name == f"Job/{body['metadata']['name']}"
    config = DatasetRun.from_wire(json.loads(files_of(body)["run.json"]))
    assert config.output_uri == begun.status.storage_uri
    assert ([part.uri for part in config.parts], config.split.test_percent) == (["s3://data/tickets.jsonl"], 10)
    container = template_of(body)["spec"]["containers"][0]
    assert container["args"] == ["build-dataset", "/etc/finetune/run.json"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert not dataset(Environment()).is_finished(begun.status)


def test_parts_that_are_merged_keep_their_weights_and_config_maps_are_mounted() -> None:
    spec = dataset_spec(
        source=None,
        merge=[
            {"name": "common", "uri": "s3://data/common.jsonl", "weight": 3},
            {"name": "rare", "configMapRef": {"name": "rare-tickets"}, "weight": 1},
        ],
    )
    (body,) = plan(observed_dataset(spec=spec), NOW).create
    config = DatasetRun.from_wire(json.loads(files_of(body)["run.json"]))
    assert [(part.name, part.weight) for part in config.parts] == [("common", 3), ("rare", 1)]
    volumes = {one["name"]: one for one in template_of(body)["spec"]["volumes"]}
    assert volumes["dataset-rare"]["configMap"]["name"] == "rare-tickets"


def test_images_that_are_screened_may_be_where_the_class_allows() -> None:
    classifier = {"model": "large", "format": "Policy", "policy": "No faces."}
    class_ = resolved_class(
        sources={"datasets": ["s3://data/*"], "images": ["https://images.example.com/*"]},
        models=[{"name": "large", "url": "https://api.example.com/v1"}],
    )
    found = []
    for images in (True, False):
        spec = dataset_spec(screening={"images": images, "classifier": classifier})
        large = endpoint_config(class_.spec.models[0])
        (body,) = plan(observed_dataset(spec=spec, class_=class_, classifier=large), NOW).create
        found.append(DatasetRun.from_wire(json.loads(files_of(body)["run.json"])).allowed_images)
    assert found == [["s3://data/*", "https://images.example.com/*"], []]


def test_the_revision_ends_the_run() -> None:
    done = decide(observed_dataset(RUNS, job(JOB, "Complete"), pods=(succeeded_pod(JOB, REPORT),)))
    assert done.decision == Decision("Succeeded", "Succeeded", ready=True, event="Normal Succeeded")
    assert done.status.revision == revision()
    assert done.status.completion_time == NOW
    assert done.message == f"80 training, 10 test examples are in {FOLDER}/result/claim-000001 (revision sha256:aa)."
    assert dataset(Environment()).is_finished(done.status)


def test_a_finished_dataset_is_left_as_it_is() -> None:
    kept = decide(observed_dataset(built_status(conditions=BUILT)))
    assert (kept.decision.writes, kept.decision.deletes, kept.decision.phase) == ((), (), "Succeeded")


def test_another_run_id_builds_again_in_a_folder_of_its_own() -> None:
    again = decide(observed_dataset(built_status(conditions=BUILT), spec=dataset_spec(runId="2"), generation=2))
    assert again.decision.writes == (f"Job/{dataset_job(run=run_of(2, runId='2'))}",)
    assert again.status.revision is None
    assert again.status.storage_uri != FOLDER
    back = decide(
        observed_dataset(again.status.model_copy(update={"completion_time": NOW, "phase": "Failed"}), generation=3)
    )
    assert back.decision.writes == (f"Job/{dataset_job(run=run_of(3))}",)


@pytest.mark.parametrize(
    "changes",
    [
        {"uri": "s3://elsewhere/r"},
        {"splits": []},
        {"examples": 7},
        {"splits": [one.model_copy(update={"uri": "s3://elsewhere/t"}) for one in revision().splits]},
        {"splits": [one.model_copy(update={"uri": None}) for one in revision().splits]},
    ],
)
def test_a_report_of_something_else_is_refused(changes: dict[str, Any]) -> None:
    report = REPORT.model_copy(update={"revision": revision(**changes)})
    refused = decide(observed_dataset(RUNS, job(JOB, "Complete"), pods=(succeeded_pod(JOB, report),)))
    assert (refused.decision.phase, refused.decision.reason) == ("Failed", "ReportRefused")
    assert refused.status.revision is None


# Failures and disruptions.


def test_a_broken_line_ends_the_run_at_once() -> None:
    over = decide(ended(LINE_7))
    assert (over.decision.phase, over.decision.reason, over.decision.stalled) == ("Failed", "DatasetInvalid", True)
    assert failed_condition(over.status) == "DatasetInvalid"
    assert over.message.endswith("Change spec.runId to build again.")
    kept = decide(observed_dataset(over.status.model_copy(update={"observed_generation": 1})))
    assert (kept.decision.phase, kept.decision.writes, kept.decision.event) == ("Failed", (), None)


def test_a_finished_run_of_a_version_that_wrote_no_digest_is_over_whatever_else_has_changed() -> None:
    over = built_status(run_digest=None, run_number=None, job_name=None, conditions=BUILT)
    kept = decide(observed_dataset(over, spec=dataset_spec(ttlSecondsAfterFinished=60), generation=2))
    assert (kept.decision.phase, kept.decision.writes, kept.status.revision) == ("Succeeded", (), over.revision)
    assert kept.status.completion_time == over.completion_time


def test_the_broken_lines_are_in_the_status_until_the_next_run() -> None:
    over = decide(ended(LINE_7)).status
    assert (over.error_count, [one.line for one in over.errors]) == (1, [7])
    kept = decide(observed_dataset(over.model_copy(update={"observed_generation": 1}))).status
    assert kept.errors == over.errors
    again = decide(observed_dataset(over, spec=dataset_spec(runId="2"))).status
    assert (again.error_count, again.errors) == (0, [])


def test_no_line_is_broken_after_a_try_that_failed_otherwise() -> None:
    assert decide(ended(NETWORK_FAILURE)).status.errors == []


def test_earlier_revisions_are_in_the_history() -> None:
    """Their files stay, and what was built from them can be found."""
    status = decide(observed_dataset(built_status(), spec=dataset_spec(runId="2"))).status
    assert [one.to_wire() for one in status.history] == [
        {
            "runId": "1",
            "phase": "Succeeded",
            "completionTime": f"{ago(9):%Y-%m-%dT%H:%M:%SZ}",
            "digest": "sha256:aa",
            "uri": revision().uri,
        }
    ]
    for number in range(3, 15):
        status = decide(observed_dataset(status, spec=dataset_spec(runId=str(number)))).status
    assert [one.run_id for one in status.history] == [str(number) for number in range(4, 14)], "the ten newest"
    assert (status.history[-1].phase, status.history[-1].uri) == ("Building", None), "it committed nothing"


def test_a_cancelled_run_that_never_started_keeps_the_history() -> None:
    cancelled = decide(observed_dataset(built_status(), spec=dataset_spec(runId="2", cancel=True))).status
    assert [one.run_id for one in cancelled.history] == ["1"]
    kept = decide(observed_dataset(cancelled, spec=dataset_spec(runId="2", cancel=True), generation=2)).status
    assert kept.history == cancelled.history


def test_what_may_heal_is_tried_again_up_to_the_limit() -> None:
    retrying = decide(ended(NETWORK_FAILURE))
    assert (retrying.decision.phase, retrying.decision.reason) == ("Retrying", "StorageUnreachable")
    assert (retrying.status.retries, retrying.decision.again_in) == (1, 10)
    waits = decide(observed_dataset(retrying.status, job(JOB, "Failed")))
    assert waits.decision.writes == ()
    due = retrying.status.model_copy(update={"retry_time": ago(1)})
    assert decide(observed_dataset(due, job(JOB, "Failed"))).decision.writes == (f"Job/{RETRY}",)
    over = decide(replace(ended(NETWORK_FAILURE), spec=dataset_spec(retryLimit=0)))
    assert (over.decision.phase, over.decision.reason) == ("Failed", "RetryLimitReached")
    assert "failed 1 times, more often than retryLimit 0 allows. Last failure: StorageUnreachable" in over.message


def test_a_disruption_does_not_count() -> None:
    evicted = pod(JOB, phase="Failed", exit_code=143, disrupted=True, disruption="EvictionByEvictionAPI: evicting")
    seen = decide(observed_dataset(RUNS, job(JOB, "Failed"), pods=(evicted,), spec=dataset_spec(retryLimit=0)))
    assert (seen.decision.phase, seen.status.disruptions, seen.status.retries) == ("Retrying", 1, 0)
    lost = decide(observed_dataset(RUNS))
    assert (lost.decision.phase, lost.status.disruptions) == ("Retrying", 1)
    assert f"Job {JOB} of the last try was deleted." in lost.message


def test_nothing_starts_beside_a_pod_that_is_still_ending() -> None:
    due = dataset_status(conditions=BUILDING, retry_time=ago(1), observed_generation=1)
    waits = decide(observed_dataset(due, pods=(pod(JOB, deletion_time=later(20)),)))
    assert waits.decision.writes == ()
    assert f"Waiting for Pod {pod(JOB).name}" in waits.message


def test_a_new_run_stops_the_one_before_it_and_never_takes_its_job_for_its_own() -> None:
    """While run 1's Pod ends, run 2 has started none, and then the runId is changed once more."""
    first, second = pod(JOB, deletion_time=later(20)), dataset_job(run=run_of(2, runId="2"))
    runs = dataset_status(
        conditions=BUILDING, run_id="2", run_number=2, run_digest=None, job_name=second, observed_generation=2
    )
    third = observed_dataset(runs, job(second), pods=(first, pod(second)), spec=dataset_spec(runId="3"), generation=3)
    waits = decide(third)
    assert (waits.decision.reason, waits.decision.writes) == ("Stopping", ())
    assert waits.decision.deletes == (f"Job/{second}",)
    assert waits.status.job_name is None
    without_pods = decide(replace(third, pods=()))
    assert (without_pods.decision.writes, without_pods.decision.deletes) == ((), (f"Job/{second}",))
    assert f"Waiting for Job {second} of an earlier try to be deleted." in without_pods.message
    failed = replace(third, status=waits.status, jobs=(job(second, "Failed"),), pods=(failed_pod(second, LINE_7),))
    starts = decide(failed)
    assert (starts.decision.phase, starts.status.try_number) == ("Building", 1)
    assert starts.decision.writes == (f"Job/{starts.status.job_name}",)
    assert starts.status.failure is None


# What the spec and the class say.


def test_it_waits_for_a_class_that_allows_its_sources() -> None:
    missing = decide(observed_dataset(class_=CLASS_NOT_FOUND))
    assert (missing.decision.phase, missing.decision.reason, missing.decision.stalled) == (
        "Waiting",
        "ClassNotFound",
        True,
    )
    refused = decide(observed_dataset(class_=resolved_class(sources={"datasets": ["s3://other/*"]})))
    assert (refused.decision.reason, refused.decision.writes) == ("SourceNotAllowed", ())
    later_refused = observed_dataset(
        RUNS, job(JOB), pods=(pod(JOB),), class_=resolved_class(sources={"datasets": ["s3://other/*"]})
    )
    assert decide(later_refused).decision.deletes == ()


@pytest.mark.parametrize(
    ("by", "told"), [("{{document}}", "is not a variable"), ("{{sample.output_text}}", "no outputs"), ("all", "names")]
)
def test_a_template_that_can_not_group_is_refused_before_a_pod(by: str, told: str) -> None:
    spec = dataset_spec(split={"testPercent": 10, "by": by})
    refused = decide(observed_dataset(spec=spec, refusal=spec_refusal("tickets", spec)))
    assert (refused.decision.reason, refused.decision.writes) == ("InvalidSpec", ())
    assert told in refused.message


def test_suspend_ends_the_pod_and_another_try_starts_over() -> None:
    spec = dataset_spec(suspend=True)
    stopping = decide(observed_dataset(RUNS, job(JOB), pods=(pod(JOB),), spec=spec))
    assert (stopping.decision.phase, stopping.decision.reason) == ("Building", "Stopping")
    assert stopping.decision.deletes == (f"Job/{JOB}",)
    stopped = decide(observed_dataset(stopping.status, spec=spec))
    assert (stopped.decision.phase, stopped.decision.event) == ("Suspended", "Normal Suspended")
    resumed = decide(observed_dataset(stopped.status))
    assert resumed.decision.writes == (f"Job/{RETRY}",)


def test_cancel_is_for_good_until_another_run_id() -> None:
    spec = dataset_spec(cancel=True)
    stopping = decide(observed_dataset(RUNS, job(JOB), pods=(pod(JOB),), spec=spec))
    assert (stopping.decision.phase, stopping.decision.reason) == ("Building", "Stopping")
    assert stopping.decision.deletes == (f"Job/{JOB}",)
    waits = decide(observed_dataset(stopping.status, pods=(pod(JOB, deletion_time=later(30)),), spec=spec))
    assert (waits.decision.phase, waits.decision.reason, waits.decision.again_in) == ("Building", "Stopping", 15)
    assert f"spec.cancel is true. Waiting for Pod {pod(JOB).name}" in waits.message
    assert waits.status.completion_time is None
    over = decide(observed_dataset(waits.status, spec=spec))
    assert (over.decision.phase, over.decision.reason, over.decision.deletes) == ("Cancelled", "Cancelled", ())
    kept = decide(observed_dataset(over.status, generation=2))
    assert (kept.decision.phase, kept.decision.writes) == ("Cancelled", ())
    assert decide(observed_dataset(kept.status, spec=dataset_spec(runId="2"))).decision.phase == "Building"


def test_a_job_that_somebodys_finalizer_keeps_runs_nothing_and_delays_no_end() -> None:
    kept = job(JOB, deleting=True, finalizers=("foregroundDeletion", "example.com/audit"))
    ended = decide(observed_dataset(RUNS, kept, spec=dataset_spec(cancel=True)))
    assert (ended.decision.phase, ended.decision.reason) == ("Cancelled", "Cancelled")
    assert decide(observed_dataset(RUNS, kept, spec=dataset_spec(suspend=True))).decision.reason == "Suspended"


def test_cancel_that_is_taken_back_before_the_end_begins_another_try() -> None:
    stopping = decide(observed_dataset(RUNS, job(JOB), pods=(pod(JOB),), spec=dataset_spec(cancel=True)))
    assert decide(observed_dataset(stopping.status)).decision.writes == (f"Job/{RETRY}",)


def test_a_job_that_somebody_took_away_is_not_said_to_be_deleted() -> None:
    taken = decide(observed_dataset(RUNS, disowned=(job(JOB),)))
    assert (taken.decision.phase, taken.status.disruptions) == ("Retrying", 1)
    assert f"Job {JOB} of the last try lost its owner" in taken.message
    assert f"Job {JOB} of the last try was deleted" in decide(observed_dataset(RUNS)).message


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ({"phase": "Failed", "failure": FailureStatus(reason="DatasetInvalid", message="Line 7.")}, "DatasetInvalid"),
        ({"phase": "Cancelled"}, "Failed"),
    ],
)
def test_a_run_that_is_asked_for_again_ended_as_it_did(end: dict[str, Any], told: str) -> None:
    """Another runId was suspended and taken back before it began."""
    ended = built_status(**{"revision": None, "conditions": BUILT, **end})
    stopped = decide(observed_dataset(ended, spec=dataset_spec(runId="2", suspend=True), generation=2))
    assert stopped.decision.phase == "Suspended"
    again = decide(observed_dataset(stopped.status, generation=3))
    assert (again.decision.phase, again.decision.reason, again.decision.writes) == ("Failed", told, ())
    assert "spec.suspend" not in again.message


def test_the_deadline_counts_the_run_but_not_while_it_was_suspended() -> None:
    spec = dataset_spec(activeDeadlineSeconds=50)
    over = decide(observed_dataset(RUNS, job(JOB), pods=(pod(JOB),), spec=spec))
    assert (over.decision.phase, over.decision.reason) == ("Failed", "DeadlineExceeded")
    assert "50s (spec.activeDeadlineSeconds)" in over.message
    rested = RUNS.model_copy(update={"suspended_seconds": 20})
    goes_on = decide(observed_dataset(rested, job(JOB), pods=(pod(JOB),), spec=spec))
    assert (goes_on.decision.phase, goes_on.decision.again_in) == ("Building", 10)


def test_the_job_goes_after_its_time_and_the_revision_stays() -> None:
    spec = dataset_spec(ttlSecondsAfterFinished=5)
    cleared = decide(observed_dataset(built_status(conditions=BUILT), job(JOB, "Complete"), spec=spec))
    assert cleared.decision.deletes == (f"Job/{JOB}",)
    assert cleared.status.revision == revision()


def test_a_failure_that_another_version_reported_as_something_else_is_reported_again() -> None:
    failure = FailureStatus(reason="DatasetInvalid", message="Line 7.")
    unread = built_status(phase="Failed", revision=None, failure=failure, conditions=[])
    told = decide(observed_dataset(unread))
    assert (told.decision.phase, reason_of(told.status, ConditionType.FAILED)) == ("Failed", "DatasetInvalid")
