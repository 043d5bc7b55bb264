"""Benchmarks of an Evaluation, and gates on them: what can't be is refused by the API server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.operator.admission.shortest_specs import assert_refused
from tests.integration.operator.api import Api, Object

ARC: Object = {"name": "arc", "task": "arc_easy", "mirror": {"uri": "s3://data/mirror"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"gates": [{"benchmark": "arc", "minimumDelta": -0.02}]},
            ["spec.gates", "benchmark of a gate names one of the benchmarks"],
        ),
        (
            {"benchmarks": [ARC], "gates": [{"grader": "exact", "benchmark": "arc", "minimumDelta": -0.02}]},
            ["spec.gates[0].grader", "a gate is about either a grader or a benchmark"],
        ),
        (
            {"gates": [{"minimumDelta": -0.02}]},
            ["spec.gates[0].grader", "a gate is about either a grader or a benchmark"],
        ),
        (
            {
                "benchmarks": [ARC],
                "dataset": {"uri": "s3://data/test.jsonl", "slices": ["{{item.language}}"]},
                "gates": [{"benchmark": "arc", "minimum": 0.5, "slice": {"by": "{{item.language}}", "value": "de"}}],
            },
            ["spec.gates[0].benchmark", "a gate on a benchmark has neither slice nor calibration"],
        ),
        (
            {"benchmarks": [{**ARC, "name": "exact"}]},
            ["spec.benchmarks", "a benchmark and a grader have different names"],
        ),
        (
            {"benchmarks": [{**ARC, "task": "humaneval"}]},
            [
                "spec.benchmarks[0].task",
                'Unsupported value: "humaneval": supported values: "arc_challenge", "arc_easy"',
            ],
        ),
        (
            {"benchmarks": [{**ARC, "task": "truthfulqa_mc2", "fewShot": 1}]},
            ["spec.benchmarks[0].fewShot", "ifeval and truthfulqa have no fewShot: omit it"],
        ),
        (
            {"benchmarks": [{**ARC, "maxTokens": 512}]},
            ["spec.benchmarks[0].maxTokens", "only gsm8k and ifeval have outputs: omit maxTokens"],
        ),
        (
            {"benchmarks": [{**ARC, "mirror": {"uri": "hf://datasets/allenai/ai2_arc"}}]},
            ["spec.benchmarks[0].mirror.uri"],
        ),
        (
            {"benchmarks": [ARC], "baseline": {"model": {"endpoint": {"name": "large"}}}},
            ["spec.benchmarks", "benchmarks need the probability of each answer, which only a loaded model has"],
        ),
    ],
)
def test_what_no_benchmark_can_be_is_refused(api: Api, changes: dict[str, Any], told: list[str]) -> None:
    assert_refused(api, "Evaluation", changes, told)
