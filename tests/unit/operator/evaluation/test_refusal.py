"""Graders and templates that can't work are refused by name and place, before a Pod is made."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core.plan import Plan
from finetune_operator.evaluation.plan import plan
from finetune_operator.evaluation.refusal import grading_refusal
from tests.unit.operator.evaluation_states import evaluation_spec, observed_evaluation
from tests.unit.operator.states import NOW


def multi(formula: str) -> dict[str, Any]:
    exact = {"name": "exact", "type": "StringCheck"}
    return {"graders": [exact, {"name": "both", "type": "Multi", "multi": {"calculateOutput": formula}}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (multi("exact +"), "spec.graders: 'both': formula_parse_error: multi.calculateOutput: character 8"),
        (multi("exact + other"), "spec.graders: 'both': invalid_variable_error: multi.calculateOutput: character 9"),
        (
            {"graders": [{"name": "exact", "type": "StringCheck", "stringCheck": {"reference": "{{item}}"}}]},
            "spec.graders: 'exact': invalid_variable_error: reference: {{item}} is not a variable",
        ),
        (
            {"graders": [{"name": "exact", "type": "JsonSchema", "jsonSchema": {"schema": {"pattern": "("}}}]},
            "spec.graders: 'exact': its schema is not a JSON Schema (2020-12): at $.pattern: '(' is not a 'regex'",
        ),
        (
            {"dataset": {"uri": "s3://data/t.jsonl", "clusterBy": "{{document}}"}},
            "spec.dataset.clusterBy: {{document}} is not",
        ),
        (
            {"dataset": {"uri": "s3://data/t.jsonl", "slices": ["{{item.a}}", "{{sample.output_text}}"]}},
            "spec.dataset.slices[1]: {{sample.output_text}} is of an output",
        ),
    ],
)
def test_what_can_not_work_is_refused_without_a_pod(changes: dict[str, Any], message: str) -> None:
    spec = evaluation_spec(**changes, gates=[])
    refusal = grading_refusal(spec)
    assert refusal is not None
    made: Plan[Any] = plan(observed_evaluation(spec=spec, refusal=refusal), NOW)
    assert made.create == ()
    (stalled,) = [one for one in made.status.conditions if one.type == "Stalled"]
    assert (stalled.status, stalled.reason) == ("True", "InvalidSpec")
    assert message in stalled.message


def test_what_can_work_is_not_refused() -> None:
    spec = evaluation_spec(
        **multi("0.5 * exact"), dataset={"uri": "s3://data/t.jsonl", "clusterBy": "{{item.a}}"}, gates=[]
    )
    assert grading_refusal(spec) is None
