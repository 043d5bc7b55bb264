"""FineTuneJob, going on from another job's result: what it waits for, and that it stays what it was for the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus, StartingModel
from finetune_api.pod_contracts.run import ModelSource
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.finetunejob.observed import ObservedFineTuneJob
from finetune_operator.finetunejob.plan import plan
from finetune_operator.models.resolve import ResolvedModel
from tests.unit.operator.crd_schema import assert_storable
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    PREFLIGHT_1,
    PREFLIGHT_REPORT,
    RESULT,
    TRAIN_1,
    Decided,
    Decision,
    ago,
    attempt_status,
    decided,
    files_of,
    job,
    job_spec,
    job_status,
    observed_job,
    preflight_status,
    resolved_class,
    succeeded_pod,
    trained_status,
)

SPEC = job_spec(model={"uri": None, "fineTuneJobRef": {"name": "first"}})
TUNED = ResolvedModel(
    ModelSource(uri="s3://models/base", adapter_uri=RESULT.uri, digest=RESULT.digest),
    ModelSource(uri="s3://models/base"),
)
RETRAINED = ResolvedModel(ModelSource(uri="s3://models/other", digest="sha256:bb"))
STARTING = StartingModel(uri="s3://models/base", adapter_uri=RESULT.uri, digest=RESULT.digest)
IN_TRAINING = progressing(Reason.WAITING_FOR_MODEL, "FineTuneJob 'first' is not complete (Training).")
FAILED = stalled(Reason.WAITING_FOR_MODEL, "FineTuneJob 'first' failed.")
GONE = stalled(Reason.REFERENCE_NOT_FOUND, "FineTuneJob 'first' does not exist.")


def decide(observed: ObservedFineTuneJob) -> Decided:
    result = decided(plan(observed, NOW))
    assert_storable(result.status)
    return result


def started_with(decision: Decided) -> tuple[Any, bool]:
    """The model in the run configuration that was made, and whether it says that it was tuned before."""
    (made,) = decision.plan.create
    run = json.loads(files_of(made)["run.json"])
    return run["model"], run.get("continued", False)


@pytest.mark.parametrize(
    ("found", "is_stalled"), [(IN_TRAINING, False), (FAILED, True), (GONE, True)], ids=["trains", "failed", "gone"]
)
def test_it_waits_for_the_result_with_no_pod_and_no_clock(found: Any, is_stalled: bool) -> None:
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, model=found))
    assert (result.decision.phase, result.decision.reason) == ("Validating", found.reason)
    assert (result.decision.stalled, result.decision.writes) == (is_stalled, ())
    assert result.status.suspend_time == NOW
    assert result.status.starting_model is None


def test_preflight_starts_with_the_result_which_the_status_names() -> None:
    waiting = plan(observed_job(FineTuneJobStatus(), spec=SPEC, model=IN_TRAINING), NOW).status
    result = decide(observed_job(waiting, spec=SPEC, model=TUNED))
    first = result.status.preflight.job_name
    assert result.decision.writes == (f"Pod/{first}",)
    assert result.status.starting_model == STARTING
    assert result.status.suspend_time is None
    model, continued = started_with(result)
    assert (model, continued) == (
        {"uri": "s3://models/base", "adapterUri": RESULT.uri, "digest": RESULT.digest},
        True,
    )


@pytest.mark.parametrize("now", [RETRAINED, GONE, None], ids=["another result", "deleted", "not looked up"])
def test_the_run_keeps_what_it_started_from(now: Any) -> None:
    status = job_status(starting_model=STARTING, preflight=preflight_status())
    pods = (succeeded_pod(PREFLIGHT_1, PREFLIGHT_REPORT),)
    checked = job(PREFLIGHT_1, "Complete", role="preflight")
    result = decide(observed_job(status, checked, pods=pods, spec=SPEC, model=now))
    assert f"Job/{TRAIN_1}" in result.decision.writes
    assert started_with(result)[0]["adapterUri"] == RESULT.uri
    assert result.status.starting_model == STARTING
    assert result.status.resolved.learning_rate == 4e-5


def test_a_new_run_starts_from_what_the_result_is_then() -> None:
    before = trained_status(attempt_status(), phase="Succeeded", starting_model=STARTING, completion_time=ago(60))
    spec = job_spec(runId="2", model={"uri": None, "fineTuneJobRef": {"name": "first"}})
    result = decide(observed_job(before, spec=spec, model=RETRAINED))
    assert result.status.starting_model == StartingModel(uri="s3://models/other", digest="sha256:bb")


def test_a_job_does_not_go_on_from_itself() -> None:
    spec = job_spec(model={"uri": None, "fineTuneJobRef": {"name": "router"}})
    result = decide(observed_job(FineTuneJobStatus(), spec=spec, model=IN_TRAINING))
    assert (result.decision.reason, result.decision.stalled) == (Reason.INVALID_SPEC, True)
    assert "refers to this job itself" in result.message


def test_the_class_need_not_allow_where_results_lie() -> None:
    """The class was asked about the model that the other job began with."""
    class_ = resolved_class(sources={"models": ["hf://Qwen/*"]})
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, model=TUNED, class_=class_))
    assert result.decision.reason == Reason.VALIDATING


def test_a_missing_class_is_reported_once_the_model_is_there() -> None:
    result = decide(observed_job(FineTuneJobStatus(), spec=SPEC, model=TUNED, class_=CLASS_NOT_FOUND))
    assert result.decision == Decision("Validating", "ClassNotFound", stalled=True, event="Warning ClassNotFound")


def test_a_reward_without_a_value_is_reported_before_the_model_is_there() -> None:
    refused = stalled(Reason.INVALID_SPEC, "spec.method.rft.reward: it has no value.")
    told = decide(observed_job(spec=SPEC, model=IN_TRAINING, reward_refusal=refused))
    assert told.decision == Decision("Validating", "InvalidSpec", stalled=True, event="Warning InvalidSpec")
    assert told.message == f"{refused.message} Changing the spec requires a new runId."
