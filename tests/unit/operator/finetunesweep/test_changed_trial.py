"""A FineTuneJob that somebody changed is no longer the trial that the sweep's status describes."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.finetunesweep.objects import trial_job
from finetune_operator.finetunesweep.observe import view
from tests.unit.operator.finetunesweep.sweeps import NOW, OWNER, SweepWorld, sweep_spec


def observed(changes: dict[str, Any], run_id: str = "1") -> tuple[str | None, str]:
    world = SweepWorld(sweep_spec())
    world.settle()
    trial = world.trial(1)
    body = trial_job(OWNER, world.spec, trial)
    body["metadata"]["resourceVersion"] = "7"
    body["spec"] |= changes
    body["status"] = {"phase": "Training", "runId": run_id}
    found = view(body, trial, NOW)
    return found.phase, found.reason


@pytest.mark.parametrize("changes", [{"runId": "2"}, {"hyperparameters": {"learningRate": 0.5}}], ids=str)
def test_a_trial_that_somebody_changed_has_failed(changes: dict[str, Any]) -> None:
    assert observed(changes) == ("Failed", "SpecChanged")


@pytest.mark.parametrize("changes", [{}, {"runId": "1"}, {"suspend": True}, {"retryLimit": 5}], ids=str)
def test_what_may_change_within_a_run_changes_no_trial(changes: dict[str, Any]) -> None:
    assert observed(changes)[0] == "Training"


def test_the_result_of_another_run_is_none_of_the_trials() -> None:
    """Somebody changed runId and set it back while no operator looked: the status is that of the other run."""
    assert observed({}, run_id="2") == ("Failed", "SpecChanged")
