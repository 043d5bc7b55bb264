"""What `status` shows of an Evaluation."""

from __future__ import annotations

from finetune_view.object_view import object_view
from tests.unit.kubectl_finetune.cluster_objects import condition, job
from tests.unit.kubectl_finetune.display.test_status import shown


def test_an_evaluation_is_reported_with_intervals_and_gates() -> None:
    score = {"candidate": "tuned", "grader": "exact", "score": 0.75, "low": 0.7, "high": 0.8, "examples": 250}
    gain = {"delta": 0.5, "deltaLow": 0.45, "deltaHigh": 0.55}
    best = {**score, "step": 200}
    status = {
        "observedGeneration": 1,
        "phase": "GateFailed",
        "completionTime": "2026-11-26T23:00:00Z",
        "conditions": [condition("Passed", "False", "GateFailed", "exact of tuned is below 0.9")],
        "results": [{**score, **gain}],
        "gates": [{"candidate": "tuned", "grader": "exact", "verdict": "Failed", "message": "0.7 < 0.9"}],
        "bestCheckpoints": [{**best, "tied": [300, 400]}],
        "warnings": ["12 examples are few."],
    }
    metadata = {"name": "router", "namespace": "team-a", "generation": 1}
    text = shown(object_view({"kind": "Evaluation", "metadata": metadata, "spec": {}, "status": status}))
    assert "tuned, exact: 0.75 [0.7, 0.8], gain 0.5 [0.45, 0.55], 250 examples" in text
    assert "Failed: tuned, exact: 0.7 < 0.9" in text
    assert "tuned: step 200, exact 0.75 [0.7, 0.8]; may be as good (intervals overlap): step 300, 400" in text
    assert "12 examples are few." in text
    assert "a better model" in text


def test_an_evaluation_is_reported_with_its_attacks_and_how_far_its_judges_agree_with_people() -> None:
    measured = {"candidate": "tuned", "measure": "AttackSuccess", "rate": 0.25, "low": 0.2, "high": 0.3}
    rise = {"delta": 0.05, "deltaLow": -0.01, "deltaHigh": 0.11}
    everything = {**measured, "category": "All", "converter": "All", "answers": 40, "counted": 10, "errored": 2}
    verdict = {"candidate": "tuned", "measure": "AttackSuccess", "category": "Fraud", "converter": "Base64"}
    agreement = {"agreement": 0.9, "agreementLow": 0.8, "agreementHigh": 0.95}
    kappa = {"kappa": 0.75, "kappaLow": 0.5, "kappaHigh": 0.9}
    status = {
        "observedGeneration": 1,
        "phase": "GateFailed",
        "safety": {
            "results": [{**everything, **rise}],
            "gates": [{**verdict, "verdict": "Failed", "message": "rate 0.25, at most 0.05 required"}],
        },
        "calibrations": [{"grader": "tone", "examples": 50, **agreement, **kappa}],
    }
    metadata = {"name": "router", "namespace": "team-a", "generation": 1}
    text = shown(object_view({"kind": "Evaluation", "metadata": metadata, "spec": {}, "status": status}))
    assert (
        "tuned, AttackSuccess: 0.25 [0.2, 0.3], rise 0.05 [-0.01, 0.11], 10 of 40 answers, 2 without a verdict" in text
    )
    assert "Failed: tuned, AttackSuccess, Fraud, Base64: rate 0.25, at most 0.05 required" in text
    assert "tone: agreement 0.9 [0.8, 0.95], kappa 0.75 [0.5, 0.9], 50 outputs graded by people" in text


def test_an_evaluation_is_reported_with_how_far_each_model_is() -> None:
    progress = {
        "percent": 37,
        "estimatedRemaining": "2m30s",
        "candidates": [
            {"candidate": "baseline", "outputs": 20, "graded": 0, "total": 20},
            {"candidate": "tuned", "outputs": 10, "graded": 0, "total": 20},
        ],
    }
    conditions = [condition("Ready", "False", "Evaluating", "The evaluation Pod is starting or running.")]
    running = {**job({"phase": "Evaluating", "progress": progress, "conditions": conditions}), "kind": "Evaluation"}
    text = shown(object_view(running))
    assert "37%  2m30s left" in text
    assert "baseline: 20 of 20 outputs, 0 graded" in text
    assert "tuned: 10 of 20 outputs, 0 graded" in text
