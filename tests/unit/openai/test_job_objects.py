"""From OpenAI's request to a FineTuneJob and back: what a job is made of, and how its status is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_openai.errors import RefusedError, wrong_fields
from finetune_openai.jobs.finetunejob import (
    CREATED_ANNOTATION,
    BaseModel,
    job_name,
    job_object,
    job_of_model,
    model_name,
    request_digest,
)
from finetune_openai.jobs.request import JobRequest
from finetune_openai.jobs.response import checkpoint_bodies, event_bodies, job_body, newest_first, viewed

BASE = BaseModel("qwen3-0.6b", uri="s3://models/base")
NAME = "ftjob-abcdefghijklmnopqrstuvwx"
REQUEST: dict[str, Any] = {"model": "gpt-4o-mini", "training_file": "file-1"}
TUNED = f"ft:qwen3-0.6b:team-a:router:{NAME.removeprefix('ftjob-')}"


def made(request: dict[str, Any], base: BaseModel = BASE, **status: Any) -> dict[str, Any]:
    asked = JobRequest.model_validate_json(json.dumps(REQUEST | request))
    job = job_object(asked, base, "s3://models/train.jsonl", None, "cpu")
    job["metadata"] |= {"name": NAME, "namespace": "team-a", "creationTimestamp": "2026-11-26T12:00:00Z"}
    return {**job, "status": status}


def shown(request: dict[str, Any], **status: Any) -> dict[str, Any]:
    job = viewed(made(request, **status))
    assert job is not None
    return job_body(job)


@pytest.mark.parametrize(
    ("hyperparameters", "base", "expected"),
    [
        ({}, BASE, {}),
        ({"n_epochs": 3, "batch_size": 8}, BASE, {"epochs": 3, "batchSize": 8}),
        ({"learning_rate_multiplier": 0.5}, BASE, {"learningRate": 1e-4}),
        ({"learning_rate_multiplier": 0.5}, BaseModel("a", job=NAME), {"learningRate": 2e-5}),
        ({"learning_rate_multiplier": "auto", "n_epochs": "auto"}, BASE, {}),
    ],
)
@pytest.mark.parametrize("older", [True, False])
def test_hyperparameters_are_those_of_a_job_the_api_server_accepts(
    hyperparameters: dict[str, Any], base: BaseModel, expected: dict[str, Any], older: bool
) -> None:
    new = {"method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}}
    spec = made({"hyperparameters": hyperparameters} if older else new, base)["spec"]
    FineTuneJobSpec.from_wire(spec)
    assert spec["hyperparameters"] == expected


def test_the_beta_of_dpo_goes_into_the_spec_and_comes_back_in_the_body() -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}}
    spec = made({"method": method})["spec"]
    FineTuneJobSpec.from_wire(spec)
    assert spec["method"] == {"type": "DPO", "dpo": {"beta": 0.3}}
    body = shown({"method": method})
    assert body["method"]["dpo"]["hyperparameters"]["beta"] == 0.3
    assert "beta" not in body["hyperparameters"]


def test_of_jobs_of_one_second_the_newest_is_first() -> None:
    created = ["170", "20", "190", "180", "no number", "190"]  # nanoseconds; the first of their names' order is last
    jobs = []
    for number, moment in enumerate(created):
        job = made({})
        job["metadata"]["name"] = f"{NAME[:-1]}{number}"
        job["metadata"]["annotations"][CREATED_ANNOTATION] = moment
        jobs.append(viewed(job))
    found = newest_first(job for job in jobs if job is not None)
    assert [int(job.id[-1]) for job in found] == [2, 5, 3, 0, 1, 4]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"batch_size": 1}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"suffix": ""}, "suffix"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": float("inf")}}, "hyperparameters.learning_rate_multiplier"),
    ],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as error:
        JobRequest.model_validate_json(json.dumps(REQUEST | wrong))
    refused = wrong_fields(error.value)
    assert isinstance(refused, RefusedError)
    assert (refused.status, (refused.param or "").startswith(param)) == (400, True)


def test_untrusted_text_is_in_no_label_and_in_no_name() -> None:
    job = made({"suffix": "A b:../é\n", "metadata": {"a/b\n": "\x00"}})
    assert job["metadata"]["labels"] == {"finetune.dev/openai": "true"}
    request = viewed(job)
    assert request is not None
    assert model_name(NAME, request.request, "base", "team-a").split(":")[3] == "a-b-..-"


@pytest.mark.parametrize("annotation", ["", "[]", "{", '{"base": "b"}', "null", "[" * 10_000])
def test_a_job_whose_annotation_somebody_changed_is_not_shown(annotation: str) -> None:
    job = made({})
    job["metadata"]["annotations"] = {"finetune.dev/openai-request": annotation}
    assert viewed(job) is None


@pytest.mark.parametrize(
    ("phase", "spec", "status"),
    [
        (None, {}, "validating_files"),
        ("Queued", {}, "queued"),
        ("Retrying", {}, "running"),
        ("Training", {"suspend": True}, "pausing"),
        ("Suspended", {"suspend": True}, "paused"),
        ("Training", {"cancel": True}, "running"),
        ("Training", {"cancel": True, "suspend": True}, "running"),
        ("Cancelled", {"cancel": True}, "cancelled"),
        ("Succeeded", {"cancel": True}, "succeeded"),
        ("Failed", {"suspend": True}, "failed"),
    ],
)
def test_each_phase_has_a_status_of_openais_api(phase: str | None, spec: dict[str, Any], status: str) -> None:
    job = made({}, **({} if phase is None else {"phase": phase}))
    job["spec"] |= spec
    found = viewed(job)
    assert found is not None
    assert job_body(found)["status"] == status


def test_a_running_job_says_when_it_ends_and_what_auto_became() -> None:
    progress = {
        "step": 10,
        "totalSteps": 100,
        "percent": 10,
        "loss": 0.5,
        "estimatedRemainingSeconds": 90,
        "lastUpdatedTime": "2026-11-26T12:10:00Z",
    }
    resolved = {
        "epochs": 3.0,
        "batchSize": 16,
        "learningRate": 2e-4,
        "schedule": "Cosine",
        "warmupPercent": 3.0,
        "weightDecay": 0.0,
        "maxLength": 512,
        "packing": False,
        "seed": 17,
        "totalSteps": 100,
        "checkpointEverySteps": 10,
    }
    job = viewed(made({}, phase="Training", progress=progress, resolved=resolved))
    assert job is not None
    body = job_body(job)
    assert body["estimated_finish"] == int(datetime(2026, 11, 26, 12, 11, 30, tzinfo=UTC).timestamp())
    assert body["hyperparameters"] == {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.0}
    newest = event_bodies(job, None)[0]
    assert (newest["message"], newest["type"]) == ("Step 10/100: training loss=0.5", "metrics")


def test_events_keep_their_ids_while_others_come() -> None:
    log = b'{"time": "2026-11-26T12:05:00Z", "message": "Checkpoint saved", "step": 5}\n'
    job = viewed(made({}, phase="Training"))
    assert job is not None
    before = [event["id"] for event in event_bodies(job, log)]
    more = log * 2 + b'{"time": 5}\nnot JSON\n'
    after = [event["id"] for event in event_bodies(job, more)]
    assert len(set(after)) == len(after) == len(before) + 1
    assert after[1:] == before


def test_checkpoints_are_the_newest_first() -> None:
    saved = [{"step": step, "uri": f"s3://m/step-{step}", "metric": 0.5} for step in (10, 20)]
    job = viewed(made({"suffix": "router"}, phase="Training", checkpoints=saved))
    assert job is not None
    found = checkpoint_bodies(job)
    assert [one["step_number"] for one in found] == [20, 10]
    assert found[0]["fine_tuned_model_checkpoint"] == f"{TUNED}:ckpt-step-20"
    assert found[0]["metrics"] == {"step": 20, "full_valid_loss": 0.5}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (TUNED, (NAME, False)),
        (f"{TUNED}:ckpt-step-20", (NAME, True)),
        ("ft:a:b:c:../../x", None),
        ("gpt-4o", None),
        (f"ft:{NAME}", None),
        ("", None),
    ],
)
def test_a_tuned_models_name_leads_to_its_job(name: str, expected: tuple[str, bool] | None) -> None:
    assert job_of_model(name) == expected


def test_a_jobs_name_follows_from_caller_and_request() -> None:
    digest = request_digest("alice", b"{}", None)
    assert digest != request_digest("bob", b"{}", None)
    assert request_digest("alice", b"1", "key") == request_digest("alice", b"2", "key")
    assert len({job_name(digest, number) for number in range(10)}) == 10
