"""The classifier that dataset.screening asks: what preflight waits for, and what its Pod gets."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.finetunejob import FineTuneJobStatus
from finetune_api.pod_contracts.run import EndpointConfig, PreflightRun
from finetune_operator.core.conditions import Readiness, progressing
from finetune_operator.finetunejob.observe import observe_classifier
from finetune_operator.finetunejob.plan import plan
from tests.unit.operator.fake_kube import FakeKube
from tests.unit.operator.finetunejob.beginnings import NEW, decide
from tests.unit.operator.states import (
    NOW,
    RESOLVED,
    files_of,
    job_spec,
    job_status,
    observed_job,
    preflight_status,
    resolved_class,
    template_of,
)

GUARD = {"name": "guard", "url": "https://guard.example.com/v1", "credentialsSecretName": "guard-key"}
CLASS = resolved_class(models=[GUARD])


def screened(model: str = "guard") -> Any:
    screening = {"action": "Drop", "classifier": {"model": model, "format": "Qwen3Guard"}}
    return job_spec(dataset={"training": {"uri": "s3://data/train.jsonl"}, "screening": screening})


async def observed(status: FineTuneJobStatus, model: str = "guard") -> EndpointConfig | Readiness | None:
    return await observe_classifier(FakeKube(), "team-a", screened(model), status, CLASS)


async def test_a_classifier_that_the_class_does_not_list_starts_nothing() -> None:
    found = await observed(NEW, "guards")
    assert isinstance(found, Readiness)
    result = decide(observed_job(NEW, spec=screened("guards"), class_=CLASS, classifier=found))
    assert (result.decision.reason, result.decision.stalled, result.decision.writes) == ("ModelNotListed", True, ())
    assert result.message.startswith("dataset.screening asks the model 'guards', and FineTuneClass 'cpu' lists guard.")


async def test_preflight_gets_how_to_ask_the_classifier_and_its_key() -> None:
    found = await observed(NEW)
    assert isinstance(found, EndpointConfig)
    (pod,) = plan(observed_job(NEW, spec=screened(), class_=CLASS, classifier=found), NOW).create
    run = PreflightRun.model_validate_json(files_of(pod)["run.json"])
    assert run.classifier == found
    assert run.answers_uri == "s3://models/finetune/team-a/_answers"
    spec = template_of(pod)["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "model-key-guard"]
    assert volume["secret"]["secretName"] == "guard-key"


def test_without_a_classifier_preflight_has_no_key() -> None:
    (pod,) = plan(observed_job(NEW, class_=CLASS), NOW).create
    assert PreflightRun.model_validate_json(files_of(pod)["run.json"]).answers_uri is None
    assert not [one for one in template_of(pod)["spec"]["volumes"] if one["name"].startswith("model-key")]


def test_a_model_deployment_that_does_not_serve_yet_is_waited_for() -> None:
    waits = progressing(Reason.WAITING_FOR_MODEL, "ModelDeployment 'guard' does not serve.")
    made = observed_job(NEW, spec=screened(), class_=CLASS, classifier=waits)
    result = decide(made)
    assert (result.decision.phase, result.decision.reason) == ("Validating", "WaitingForModel")
    assert result.decision.writes == ()
    assert plan(made, NOW).requeue_at is not None, "nothing else looks again"


@pytest.mark.parametrize(
    "status",
    [job_status(preflight=preflight_status(succeeded=True), resolved=RESOLVED), job_status(phase="Succeeded")],
    ids=["training", "succeeded"],
)
async def test_nobody_asks_it_any_more_after_preflight(status: FineTuneJobStatus) -> None:
    """So a class that no longer lists it does not hold an attempt back."""
    assert isinstance(await observed(job_status(), "guards"), Readiness)
    assert await observed(status, "guards") is None
