"""FineTuneJob on splits of Datasets: what it waits for, and that their revisions stay the same for the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset_reference import PinnedRevision, PinnedRevisions
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus, StartingModel
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.finetunejob.kind import _references
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    NOW,
    PREFLIGHT_1,
    PREFLIGHT_REPORT,
    TRAIN_1,
    Decided,
    decided,
    files_of,
    job,
    job_spec,
    job_status,
    observed_job,
    preflight_status,
    succeeded_pod,
)

SPEC = FineTuneJobSpec.from_wire(
    {
        **job_spec().to_wire(),
        "dataset": {
            "training": {"datasetRef": {"name": "tickets", "split": "training"}},
            "validation": {"datasetRef": {"name": "tickets", "split": "validation"}},
        },
    }
)


def revision_of(split: Any, digest: str = "sha256:aa") -> PinnedRevision:
    return PinnedRevision(name="tickets", uid="5a2b", split=split, digest=digest, uri=f"s3://runs/{digest[-2:]}")


FOUND = {"training": revision_of("training"), "validation": revision_of("validation")}
NEWER = {name: revision_of(name, "sha256:bb") for name in FOUND}
RECORDED = PinnedRevisions(**FOUND)
BUILDS = progressing(Reason.WAITING_FOR_DATASET, "Dataset 'tickets' is not complete (Building).")
GONE = stalled(Reason.REFERENCE_NOT_FOUND, "Dataset 'tickets' does not exist.")


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def revisions_of(decision: Decided) -> Any:
    """Those in the run configuration that was made."""
    (made,) = decision.plan.create
    return json.loads(files_of(made)["run.json"])["revisions"]


@pytest.mark.parametrize(("found", "is_stalled"), [(BUILDS, False), (GONE, True)], ids=["builds", "gone"])
def test_it_waits_for_the_revision_with_no_pod_and_no_clock(found: Any, is_stalled: bool) -> None:
    datasets = {"training": revision_of("training"), "validation": found}
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, datasets=datasets))
    assert (result.decision.phase, result.decision.reason) == ("Validating", found.reason)
    assert (result.decision.stalled, result.decision.writes) == (is_stalled, ())
    assert result.status.suspend_time == NOW
    assert result.status.dataset_revisions is None


def test_preflight_gets_the_revisions_that_the_status_names() -> None:
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, datasets=FOUND))
    assert result.status.dataset_revisions == RECORDED
    assert revisions_of(result) == RECORDED.to_wire()
    assert RECORDED.to_wire()["training"] == {
        "name": "tickets",
        "uid": "5a2b",
        "split": "training",
        "digest": "sha256:aa",
        "uri": "s3://runs/aa",
    }


@pytest.mark.parametrize(
    "now", [NEWER, {"training": GONE, "validation": GONE}, {}], ids=["another revision", "deleted", "not looked up"]
)
def test_the_run_keeps_its_revisions(now: Any) -> None:
    starting = StartingModel(uri="s3://models/base")
    status = job_status(starting_model=starting, dataset_revisions=RECORDED, preflight=preflight_status())
    pods = (succeeded_pod(PREFLIGHT_1, PREFLIGHT_REPORT),)
    checked = job(PREFLIGHT_1, "Complete", role="preflight")
    result = decide(observed_job(status, checked, pods=pods, spec=SPEC, datasets=now))
    assert f"Job/{TRAIN_1}" in result.decision.writes
    assert revisions_of(result) == RECORDED.to_wire()
    assert result.status.dataset_revisions == RECORDED


def test_a_new_run_takes_the_revision_of_its_own_beginning() -> None:
    status = job_status(phase="Failed", dataset_revisions=RECORDED, completion_time=NOW)
    spec = SPEC.model_copy(update={"run_id": "2"})
    result = decide(observed_job(status, spec=spec, datasets=NEWER))
    assert result.status.dataset_revisions == PinnedRevisions(**NEWER)


def test_a_change_of_the_dataset_wakes_the_job() -> None:
    body = {"metadata": {"namespace": "team-a"}, "spec": SPEC.to_wire()}
    assert ("Dataset", "team-a", "tickets") in _references(body)


def test_jobs_on_files_have_no_revisions() -> None:
    (made,) = decide(observed_job(FineTuneJobStatus())).plan.create
    assert "revisions" not in json.loads(files_of(made)["run.json"])
