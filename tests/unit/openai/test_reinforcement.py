"""OpenAI's method `reinforcement` becomes method.rft, with the same graders, and comes back as it was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.finetunejob import FineTuneJobSpec
from finetune_grading.rewards import reward_problem
from finetune_openai.errors import wrong_fields
from finetune_openai.jobs.finetunejob import BaseModel, job_object
from finetune_openai.jobs.request import JobRequest
from finetune_openai.jobs.response import checkpoint_bodies, job_body, viewed

BASE = BaseModel("qwen3-0.6b", uri="s3://models/base")
EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
CLOSE = {**EXACT, "type": "text_similarity", "name": "close", "evaluation_metric": "fuzzy_match"}
del CLOSE["operation"]
BOTH = {
    "type": "multi",
    "name": "both",
    "graders": {"exact": EXACT, "close": CLOSE},
    "calculate_output": "0.8 * exact + 0.2 * close",
}


def request(grader: dict[str, Any], **hyperparameters: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4o-mini",
        "training_file": "file-1",
        "validation_file": "file-2",
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": grader, "hyperparameters": hyperparameters},
        },
    }


def made(asked: dict[str, Any]) -> dict[str, Any]:
    read = JobRequest.model_validate_json(json.dumps(asked))
    job = job_object(read, BASE, "s3://models/train.jsonl", "s3://models/valid.jsonl", "cpu")
    job["metadata"] |= {
        "name": "ftjob-abcdefghijklmnopqrstuvwx",
        "namespace": "team-a",
        "creationTimestamp": "2026-11-26T12:00:00Z",
    }
    return job


def test_graders_and_hyperparameters_are_those_of_a_job_the_api_server_accepts() -> None:
    spec = made(
        request(BOTH, compute_multiplier=2, eval_interval=5, eval_samples=3, n_epochs=2, learning_rate_multiplier=0.5)
    )["spec"]
    read = FineTuneJobSpec.from_wire(spec)
    assert read.method.rft is not None
    assert reward_problem(read.method.rft) is None
    assert [grader.type for grader in read.method.rft.graders] == ["StringCheck", "TextSimilarity"]
    assert read.method.rft.reward == "0.8 * exact + 0.2 * close"
    assert read.method.rft.completions_per_prompt == 16
    assert read.method.rft.evaluation.completions_per_prompt == 3
    assert read.checkpoints.every_steps == 5
    assert spec["hyperparameters"] == {"epochs": 2, "learningRate": 1e-05}


def test_the_body_shows_the_grader_and_what_auto_became() -> None:
    job = viewed(made(request(EXACT, eval_samples=2)))
    assert job is not None
    method = job_body(job)["method"]
    assert method["type"] == "reinforcement"
    assert method["reinforcement"]["grader"] == EXACT
    assert method["reinforcement"]["hyperparameters"]["eval_samples"] == 2
    assert job_body(job)["hyperparameters"].keys() == {"n_epochs", "batch_size", "learning_rate_multiplier"}


def test_a_checkpoint_has_its_mean_reward() -> None:
    checkpoint = {"step": 10, "uri": "s3://models/step-10", "metric": 0.4, "committedTime": "2026-11-26T13:00:00Z"}
    job = viewed({**made(request(EXACT)), "status": {"phase": "Training", "checkpoints": [checkpoint]}})
    assert job is not None
    (body,) = checkpoint_bodies(job)
    assert body["metrics"] == {"step": 10, "full_valid_mean_reward": 0.4}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"validation_file": None}, "needs a validation_file"),
        ({"method": {"type": "reinforcement"}}, "needs the member 'reinforcement' with a grader"),
        (
            request({"type": "python", "name": "code", "source": "def grade(sample, item): return 1"}),
            "'code' is Python code, which runs in an Evaluation's sandbox and rewards nothing",
        ),
        (request({**EXACT, "reference": "{{item.}}"}), "is not a variable"),
        (
            request(
                {
                    "type": "score_model",
                    "name": "judge",
                    "model": "o4-mini",
                    "input": [{"role": "user", "content": "Rate {{sample.output_text}}"}],
                }
            ),
            "asks a model, which a reward can't here",
        ),
        (request(EXACT, reasoning_effort="high"), "reasoning_effort"),
    ],
)
def test_what_has_no_equal_here_is_refused_with_what_to_do(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        JobRequest.model_validate_json(json.dumps(request(EXACT) | changes))
    refused = wrong_fields(error.value)
    assert told in f"{refused.param} {refused}"
