"""Which checkpoints count, which one is the best, which ones are removed, and what the operator hears of them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.finetunejob import Best, CorruptCheckpoint
from finetune_api.pod_contracts.manifest import CheckpointKey, Manifest, ManifestFile
from finetune_api.sources import StorageLocation
from finetune_trainer.checkpoint.checkpoints import metrics_at, to_report, to_status
from finetune_trainer.checkpoint.retention import best_of, outdated, ranked
from finetune_trainer.storage.commits import Committed, checkpoint_path, valid_checkpoints

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FILE = ManifestFile(path="weights", size=5, sha256="0" * 64)
Key = tuple[int, int]
"""(step, claim)"""


def checkpoint(
    step: int, claim: int = 1, follows: tuple[Key, ...] = (), metrics: dict[str, float] | None = None
) -> Committed:
    manifest = Manifest(
        step=step,
        claim=claim,
        attempt=claim,
        created=NOW,
        files=[FILE, FILE.model_copy(update={"path": "state"})],
        metrics=metrics or {},
        follows=[CheckpointKey(step=followed, claim=by) for followed, by in follows],
    )
    return Committed(StorageLocation("bucket", f"step-{step}"), manifest, digest=f"sha256:{step}-{claim}")


def with_losses(losses: dict[int, float | None]) -> list[Committed]:
    """One for each step, with its evaluation loss."""
    return [
        checkpoint(step, metrics=None if loss is None else {"evalLoss": loss}) for step, loss in sorted(losses.items())
    ]


def steps(committed: list[Committed]) -> list[int]:
    return [item.manifest.step for item in committed]


@pytest.mark.parametrize(
    ("manifests", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(10, 1, ()), (20, 1, ((10, 1),))], [(10, 1), (20, 1)], id="one process"),
        pytest.param([(20, 1, ((10, 1),))], [(20, 1)], id="a followed one that was removed"),
        pytest.param(
            [(10, 1, ()), (20, 1, ((10, 1),)), (15, 2, ((10, 1),))],
            [(10, 1), (15, 2)],
            id="a successor that resumed from step 10 supersedes step 20",
        ),
        pytest.param(
            [(10, 1, ()), (20, 2, ((10, 1),)), (20, 1, ((10, 1),)), (30, 1, ((10, 1), (20, 1)))],
            [(10, 1), (20, 2)],
            id="what a zombie commits later does not count, not even a later step",
        ),
        pytest.param(
            [(10, 1, ()), (20, 1, ((10, 1),)), (15, 2, ((10, 1),)), (30, 3, ((10, 1), (20, 1)))],
            [(10, 1), (20, 1), (30, 3)],
            id="a zombie between two that resumed from one another",
        ),
        pytest.param([(10, 1, ()), (5, 2, ())], [(5, 2)], id="one that started over"),
    ],
)
def test_the_newest_manifest_decides_what_counts(
    manifests: list[tuple[int, int, tuple[Key, ...]]], expected: list[Key]
) -> None:
    found = valid_checkpoints([checkpoint(*manifest) for manifest in manifests])
    assert [(item.manifest.step, item.manifest.claim) for item in found] == expected


@pytest.mark.parametrize(
    "follows", [((10, 1), (10, 2)), ((20, 1), (10, 1)), ((30, 1),)], ids=["twice", "descending", "itself"]
)
def test_a_step_is_committed_once(follows: tuple[Key, ...]) -> None:
    with pytest.raises(ValidationError, match="ascending steps"):
        checkpoint(30, 2, follows)


def test_no_two_files_of_a_manifest_are_in_one_place() -> None:
    with pytest.raises(ValidationError, match="two files have the same path"):
        Manifest(step=1, claim=1, attempt=1, created=NOW, files=[FILE, FILE])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("step-000100/claim-000003/model/shard.safetensors", ((100, 3), "model/shard.safetensors")),
        ("step-1234567/claim-000012/manifest.json", ((1234567, 12), "manifest.json")),
        ("step-000100/manifest.json", None),
        ("step-000100/claim-000000/weights", None),
        ("notes.txt", None),
    ],
)
def test_an_object_belongs_to_the_checkpoint_in_its_path(path: str, expected: tuple[Key, str] | None) -> None:
    found = checkpoint_path(path)
    assert (None if found is None else ((found[0].step, found[0].claim), found[1])) == expected


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
    best = best_of(with_losses(losses), Best(goal=goal))
    assert (None if best is None else best.manifest.step) == expected


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (None, [40, 30, 20, 10]),
        (Best(), [20, 40, 10, 30]),
        (Best(goal="Maximize"), [10, 40, 20, 30]),
    ],
)
def test_where_the_best_is_corrupt_the_next_best_becomes_the_result(best: Best | None, expected: list[int]) -> None:
    assert steps(ranked(with_losses({10: 3.0, 20: 1.0, 30: None, 40: 2.0}), best)) == expected


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
    assert steps(outdated(with_losses(losses), keep, best)) == removed


def test_of_equal_rewards_the_later_is_the_best() -> None:
    """The first step of a warm-up changes no weight, so its checkpoint is the starting model."""
    found = [checkpoint(step, metrics={"validReward": 0.4}) for step in (1, 2, 3)]
    best = best_of(found, Best(metric="ValidReward", goal="Maximize"))
    assert best is not None
    assert best.manifest.step == 3


@pytest.mark.parametrize(
    ("rewards", "keep", "removed"),
    [
        ({10: 0.2, 20: 0.5, 30: 0.4, 40: 0.6, 50: 0.3}, 3, [10]),
        ({10: 0.2, 20: 0.5, 30: 0.4, 40: None}, 2, [10]),
        ({10: 0.5, 20: None, 30: 0.1}, 3, [20]),
        ({10: 0.5, 20: 0.5, 30: 0.5}, 1, [10, 20]),
        ({10: 0.5, 20: 0.5, 30: 0.1}, 1, [10]),
    ],
)
def test_by_a_reward_the_best_ones_and_the_newest_are_kept(
    rewards: dict[int, float | None], keep: int, removed: list[int]
) -> None:
    found = [
        checkpoint(step, metrics=None if reward is None else {"validReward": reward})
        for step, reward in rewards.items()
    ]
    assert steps(outdated(found, keep, Best(metric="ValidReward", goal="Maximize"))) == removed


def test_a_checkpoint_has_the_evaluation_of_its_own_step_only() -> None:
    history = [
        {"step": 9, "loss": 2.5},
        {"step": 10, "loss": 2.0},
        {"step": 10, "eval_loss": 1.5},
        {"step": 11, "loss": 1.0},
    ]
    assert metrics_at(history, 10, 500)["evalLoss"] == 1.5
    assert metrics_at(history, 11, 600) == {"trainedTokens": 600.0, "trainLoss": 1.0}
    rewarded = [{"step": 1, "loss": 0.0, "reward_mean": 0.25}, {"step": 2, "reward_mean": math.nan}]
    assert metrics_at(rewarded, 2, 6) == {"trainedTokens": 6.0, "trainLoss": 0.0, "trainReward": 0.25}


def test_the_status_of_a_checkpoint_has_its_size_and_its_metric() -> None:
    status = to_status(checkpoint(10, metrics={"evalLoss": 1.5}), Best())
    assert (status.step, status.uri, status.metric, status.size) == (10, "s3://bucket/step-10", 1.5, 10)
    assert status.committed_time == NOW
    assert to_status(checkpoint(10, metrics={"evalLoss": 1.5}), None).metric is None


def test_the_ledger_is_bounded_and_never_without_the_best() -> None:
    kept = with_losses({step: float(step) for step in range(10, 1020, 10)})
    corrupt = [CorruptCheckpoint(step=step, message="torn") for step in range(30)]
    ledger = to_report(kept, corrupt, Best(), 1.5)
    assert [ledger.checkpoints[0].step, ledger.checkpoints[1].step, ledger.checkpoints[-1].step] == [10, 30, 1010]
    assert len(ledger.checkpoints) == 100
    assert [item.step for item in ledger.corrupt] == list(range(10, 30))
    assert ledger.checkpoint_seconds == 1.5
