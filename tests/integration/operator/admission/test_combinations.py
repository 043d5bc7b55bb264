"""Fields that exclude or need each other: the API server refuses what makes no sense together, and names the fields."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import CANDIDATE, CLASS, JOB, REFERENCE, assert_refused
from tests.integration.operator.api import Api, Object

URI_OR_SPLIT = {"validation": {"uri": "s3://data/valid.jsonl", "splitPercent": 10}}
MODEL: Object = {"name": "judge", "url": "https://api.example.com/v1"}
PROMPTS: Object = {"training": {"uri": "s3://data/a.jsonl"}, "validation": {"uri": "s3://data/b.jsonl"}}
EXACT: Object = {"name": "exact", "type": "StringCheck"}
COSINE: Object = {"name": "near", "type": "TextSimilarity", "textSimilarity": {"metric": "Cosine", "model": "judge"}}
DISTILLATION: Object = {"type": "Distillation", "distillation": {"teacher": {"uri": "s3://models/large"}}}
RFT: Object = {"type": "RFT", "rft": {"graders": [EXACT]}}
TONE: Object = {
    "name": "tone",
    "type": "ScoreModel",
    "scoreModel": {"model": "judge", "input": [{"content": "Rate {{sample.output_text}}"}]},
}


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        # Exactly one of two.
        (
            "FineTuneJob",
            {"dataset": {**JOB["dataset"], **URI_OR_SPLIT}},
            ["spec.dataset.validation", "exactly one of uri, uris, configMapRef, datasetRef and splitPercent"],
        ),
        (
            "FineTuneJob",
            {"dataset": {**JOB["dataset"], "validation": {}}},
            ["exactly one of uri, uris, configMapRef, datasetRef and splitPercent"],
        ),
        (
            "FineTuneJob",
            {"dataset": {"training": {"uri": "s3://data/a.jsonl", "uris": ["s3://data/b.jsonl"]}}},
            ["spec.dataset.training", "exactly one of uri, uris, configMapRef and datasetRef"],
        ),
        ("FineTuneJob", {"dataset": {"training": {}}}, ["exactly one of uri, uris, configMapRef and datasetRef"]),
        ("FineTuneJob", {"dataset": {"training": {"uris": []}}}, ["spec.dataset.training.uris"]),
        (
            "FineTuneJob",
            {"dataset": {"training": {"configMapRef": {"name": "Data", "key": "../train"}}}},
            ["spec.dataset.training.configMapRef.name", "spec.dataset.training.configMapRef.key"],
        ),
        # What makes no sense together.
        (
            "FineTuneJob",
            {"dataset": {"training": JOB["dataset"]["training"], "prepare": {"leaks": "Drop"}}},
            ["spec.dataset.prepare.leaks", "prepare.leaks: Drop needs a validation set"],
        ),
        (
            "FineTuneJob",
            {"dataset": {**JOB["dataset"], "format": "Preference"}},
            ["spec.dataset.format", "dataset.format Preference requires method DPO"],
        ),
        (
            "FineTuneJob",
            {"dataset": {"training": {**JOB["dataset"]["training"], "limit": {"examples": 1, "percent": 1}}}},
            ["spec.dataset.training.limit", "exactly one of examples and percent"],
        ),
        (
            "FineTuneClass",
            {"storage": {**CLASS["storage"], "serviceAccountName": "s3"}},
            ["spec.storage", "exactly one of credentialsSecretName and serviceAccountName"],
        ),
        ("FineTuneClass", {"storage": {"bucket": "models"}}, ["spec.storage", "exactly one of credentialsSecretName"]),
        (
            "ModelDeployment",
            {"model": {**REFERENCE, "uri": "s3://models/base"}},
            ["spec.model", "exactly one of uri, fineTuneJobRef and sweepRef"],
        ),
        ("ModelDeployment", {"model": {}}, ["exactly one of uri, fineTuneJobRef and sweepRef"]),
        ("ModelDeployment", {"gateway": {"replicas": 9}}, ["spec.gateway.inFlightLimit", "has 512 connections"]),
        ("ModelDeployment", {"gateway": {"inFlightLimit": 257}}, ["spec.gateway.inFlightLimit", "has 512 connections"]),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "maximum": 0.5, "decision": "LowerBound"}]},
            ["spec.gates[0].decision", "decision LowerBound requires minimum or minimumDelta"],
        ),
        (
            "Evaluation",
            {"generation": {"samplesPerExample": 4}},
            ["spec.generation.temperature", "topP and samplesPerExample need a temperature above 0"],
        ),
        (
            "Evaluation",
            {"generation": {"topP": 0.9}},
            ["spec.generation.temperature", "topP and samplesPerExample need a temperature above 0"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimum": 0.5, "minimumDelta": 0.1}]},
            ["spec.gates[0]", "exactly one of minimum, minimumDelta, maximum and maximumDelta"],
        ),
        # No interval reaches the ends of the scale.
        *(
            ("Evaluation", {"gates": [{"grader": "exact", **gate}]}, ["spec.gates[0].decision", "this gate can't pass"])
            for gate in (
                {"minimum": 1},
                {"minimumDelta": 1, "decision": "LowerBound"},
                {"maximum": 0},
                {"maximumDelta": -1, "decision": "UpperBound"},
            )
        ),
        # What must go together.
        (
            "FineTuneJob",
            {"checkpoints": {"best": {"metric": "EvalLoss"}}},
            ["spec.checkpoints.best", "checkpoints.best by EvalLoss needs dataset.validation"],
        ),
        (
            "FineTuneJob",
            {"hyperparameters": {"earlyStopping": {}}},
            ["spec.hyperparameters.earlyStopping", "hyperparameters.earlyStopping needs dataset.validation"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "DPO", "sft": {}}},
            ["spec.method.sft", "sft is only allowed with type SFT"],
        ),
        ("FineTuneJob", {"method": {"dpo": {"beta": 0.2}}}, ["spec.method.dpo", "dpo is only allowed with type DPO"]),
        ("FineTuneJob", {"method": {"type": "DPO", "dpo": {"beta": 0}}}, ["spec.method.dpo.beta", "greater than 0"]),
        ("FineTuneJob", {"method": {"sft": {"promptLossWeight": 1.5}}}, ["spec.method.sft.promptLossWeight"]),
        (
            "FineTuneJob",
            {"method": {"type": "DPO"}, "hyperparameters": {"packing": True}},
            ["spec.hyperparameters.packing", "hyperparameters.packing needs method.type SFT"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "DPO"}, "parallelism": {"strategy": "FSDP"}},
            ["spec.parallelism.strategy", "method.type DPO needs parallelism.strategy DDP"],
        ),
        ("FineTuneJob", {"method": {"type": "RFT"}}, ["spec.method.rft", "rft is required with type RFT"]),
        (
            "FineTuneJob",
            {"method": {"type": "RFT", "rft": {"graders": []}}, "dataset": PROMPTS},
            ["spec.method.rft.graders"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "RFT", "rft": {"graders": [EXACT, {**EXACT, "name": "too"}]}}, "dataset": PROMPTS},
            ["spec.method.rft.reward", "reward is required with several graders"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "RFT", "rft": {"graders": [{**EXACT, "type": "ScoreModel"}]}}, "dataset": PROMPTS},
            ["spec.method.rft.graders[0].type", '"ScoreModel"'],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "RFT", "rft": {"graders": [COSINE]}}, "dataset": PROMPTS},
            ["spec.method.rft.graders[0].textSimilarity.metric", "metric Cosine asks a model of the class"],
        ),
        (
            "FineTuneJob",
            {"method": RFT, "dataset": {"training": JOB["dataset"]["training"]}},
            ["spec.dataset.validation", "method.type RFT needs dataset.validation"],
        ),
        (
            "FineTuneJob",
            {"method": RFT, "dataset": {**PROMPTS, "format": "Chat"}},
            ["spec.dataset.format", "dataset.format Chat requires method SFT or Distillation"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "Distillation"}},
            ["spec.method.distillation", "distillation is required with type Distillation"],
        ),
        (
            "FineTuneJob",
            {"method": {"type": "Distillation", "distillation": {"teacher": {}}}},
            ["spec.method.distillation.teacher", "set exactly one of uri and fineTuneJobRef"],
        ),
        (
            "FineTuneJob",
            {"method": DISTILLATION, "parallelism": {"processesPerNode": 2}},
            ["spec.parallelism", "method.type Distillation trains in one process"],
        ),
        (
            "FineTuneJob",
            {"method": DISTILLATION, "dataset": {**PROMPTS, "format": "Preference"}},
            ["spec.dataset.format", "dataset.format Preference requires method DPO"],
        ),
        (
            "FineTuneJob",
            {"method": DISTILLATION, "hyperparameters": {"packing": True}},
            ["spec.hyperparameters.packing", "hyperparameters.packing needs method.type SFT"],
        ),
        (
            "FineTuneJob",
            {"method": RFT, "dataset": PROMPTS, "parallelism": {"nodes": 2}},
            ["spec.parallelism", "method.type RFT trains in one process"],
        ),
        (
            "FineTuneJob",
            {"method": RFT, "dataset": PROMPTS, "hyperparameters": {"earlyStopping": {}}},
            ["spec.hyperparameters.earlyStopping", "method.type RFT has no loss"],
        ),
        (
            "FineTuneJob",
            {"checkpoints": {"best": {"metric": "ValidReward", "goal": "Maximize"}}},
            ["spec.checkpoints.best.metric", "checkpoints.best by ValidReward requires method RFT"],
        ),
        (
            "FineTuneJob",
            {"method": RFT, "dataset": PROMPTS, "checkpoints": {"best": {"metric": "EvalLoss"}}},
            ["spec.checkpoints.best", "checkpoints.best is by ValidReward, with goal Maximize"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"full": {"freeze": {"layers": 2}}}},
            ["spec.adapter.full", "full is only allowed with type Full"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "Full", "lora": {"inherited": "Merge"}}, "model": REFERENCE},
            ["spec.adapter.lora", "lora is only allowed with type LoRA"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "LoRA", "qlora": {}}},
            ["spec.adapter.qlora", "qlora is only allowed with type QLoRA"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "QLoRA", "qlora": {"inherited": "Merge"}}, "model": REFERENCE},
            ["spec.adapter.qlora.inherited", 'supported values: "Continue"'],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "QLoRA"}, "parallelism": {"strategy": "FSDP"}},
            ["spec.parallelism.strategy", "adapter.type QLoRA needs parallelism.strategy DDP"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"lora": {"inherited": "Merge"}}},
            ["spec.adapter", "inherited needs model.fineTuneJobRef"],
        ),
        (
            "FineTuneJob",
            {"adapter": {"type": "QLoRA", "qlora": {"inherited": "Continue"}}},
            ["spec.adapter", "inherited needs model.fineTuneJobRef"],
        ),
        (
            "FineTuneJob",
            {"model": {**REFERENCE, **JOB["model"]}},
            ["spec.model", "exactly one of uri and fineTuneJobRef"],
        ),
        ("FineTuneJob", {"model": {}}, ["spec.model", "exactly one of uri and fineTuneJobRef"]),
        (
            "Evaluation",
            {"gates": [{"grader": "other", "minimum": 0.5}]},
            ["spec.gates", "grader of a gate names one of the graders"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimum": 0.5, "slice": {"by": "{{item.language}}", "value": "de"}}]},
            ["spec.gates", "slice.by of a gate is one of dataset.slices"],
        ),
        (
            "Evaluation",
            {"baseline": {"model": {"endpoint": {"name": "large"}, "outputs": {"uri": "s3://data/outputs.jsonl"}}}},
            ["spec.baseline.model", "exactly one of uri, fineTuneJobRef, sweepRef, endpoint and outputs"],
        ),
        (
            "Evaluation",
            {"candidates": [{**CANDIDATE, "name": "baseline"}]},
            ["spec.candidates", "can't be named baseline"],
        ),
        (
            "Evaluation",
            {"candidates": [{"name": "tuned", "model": {"uri": "s3://models/tuned"}}]},
            ["spec.baseline", "without a baseline, the first candidate must be a fineTuneJobRef"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "exact", "type": "StringCheck", "jsonSchema": {"schema": {}}}]},
            ["spec.graders[0].jsonSchema", "jsonSchema is only allowed with type JsonSchema"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "schema", "type": "JsonSchema"}]},
            ["spec.graders[0].jsonSchema", "jsonSchema is required with type JsonSchema"],
        ),
        # Checkpoints.
        (
            "Evaluation",
            {"candidates": [{"name": "tuned", "model": {**REFERENCE, "checkpoint": "First"}}]},
            ["spec.candidates[0].model.checkpoint", "should match '^(Best|Last|All)$'"],
        ),
        (
            "Evaluation",
            {"candidates": [{"name": "tuned", "model": {**REFERENCE, "checkpoint": 0}}]},
            ["spec.candidates[0].model.checkpoint", "should be greater than or equal to 1"],
        ),
        (
            "Evaluation",
            {"baseline": {"model": {"uri": "s3://models/base", "checkpoint": 100}}},
            ["spec.baseline.model.checkpoint", "checkpoint requires fineTuneJobRef"],
        ),
        (
            "Evaluation",
            {"baseline": {"model": {**REFERENCE, "checkpoint": "All"}}},
            ["spec.baseline.model.checkpoint", "the baseline is one model, not All checkpoints"],
        ),
        (
            "Evaluation",
            {"candidates": [{"name": "a" * 17, "model": {**REFERENCE, "checkpoint": "All"}}]},
            ["spec.candidates[0].name", "with checkpoint All: at most 16 characters"],
        ),
        (
            "Evaluation",
            {
                "candidates": [
                    {"name": "tuned", "model": {**REFERENCE, "checkpoint": "All"}},
                    {"name": "tuned-step-100", "model": REFERENCE},
                ]
            },
            ["spec.candidates", "no candidate is named as a checkpoint of another (NAME-step-N)"],
        ),
        (
            "ModelDeployment",
            {"model": {**REFERENCE, "checkpoint": "All"}},
            ["spec.model.checkpoint", "should match '^(Best|Last)$'"],
        ),
        (
            "ModelDeployment",
            {"model": {"uri": "s3://models/tuned", "checkpoint": "Last"}},
            ["spec.model.checkpoint", "checkpoint requires fineTuneJobRef"],
        ),
        # Graders that ask a model, and the class's models.
        (
            "Evaluation",
            {"graders": [{**TONE, "scoreModel": {**TONE["scoreModel"], "range": [5, 1]}}]},
            ["spec.graders[0].scoreModel.range", "range is the least and the greatest number"],
        ),
        (
            "Evaluation",
            {"graders": [{**TONE, "scoreModel": {**TONE["scoreModel"], "range": [1]}}]},
            ["spec.graders[0].scoreModel.range", "should have at least 2 items"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "near", "type": "TextSimilarity", "textSimilarity": {"metric": "Cosine"}}]},
            ["spec.graders[0].textSimilarity.model", "metric Cosine requires model"],
        ),
        (
            "Evaluation",
            {"graders": [{"name": "near", "type": "TextSimilarity", "textSimilarity": {"model": "embedder"}}]},
            ["spec.graders[0].textSimilarity.model", "no other metric has one"],
        ),
        ("Evaluation", {"budget": {"requests": 0}}, ["spec.budget.requests", "greater than or equal to 1"]),
        ("FineTuneClass", {"models": [MODEL] * 2}, ["spec.models[1]", "Duplicate value"]),
        ("FineTuneClass", {"models": [{"name": "judge"}]}, ["exactly one of url, modelDeploymentRef and base"]),
        (
            "FineTuneClass",
            {"models": [{**MODEL, "modelDeploymentRef": {"name": "judge"}}]},
            ["exactly one of url, modelDeploymentRef and base"],
        ),
        (
            "FineTuneClass",
            {"models": [{"name": "j", "modelDeploymentRef": {"name": "judge"}, "credentialsSecretName": "key"}]},
            ["a ModelDeployment has no key"],
        ),
        ("FineTuneClass", {"models": [{"name": "j", "url": "file:///etc/passwd"}]}, ["spec.models[0].url"]),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "minimum": 0.99995}]},
            ["spec.gates[0].decision", "never comes nearer to the end of the scale than 0.0001"],
        ),
        (
            "Evaluation",
            {"gates": [{"grader": "exact", "maximum": 1e-9}]},
            ["spec.gates[0].decision", "never comes nearer to the end of the scale than 0.0001"],
        ),
        (
            "FineTuneClass",
            {"models": [{"name": "j", "url": "https://user:key@api.example.com"}]},
            ["spec.models[0].url"],
        ),
        (
            "FineTuneClass",
            {"models": [{"name": "j", "url": "https://api.example.com/v1?key=x"}]},
            ["spec.models[0].url"],
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(api: Api, kind: str, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, kind, changes, told)
