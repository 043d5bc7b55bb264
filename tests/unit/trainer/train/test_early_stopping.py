"""When a run is over because its evalLoss no longer falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.finetunejob import EarlyStopping
from finetune_trainer.train.early_stopping import is_over, was_over


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "over"),
    [
        ([], 1, 0.0, False),
        ([3.0], 1, 0.0, False),
        ([3.0, 2.0, 1.0], 1, 0.0, False),
        ([3.0, 3.0], 1, 0.0, True),
        ([3.0, 4.0], 1, 0.0, True),
        ([3.0, 4.0], 2, 0.0, False),
        ([3.0, 4.0, 3.5], 2, 0.0, True),
        ([3.0, 4.0, 2.0, 2.5], 2, 0.0, False),  # a better one begins the count anew
        ([3.0, 2.95, 2.9], 2, 0.2, True),
        ([3.0, 2.9, 2.7], 2, 0.2, False),  # small steps that add up are an improvement over the best that counted
        ([float("nan"), 3.0], 1, 0.0, False),
    ],
)
def test_a_run_is_over_after_so_many_evaluations_without_an_improvement(
    losses: list[float], patience: int, min_delta: float, over: bool, tmp_path: Path
) -> None:
    settings = EarlyStopping(patience=patience, min_delta=min_delta)
    log = [entry for loss in losses for entry in ({"loss": 9.0}, {"eval_loss": loss})]
    assert is_over(log, settings) == over
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    assert was_over(tmp_path, settings) == over
