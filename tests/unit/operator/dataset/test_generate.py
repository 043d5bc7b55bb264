"""A Dataset that a teacher generates: what its Pod is given, what it waits for, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.conditions import Reason
from finetune_api.dataset import GeneratedStatus
from finetune_api.dataset_reference import PinnedRevision
from finetune_api.finetuneclass import ListedModel
from finetune_api.model_usage import ModelUsage
from finetune_api.pod_contracts.run import DatasetRun
from finetune_operator.core.conditions import progressing, stalled
from finetune_operator.dataset.kind import dataset
from finetune_operator.dataset.observed import ObservedDataset
from finetune_operator.dataset.plan import plan
from finetune_operator.dataset.refusal import spec_refusal
from finetune_operator.environment import Environment
from finetune_operator.models.endpoints import endpoint_config
from tests.unit.operator.dataset_states import (
    REPORT,
    dataset_job,
    dataset_spec,
    dataset_status,
    observed_dataset,
    revision,
)
from tests.unit.operator.states import (
    NOW,
    Decided,
    ago,
    decided,
    files_of,
    job,
    later,
    resolved_class,
    succeeded_pod,
    template_of,
)

LARGE = endpoint_config(
    ListedModel.from_wire({"name": "large", "url": "https://api.example.com/v1", "credentialsSecretName": "api-key"})
)
ENDPOINT: dict[str, Any] = {
    "prompts": {"uri": "s3://data/prompts.jsonl"},
    "teacher": {"endpoint": {"name": "large"}},
    "budget": {"tokens": 1000},
}
LOADED: dict[str, Any] = {**ENDPOINT, "teacher": {"uri": "s3://models/large"}, "budget": None}
BY_REFERENCE: dict[str, Any] = {**ENDPOINT, "prompts": {"datasetRef": {"name": "questions", "split": "training"}}}
PINNED = PinnedRevision(name="questions", uid="q", split="training", digest="sha256:q", uri="s3://models/q")
PYTHON = {"name": "code", "type": "Python", "python": {"source": "def grade(sample, item):\n    return 1.0\n"}}
ON_GPUS = {"accelerator": {"countPerNode": 8}, "scheduling": {"queueName": "gpus"}}


SCHEMA = {f"property_{number:05}": {"type": "string", "description": "d" * 60} for number in range(2600)}


def observed(generate: dict[str, Any], status: Any = None, *jobs: Any, **changes: Any) -> ObservedDataset:
    spec = dataset_spec(source=None, generate={name: value for name, value in generate.items() if value is not None})
    endpoints = (LARGE,) if spec.generate and spec.generate.teacher.endpoint is not None else ()
    settings: dict[str, Any] = {"spec": spec, "endpoints": endpoints}
    return observed_dataset(status, *jobs, **{**settings, **changes})


def given(generate: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], DatasetRun]:
    """The Job of the first try, and its run configuration."""
    (body,) = plan(observed(generate, **changes), NOW).create
    return body, DatasetRun.from_wire(json.loads(files_of(body)["run.json"]))


def test_a_teacher_behind_an_api_is_asked_by_a_pod_without_accelerators_that_has_its_key() -> None:
    body, run = given(ENDPOINT, class_=resolved_class(**ON_GPUS))
    assert ([part.uri for part in run.parts], run.endpoints) == (["s3://data/prompts.jsonl"], [LARGE])
    assert run.generate is not None
    assert (run.generate.budget and run.generate.budget.tokens) == 1000
    assert run.answers_uri == "s3://models/finetune/team-a/_answers"
    spec = template_of(body)["spec"]
    assert [one["secret"]["secretName"] for one in spec["volumes"] if one["name"] == "model-key-large"] == ["api-key"]
    assert "nvidia.com/gpu" not in spec["containers"][0]["resources"]["limits"]
    assert "suspend" not in body["spec"]


def test_a_teacher_that_is_loaded_has_the_class_s_accelerators_and_its_queue() -> None:
    class_ = resolved_class(**ON_GPUS, evaluation={"accelerator": {"countPerNode": 1}})
    body, run = given(LOADED, class_=class_)
    assert (run.endpoints, run.answers_uri) == ([], None)
    container = template_of(body)["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert body["spec"]["suspend"] is True
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    refused = decided(plan(observed(LOADED, class_=resolved_class(sources={"models": ["s3://other/*"]})), NOW))
    assert (refused.decision.reason, refused.decision.writes) == ("SourceNotAllowed", ())


def test_a_pod_that_waits_in_the_queue_says_so() -> None:
    spec = observed(LOADED).spec
    begun = decided(plan(observed(LOADED, class_=resolved_class(**ON_GPUS)), NOW)).status
    assert begun.job_name is not None
    waits = decided(plan(observed(LOADED, begun, job(begun.job_name, suspended=True), spec=spec), NOW))
    assert (waits.decision.phase, waits.decision.reason) == ("Waiting", "Queued")


def test_the_time_in_the_queue_does_not_count_for_the_deadline() -> None:
    begun, limit = dataset_status(start_time=ago(60)), dataset_spec(activeDeadlineSeconds=50)
    queued = decided(plan(observed_dataset(begun, job(dataset_job(), suspended=True), spec=limit), NOW))
    assert (queued.decision.reason, queued.status.suspend_time) == ("Queued", NOW)
    admitted = decided(plan(observed_dataset(queued.status, job(dataset_job()), spec=limit), later(1000)))
    assert admitted.status.suspended_seconds == 1000


def test_code_of_graders_runs_in_a_container_of_its_own() -> None:
    body, run = given({**ENDPOINT, "graders": [PYTHON]})
    (sandbox,) = template_of(body)["spec"]["initContainers"]
    assert sandbox["args"][0] == "python-sandbox"
    assert run.python_sandbox == sandbox["args"][1]


def test_it_waits_for_the_dataset_of_its_prompts_and_pins_the_revision() -> None:
    waits = decided(plan(observed(BY_REFERENCE, prompts=progressing(Reason.WAITING_FOR_DATASET, "builds")), NOW))
    assert (waits.decision.phase, waits.decision.reason, waits.decision.writes) == ("Waiting", "WaitingForDataset", ())
    assert waits.status.start_time is None
    body, run = given(BY_REFERENCE, prompts=PINNED)
    assert run.prompts_revision == PINNED
    assert [part.uri for part in run.parts] == ["s3://models/q/training.jsonl"]
    begun = decided(plan(observed(BY_REFERENCE, prompts=PINNED), NOW)).status
    assert begun.prompts_revision == PINNED
    newer = PINNED.model_copy(update={"digest": "sha256:newer"})
    for now in (newer, stalled(Reason.REFERENCE_NOT_FOUND, "deleted")):
        runs = observed(BY_REFERENCE, begun, job(body["metadata"]["name"]), prompts=now)
        kept = decided(plan(runs, NOW))
        assert (kept.decision.reason, kept.decision.writes, kept.decision.deletes) == ("Building", (), ())
        assert kept.status.prompts_revision == PINNED
    (key,) = (
        one
        for one in dataset(Environment()).references(
            {"metadata": {"namespace": "a"}, "spec": {"generate": BY_REFERENCE}}
        )
        if one.kind == "Dataset"
    )
    assert key.name == "questions"


@pytest.mark.parametrize(
    ("generate", "told"),
    [
        ({**ENDPOINT, "graders": [{"name": "x", "type": "Multi", "multi": {"calculateOutput": "y"}}]}, "'x'"),
        ({**ENDPOINT, "graders": [PYTHON | {"python": {"source": "#" * 70_000}}]}, "may have 65,536"),
        (
            {**ENDPOINT, "prompts": {"datasetRef": {"name": "tickets", "split": "test"}}},
            "names this Dataset itself",
        ),
    ],
)
def test_what_can_not_be_generated_is_refused_before_a_pod(generate: dict[str, Any], told: str) -> None:
    spec = dataset_spec(source=None, generate=generate)
    refusal = spec_refusal("tickets", spec)
    refused = decided(plan(observed(generate, refusal=refusal), NOW))
    assert (refused.decision.reason, refused.decision.writes) == ("InvalidSpec", ())
    assert "spec.generate" in refused.message
    assert told in refused.message


def test_an_endpoint_that_is_missing_is_waited_for() -> None:
    missing = stalled(Reason.MODEL_NOT_LISTED, "no such model")
    waits = decided(plan(observed(ENDPOINT, endpoints=(missing,)), NOW))
    assert (waits.decision.reason, waits.decision.writes) == ("ModelNotListed", ())


def ends_with(**changes: Any) -> Decided:
    """The first try ended with a report."""
    name, report = dataset_job(), REPORT.model_copy(update=changes)
    over = observed_dataset(dataset_status(), job(name, "Complete"), pods=(succeeded_pod(name, report),))
    return decided(plan(over, NOW))


def test_counts_and_usage_are_in_the_status_and_impossible_ones_are_refused() -> None:
    generated = GeneratedStatus(teacher="large", prompts=90, completions=360, kept=95)
    usage = [ModelUsage(model="large", requests=360)]
    done = ends_with(revision=revision(generated=generated), usage=usage)
    assert (done.status.phase, done.status.usage) == ("Succeeded", usage)
    assert done.status.revision is not None
    assert done.status.revision.generated == generated
    for changes in ({"kept": 80}, {"completions": 94}):
        forged = revision(generated=generated.model_copy(update=changes))
        assert ends_with(revision=forged).decision.reason == "ReportRefused"
    assert ends_with(usage=usage * 2).decision.reason == "ReportRefused"


@pytest.mark.parametrize(
    "grader",
    [
        {"name": "schema", "type": "JsonSchema", "jsonSchema": {"schema": {"type": "object", "properties": SCHEMA}}},
        {"name": "code", "type": "Python", "python": {"source": f"{PYTHON['python']['source']}#" + "\x01" * 60000}},
    ],
    ids=["schema", "source"],
)
def test_graders_that_no_annotation_holds_are_refused_for_good(grader: dict[str, Any]) -> None:
    found = spec_refusal("answers", dataset_spec(source=None, generate={**ENDPOINT, "graders": [grader]}))
    assert found is not None
    assert (found.reason, found.stalled) == (Reason.INVALID_SPEC, True)
    assert "spec.generate.graders: spec.generate has" in found.message
    assert "may have 196,608. Shorten" in found.message
