"""Which checkpoint is the best, and which ones are removed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.finetunejob import Best
from finetune_api.manifest import Manifest
from finetune_api.sources import S3Location
from finetune_trainer.checkpoints import best_of, metrics_at, outdated
from finetune_trainer.commits import Committed


def checkpoints(losses: dict[int, float | None]) -> list[Committed]:
    """One for each step, with its evaluation loss."""
    return [
        Committed(
            S3Location("bucket", f"step-{step}"),
            Manifest(
                step=step,
                attempt=1,
                created=datetime.now(UTC),
                files=[],
                metrics={} if loss is None else {"evalLoss": loss},
            ),
            digest=f"sha256:{step}",
        )
        for step, loss in losses.items()
    ]


def step_of(committed: Committed | None) -> int | None:
    return None if committed is None else committed.manifest.step


@pytest.mark.parametrize(
    ("losses", "goal", "expected"),
    [
        ({10: 2.0, 20: 1.0, 30: 3.0}, "Minimize", 20),
        ({10: 2.0, 20: 1.0, 30: 3.0}, "Maximize", 30),
        ({10: 1.0, 20: 1.0}, "Minimize", 10),
        ({10: 1.0, 20: 1.0}, "Maximize", 10),
        ({10: None, 20: 5.0}, "Minimize", 20),
        ({10: None}, "Minimize", None),
        ({}, "Minimize", None),
    ],
)
def test_the_best_is_the_one_with_the_best_metric(
    losses: dict[int, float | None], goal: Any, expected: int | None
) -> None:
    assert step_of(best_of(checkpoints(losses), Best(goal=goal))) == expected


@pytest.mark.parametrize(
    ("losses", "keep", "best", "removed"),
    [
        ({10: 3.0, 20: 2.0, 30: 1.0}, 3, None, []),
        ({10: 1.0, 20: 2.0, 30: 3.0}, 1, None, [10, 20]),
        ({10: 1.0, 20: 2.0, 30: 3.0}, 1, Best(), [20]),
        ({10: 3.0, 20: 1.0, 30: 2.0, 40: 4.0}, 2, Best(), [10]),
        ({10: 3.0, 20: 1.0, 30: 0.5}, 1, Best(), [10, 20]),
    ],
)
def test_the_newest_and_the_best_are_kept(
    losses: dict[int, float | None], keep: int, best: Best | None, removed: list[int]
) -> None:
    assert [step_of(committed) for committed in outdated(checkpoints(losses), keep, best)] == removed


def test_a_checkpoint_has_the_evaluation_of_its_own_step_only() -> None:
    history = [
        {"step": 9, "loss": 2.5},
        {"step": 10, "loss": 2.0},
        {"step": 10, "eval_loss": 1.5},
        {"step": 11, "loss": 1.0},
    ]
    assert metrics_at(history, 10, 500)["evalLoss"] == 1.5
    assert metrics_at(history, 11, 600) == {"trainedTokens": 600.0, "trainLoss": 1.0}
