"""results.csv has the columns of OpenAI's result file."""

from __future__ import annotations

from finetune_trainer.report.events import results_csv


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
