"""Gates on the calibration of a grader are taken where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import DRY_RUN, EVALUATION, GRADER, assert_refused
from tests.integration.operator.api import Api

SETTINGS = {"model": "judge", "input": [{"content": "{{sample.output_text}}"}]}
TESTED = {**SETTINGS, "calibration": {"uri": "s3://data/labelled.jsonl"}}
LABELS = {"labels": ["a", "b"], "passingLabels": ["a"]}
TONE = {"name": "tone", "type": "ScoreModel", "scoreModel": TESTED}
GATE = {"grader": "tone", "calibration": "Kappa", "minimum": 0.6}


@pytest.mark.parametrize(
    "grader", [TONE, {"name": "tone", "type": "LabelModel", "labelModel": {**TESTED, **LABELS}}], ids=["score", "label"]
)
def test_a_gate_on_a_calibration_is_taken(api: Api, grader: dict[str, Any]) -> None:
    spec = {**EVALUATION, "graders": [grader], "gates": [GATE, {**GATE, "calibration": "Agreement"}]}
    taken = api.create("Evaluation", "good", spec, query=DRY_RUN)["spec"]
    (member,) = [value for name, value in taken["graders"][0].items() if name in ("scoreModel", "labelModel")]
    assert member["calibration"] == {"uri": "s3://data/labelled.jsonl", "label": "{{item.label}}"}


@pytest.mark.parametrize(
    ("graders", "gate", "told"),
    [
        ([GRADER], {**GATE, "grader": "exact"}, "a gate on a calibration names a grader that has one"),
        ([{**TONE, "scoreModel": SETTINGS}], GATE, "a gate on a calibration names a grader that has one"),
        ([TONE], {**GATE, "calibration": "Pearson"}, "Unsupported value"),
        ([TONE], {"grader": "tone", "calibration": "Kappa", "minimumDelta": 0.1}, "has a minimum and no slice"),
        ([TONE], {"grader": "tone", "calibration": "Kappa", "maximum": 0.1}, "has a minimum and no slice"),
        ([TONE], {**GATE, "slice": {"by": "{{item.x}}", "value": "a"}}, "has a minimum and no slice"),
        ([TONE], {**GATE, "minimum": 1}, "never comes nearer to the end of the scale than 0.0001"),
    ],
)
def test_a_gate_on_a_calibration_that_is_none_is_refused(
    api: Api, graders: list[Any], gate: dict[str, Any], told: str
) -> None:
    assert_refused(api, "Evaluation", {"graders": graders, "gates": [gate]}, [told])
