"""The end of an Evaluation's run is written down before its Pods go, and stays what it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.pods.observed import PodView
from tests.unit.operator.evaluation.plans import JOB, decide, is_over
from tests.unit.operator.evaluation_states import (
    EVALUATION_REPORT,
    WAITING_FOR_MODEL,
    evaluation_spec,
    evaluation_status,
    observed_evaluation,
)
from tests.unit.operator.states import (
    CLASS_NOT_FOUND,
    LINE_7,
    ago,
    failed_pod,
    job,
    succeeded_pod,
    with_config_map,
)


@pytest.mark.parametrize(
    ("ended", "phase"),
    [
        (succeeded_pod(JOB, EVALUATION_REPORT), "Passed"),
        (failed_pod(JOB, LINE_7), "Failed"),
    ],
    ids=["scores", "a failure"],
)
def test_no_pod_goes_before_what_it_said_is_written_down(ended: PodView, phase: str) -> None:
    """An operator that was killed between the deletion and the status would evaluate again."""
    spec = evaluation_spec(ttlSecondsAfterFinished=0)
    done = observed_evaluation(evaluation_status(), job(JOB, "Complete"), pods=(ended,), spec=spec)
    result = decide(done)
    assert (result.decision.phase, result.decision.deletes, result.decision.again_in) == (phase, (), 0)
    written = decide(replace(done, status=result.status))
    assert (written.decision.phase, written.decision.deletes) == (phase, with_config_map(JOB))


@pytest.mark.parametrize("gates", [[], [{"grader": "exact", "minimum": 0.5}]], ids=["no gate", "a gate"])
@pytest.mark.parametrize(
    "waits", [{"spec": {"suspend": True}}, {"model": WAITING_FOR_MODEL}, {"class_": CLASS_NOT_FOUND}]
)
@pytest.mark.parametrize(
    ("changes", "pods", "told"),
    [
        ({}, (failed_pod(JOB, LINE_7),), "Line 7 of"),
        ({"cancel": True}, (), "ended without scores"),
        ({"activeDeadlineSeconds": 60}, (), "ended without scores"),
    ],
    ids=["failed", "cancelled", "at its deadline"],
)
def test_a_run_without_scores_never_passes_though_another_run_id_came_and_went(
    changes: dict[str, Any], pods: tuple[PodView, ...], told: str, waits: dict[str, Any], gates: list[Any]
) -> None:
    ran = observed_evaluation(
        evaluation_status(start_time=ago(60)),
        job(JOB, "Failed" if pods else "Active"),
        pods=pods,
        spec=evaluation_spec(gates=gates, **changes),
    )
    over = decide(ran).status
    assert over.phase in ("Failed", "Cancelled")
    others = {name: value for name, value in waits.items() if name != "spec"}
    asked = evaluation_spec(gates=gates, runId="2", **waits.get("spec", {}))
    meanwhile = decide(observed_evaluation(over, spec=asked, **others)).status
    assert (meanwhile.run_id, meanwhile.phase) == ("1", "Suspended" if "spec" in waits else "Waiting")
    back = decide(observed_evaluation(meanwhile, spec=evaluation_spec(gates=gates)))
    assert (back.decision.phase, back.decision.passed, back.decision.writes) == ("Failed", None, ())
    assert is_over(back)
    assert told in back.message
    again = decide(observed_evaluation(back.status, spec=evaluation_spec(gates=gates)))
    assert again.status == back.status
