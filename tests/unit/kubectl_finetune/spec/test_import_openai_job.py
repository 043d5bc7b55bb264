"""`import`: a job of OpenAI's becomes a FineTuneJob that is valid, and what has no equivalent is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from finetune_api.default_hyperparameters import learning_rate
from finetune_api.finetunejob import SETTINGS
from kubectl_finetune.errors import PluginError
from kubectl_finetune.spec.import_openai_job import ImportedJob, Replacements, import_job, model_of, read_job
from kubectl_finetune.spec.validate import documents, local_problems

GIVEN = Replacements("s3://models/qwen3", "s3://data/train.jsonl")
SUPERVISED: dict[str, Any] = {
    "object": "fine_tuning.job",
    "id": "ftjob-abc123",
    "model": "gpt-4o-mini-2024-07-18",
    "created_at": 1721764800,
    "finished_at": 1721768400,
    "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme:router:9abc",
    "organization_id": "org-123",
    "result_files": ["file-r"],
    "status": "succeeded",
    "validation_file": None,
    "training_file": "file-abc",
    "hyperparameters": {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 1.8},
    "trained_tokens": 5768,
    "integrations": [],
    "seed": 42,
    "estimated_finish": None,
    "user_provided_suffix": "Router v2",
    "usage_metrics": None,
    "shared_with_openai": False,
    "method": {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 1.8}},
    },
}
DPO = {
    **SUPERVISED,
    "user_provided_suffix": None,
    "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": "auto", "beta": 0.2}}},
    "hyperparameters": None,
    "seed": None,
}
OLD = {
    "object": "fine_tuning.job",
    "model": "gpt-3.5-turbo-0613",
    "training_file": "file-abc",
    "hyperparameters": {"n_epochs": 3},
}


EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
CLOSE = {
    "type": "text_similarity",
    "name": "close",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
BOTH = {
    "type": "multi",
    "name": "both",
    "graders": {"exact": EXACT, "close": CLOSE},
    "calculate_output": "0.8 * exact + 0.2 * close",
}


def reinforcement(grader: dict[str, Any], **hyperparameters: Any) -> dict[str, Any]:
    method = {"grader": grader, "hyperparameters": hyperparameters}
    return {**DPO, "validation_file": "file-v", "method": {"type": "reinforcement", "reinforcement": method}}


def imported(job: dict[str, Any], given: Replacements = GIVEN) -> ImportedJob:
    return import_job(read_job(json.dumps(job), "job.json"), given)


def spec_of(found: ImportedJob) -> dict[str, Any]:
    text = found.yaml()
    assert [problem for one in documents(text) for problem in local_problems(one)] == []
    spec: dict[str, Any] = yaml.safe_load(text)["spec"]
    return spec


def test_a_supervised_job_becomes_an_sft_with_its_hyperparameters() -> None:
    found = imported(SUPERVISED)
    assert found.name == "router-v2"
    rate = learning_rate(SETTINGS["SFT"]().rules, "LoRA", continued=False)
    assert spec_of(found) == {
        "model": {"uri": "s3://models/qwen3"},
        "method": {"type": "SFT"},
        "dataset": {"training": {"uri": "s3://data/train.jsonl"}},
        "hyperparameters": {"epochs": 4, "batchSize": 8, "learningRate": pytest.approx(1.8 * rate), "seed": 42},
    }


def test_a_dpo_job_whose_other_hyperparameters_are_automatic() -> None:
    found = imported(DPO)
    assert found.name == "gpt-4o-mini-2024-07-18"
    assert spec_of(found)["method"] == {"type": "DPO", "dpo": {"beta": 0.2}}
    assert "hyperparameters" not in found.spec


def test_the_hyperparameters_are_those_of_its_method() -> None:
    settings = {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}
    both = {"type": "dpo", "supervised": {"hyperparameters": {"n_epochs": 9}}, "dpo": settings}
    assert spec_of(imported({**DPO, "method": both}))["hyperparameters"] == {"epochs": 2}


@pytest.mark.parametrize("name", ["My_Job", "-a", "a-", "a" * 64, ""])
def test_a_name_that_no_api_server_takes_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="is no name of a FineTuneJob"):
        imported(OLD, Replacements("s3://models/a", "s3://data/t.jsonl", name=name))


def test_a_job_of_before_methods_in_a_list() -> None:
    assert spec_of(imported({"object": "list", "data": [OLD], "has_more": False}))["hyperparameters"] == {"epochs": 3}


def test_a_validation_file_is_replaced_or_reported() -> None:
    job = {**SUPERVISED, "validation_file": "file-v"}
    with_one = imported(
        job, Replacements("s3://models/a", "s3://data/t.jsonl", "s3://data/v.jsonl", "mine", "team-a", "gpu")
    )
    assert spec_of(with_one)["dataset"]["validation"] == {"uri": "s3://data/v.jsonl"}
    assert (with_one.name, with_one.namespace, with_one.spec["className"]) == ("mine", "team-a", "gpu")
    without = imported(job)
    assert spec_of(without)["dataset"]["validation"] == {"splitPercent": 10}
    assert any("file-v" in note for note in without.notes)


def test_what_is_not_translated_is_a_comment_that_nothing_breaks_out_of() -> None:
    found = imported({**SUPERVISED, "validation_file": "file\nspec: {}\u2028", "integrations": [{"type": "wandb"}]})
    assert spec_of(found)["model"] == {"uri": "s3://models/qwen3"}
    assert "integrations: not translated" in found.yaml()


def test_the_model_is_the_classes_by_name_or_alias() -> None:
    models = [{"name": "qwen3", "aliases": ["gpt-4o-mini-2024-07-18"], "uri": "s3://models/qwen3"}]
    found = {"metadata": {"name": "gpu"}, "spec": {"openai": {"models": models}}}
    assert model_of(read_job(json.dumps(SUPERVISED), "a"), found) == "s3://models/qwen3"
    for other, told in ((None, "no default FineTuneClass"), ({**found, "spec": {}}, "'gpu' has no model")):
        with pytest.raises(PluginError, match=told):
            model_of(read_job(json.dumps(SUPERVISED), "a"), other)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no fine-tuning job"),
        ("{}", "model"),
        (json.dumps({"object": "list", "data": [OLD, OLD]}), "a list of 2 jobs"),
        (json.dumps({"object": "list", "data": 7}), "a list of 0 jobs"),
        (json.dumps({**OLD, "hyperparameters": {"n_epochs": 0}}), "n_epochs"),
        (
            json.dumps({**OLD, "hyperparameters": {"learning_rate_multiplier": float("nan")}}),
            "learning_rate_multiplier",
        ),
    ],
)
def test_a_file_that_is_no_job_is_refused(text: str, told: str) -> None:
    with pytest.raises(PluginError, match=told):
        read_job(text, "job.json")


def test_a_reinforcement_job_keeps_its_grader() -> None:
    asked = {"n_epochs": 2, "batch_size": 4, "compute_multiplier": 2.0, "eval_interval": 5, "eval_samples": 3}
    found = imported(reinforcement(BOTH, **asked), Replacements(GIVEN.model, GIVEN.dataset, "s3://data/v.jsonl"))
    (document,) = documents(found.yaml())
    assert list(local_problems(document)) == []
    rft = found.spec["method"]["rft"]
    assert found.spec["method"]["type"] == "RFT"
    assert [grader["name"] for grader in rft["graders"]] == ["exact", "close"]
    assert rft["reward"] == "0.8 * exact + 0.2 * close"
    assert rft["completionsPerPrompt"] == 16
    assert rft["evaluation"] == {"completionsPerPrompt": 3}
    assert found.spec["checkpoints"] == {"everySteps": 5}
    assert found.spec["hyperparameters"] == {"epochs": 2, "batchSize": 4}
    assert found.spec["dataset"]["validation"] == {"uri": "s3://data/v.jsonl"}


def test_a_reinforcement_job_holds_prompts_out_where_no_validation_is_named() -> None:
    job = reinforcement(EXACT)
    job["method"]["reinforcement"]["response_format"] = {"type": "json_schema", "json_schema": {"name": "a"}}
    found = imported(job)
    assert found.spec["dataset"]["validation"] == {"splitPercent": 10}
    assert any(note.startswith("response_format: not translated") for note in found.notes)


def test_a_grader_that_cant_reward_here_is_reported() -> None:
    python = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1"}
    with pytest.raises(PluginError, match="'p' is Python code"):
        imported(reinforcement(python))
    with pytest.raises(PluginError, match="grader"):
        imported({**OLD, "method": {"type": "reinforcement", "reinforcement": {}}})


def test_what_the_schema_refuses_is_reported_by_its_field() -> None:
    with pytest.raises(PluginError, match=r"hyperparameters\.epochs"):
        imported({**OLD, "hyperparameters": {"n_epochs": 10**9}})


def test_a_place_that_can_hold_no_dataset_is_refused_with_what_can() -> None:
    job = read_job(json.dumps(SUPERVISED), "job.json")
    for place, option in (
        (Replacements("s3://m/qwen3", "s3://x/y"), "--dataset 's3://x/y'"),
        (Replacements("s3://m/qwen3", "s3://data/t.jsonl", "y"), "--validation 'y'"),
    ):
        with pytest.raises(PluginError, match=rf"^{option} is no dataset: s3://BUCKET/PATH .*hf://datasets/ORG/NAME"):
            import_job(job, place)
