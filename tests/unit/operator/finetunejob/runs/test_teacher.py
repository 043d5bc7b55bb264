"""FineTuneJob, learning from another model: what it waits for, and that its teacher stays the same for the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, StartingModel
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.finetunejob.kind import _references
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.models.resolve import ResolvedModel
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
    resolved_class,
    succeeded_pod,
)

TEACHER = ResolvedModel(ModelSource(uri="s3://models/large", adapter_uri="s3://runs/large", digest="sha256:aa"))
RETRAINED = ResolvedModel(ModelSource(uri="s3://models/other", digest="sha256:bb"))
RECORDED = StartingModel(uri="s3://models/large", adapter_uri="s3://runs/large", digest="sha256:aa")
IN_TRAINING = progressing(Reason.WAITING_FOR_MODEL, "FineTuneJob 'large' is not complete (Training).")
GONE = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'large' does not exist.")


def learning_from(**teacher: Any) -> Any:
    return job_spec(method={"type": "Distillation", "distillation": {"teacher": teacher}})


SPEC = learning_from(fineTuneJobRef={"name": "large"})


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def teacher_of(decision: Decided) -> Any:
    """The teacher in the run configuration that was made."""
    (made,) = decision.plan.create
    return json.loads(files_of(made)["run.json"])["teacher"]


@pytest.mark.parametrize(("found", "is_stalled"), [(IN_TRAINING, False), (GONE, True)], ids=["trains", "gone"])
def test_it_waits_for_the_result_with_no_pod_and_no_clock(found: Any, is_stalled: bool) -> None:
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, teacher=found))
    assert (result.decision.phase, result.decision.reason) == ("Validating", found.reason)
    assert (result.decision.stalled, result.decision.writes) == (is_stalled, ())
    assert result.status.suspend_time == NOW
    assert result.status.teacher is result.status.starting_model is None


def test_preflight_gets_the_teacher_that_the_status_names() -> None:
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, teacher=TEACHER))
    assert result.status.teacher == RECORDED
    assert teacher_of(result) == {
        "uri": "s3://models/large",
        "adapterUri": "s3://runs/large",
        "digest": "sha256:aa",
    }


@pytest.mark.parametrize("now", [RETRAINED, GONE, None], ids=["another result", "deleted", "not looked up"])
def test_the_run_keeps_its_teacher(now: Any) -> None:
    starting = StartingModel(uri="s3://models/base")
    status = job_status(starting_model=starting, teacher=RECORDED, preflight=preflight_status())
    pods = (succeeded_pod(PREFLIGHT_1, PREFLIGHT_REPORT),)
    checked = job(PREFLIGHT_1, "Complete", role="preflight")
    result = decide(observed_job(status, checked, pods=pods, spec=SPEC, teacher=now))
    assert f"Job/{TRAIN_1}" in result.decision.writes
    assert teacher_of(result)["adapterUri"] == "s3://runs/large"
    assert result.status.teacher == RECORDED


def test_a_job_is_not_its_own_teacher() -> None:
    spec = learning_from(fineTuneJobRef={"name": "router"})
    result = decide(observed_job(FineTuneJobStatus(), spec=spec, teacher=IN_TRAINING))
    assert (result.decision.reason, result.decision.stalled) == (Reason.INVALID_SPEC, True)
    assert "spec.method.distillation.teacher.fineTuneJobRef refers to this job itself" in result.message


def test_the_class_must_allow_the_teacher() -> None:
    class_ = resolved_class(sources={"models": ["s3://models/base"]})
    teacher = ResolvedModel(ModelSource(uri="s3://models/large"))
    spec = learning_from(uri="s3://models/large")
    result = decide(observed_job(FineTuneJobStatus(), spec=spec, teacher=teacher, class_=class_))
    assert (result.decision.reason, result.decision.stalled) == (Reason.SOURCE_NOT_ALLOWED, True)
    assert "'s3://models/large'" in result.message


def test_a_change_of_the_teachers_job_wakes_the_one_that_learns_from_it() -> None:
    body = {"metadata": {"namespace": "team-a"}, "spec": SPEC.to_wire()}
    assert ("large", "team-a") in {(key.name, key.namespace) for key in _references(body)}


def test_runs_of_other_methods_have_no_teacher() -> None:
    (made,) = decide(observed_job(FineTuneJobStatus())).plan.create
    assert "teacher" not in json.loads(files_of(made)["run.json"])
