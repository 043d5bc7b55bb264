"""An Evaluation before it runs: what it needs, and what it is told to evaluate."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.pod_contracts.run import EvaluateRun, ModelSource
from finetune_operator.evaluation.observed import ObservedEvaluation
from finetune_operator.evaluation.plan import plan
from finetune_operator.models.resolve import ResolvedModel
from tests.unit.operator.evaluation.plans import JOB_OBJECTS, NEW, NO_JOB, decide
from tests.unit.operator.evaluation_states import (
    WAITING_FOR_MODEL,
    evaluation_spec,
    observed_evaluation,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    NOW,
    Decision,
    resolved_class,
)

# What it needs before it can start.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"class_": CLASS_NOT_FOUND, "model": WAITING_FOR_MODEL},
            Decision("Waiting", "ClassNotFound", stalled=True, event="Warning ClassNotFound"),
        ),
        (
            {"class_": resolved_class(sources={"datasets": ["s3://public/*"]})},
            Decision("Waiting", "SourceNotAllowed", stalled=True, event="Warning SourceNotAllowed"),
        ),
        ({"model": WAITING_FOR_MODEL}, Decision("Waiting", "WaitingForModel", event="Normal WaitingForModel")),
        (
            {"model": NO_JOB},
            Decision("Waiting", "ReferenceNotFound", stalled=True, event="Warning ReferenceNotFound"),
        ),
        (
            {"baseline": NO_JOB},
            Decision("Waiting", "ReferenceNotFound", stalled=True, event="Warning ReferenceNotFound"),
        ),
        ({}, Decision("Evaluating", "Evaluating", writes=JOB_OBJECTS, again_in=15, event="Normal Evaluating")),
    ],
    ids=["no class", "data not allowed", "model not ready", "no such job", "no such baseline", "all there"],
)
def test_a_new_evaluation_starts_once_its_class_and_models_exist(changes: dict[str, Any], expected: Decision) -> None:
    result = decide(observed_evaluation(NEW, **changes))
    assert result.decision == expected
    assert result.status.class_name == (resolved_class().name if expected.phase == "Evaluating" else None)


def test_candidate_and_baseline_uris_must_be_allowed_by_the_class() -> None:
    foreign = {"uri": "s3://private/model"}
    for changes in ({"baseline": {"model": foreign}}, {"candidates": [{"name": "tuned", "model": foreign}]}):
        observed = observed_evaluation(
            NEW, spec=evaluation_spec(**changes), class_=resolved_class(sources={"models": ["s3://models/*"]})
        )
        result = decide(observed)
        assert result.decision.reason == "SourceNotAllowed"
        assert "'s3://private/model'" in result.message


def run_configuration(observed: ObservedEvaluation) -> EvaluateRun:
    config_map, _ = plan(observed, NOW).create
    return EvaluateRun.model_validate_json(config_map["data"]["run.json"])


def test_without_a_baseline_the_base_of_the_first_candidate_is_the_baseline() -> None:
    models = run_configuration(observed_evaluation(NEW)).models
    assert [(model.name, model.model.uri, model.model.adapter_uri) for model in models] == [
        ("baseline", "s3://models/base", None),
        ("tuned", "s3://models/base", "s3://models/sha256:aa"),
    ]


def test_a_baseline_of_the_spec_is_the_baseline() -> None:
    other = ResolvedModel(ModelSource(uri="s3://models/other", digest="sha256:other"))
    spec = evaluation_spec(baseline={"model": {"uri": "s3://models/other"}})
    assert (
        run_configuration(observed_evaluation(NEW, spec=spec, baseline=other)).models[0].model.uri == other.source.uri
    )
