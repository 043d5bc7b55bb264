"""results.csv has the columns of OpenAI's result file; completions of evaluations are among the events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from finetune_api.sources import StorageLocation, parse_s3
from finetune_trainer.report.events import COMPLETION, EventLog, results_csv


def test_one_row_a_step_with_empty_cells_for_what_was_not_measured() -> None:
    history = [
        {"step": 1, "loss": 2.0, "mean_token_accuracy": 0.25, "learning_rate": 1e-3},
        {"step": 2, "loss": 1.5, "mean_token_accuracy": 0.5, "learning_rate": 1e-3},
        {"step": 2, "eval_loss": 1.75, "eval_mean_token_accuracy": 0.5},
        {"step": 2, "train_runtime": 9.0},
    ]
    assert results_csv(history, {}).splitlines() == [
        "step,train_loss,train_mean_token_accuracy,valid_loss,valid_mean_token_accuracy,"
        "full_valid_loss,full_valid_mean_token_accuracy",
        "1,2.0,0.25,,,,",
        "2,1.5,0.5,1.75,0.5,1.75,0.5",
    ]


def test_the_metrics_of_the_method_stand_beside_the_losses() -> None:
    history = [
        {"step": 1, "loss": 2.0, "rewards/margins": 0.5},
        {"step": 1, "eval_loss": 1.5, "eval_rewards/margins": 0.25},
    ]
    header, row = results_csv(history, {"reward_margin": "rewards/margins"}).splitlines()
    assert header.endswith(",train_reward_margin,valid_reward_margin")
    assert row.endswith(",0.5,0.25")


class Kept:
    """A storage in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def list_objects(self, folder: StorageLocation) -> list[SimpleNamespace]:
        return [SimpleNamespace(path=uri.rpartition("/")[2]) for uri in self.files]

    def read(self, place: StorageLocation) -> bytes:
        return self.files[place.uri]

    def write(self, place: StorageLocation, body: bytes) -> None:
        self.files[place.uri] = body


def test_completions_of_an_evaluation_outlive_a_pod_that_is_killed_before_the_next_save() -> None:
    """The next attempt takes that evaluation from its record, and does not make it again."""
    storage: Any = Kept()
    events = EventLog(storage, parse_s3("s3://models/out"), 1)
    events.store([])
    events.note("Step 2")
    assert not events.has_new_completions
    events.note("x", type=COMPLETION, step=2, number=1, prompt="2+2?", output="5", scores={"reward": 0.0})
    assert events.has_new_completions
    events.store_events()
    resumed = EventLog(storage, parse_s3("s3://models/out"), 2)
    assert [(one.step, one.output) for one in resumed.completions()] == [(2, "5")]
    assert not events.has_new_completions and not resumed.has_new_completions
