"""The status of a FineTuneSweep, from which the search goes on after any interruption."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from finetune_api.base import ApiModel, FiniteNumber, Line, Name, Timestamp
from finetune_api.evaluation import OutputsStatus
from finetune_api.finetunesweep.learning_curve import CurveStatus
from finetune_api.finetunesweep.smallest_model import MOST_SIZES, SizedModel
from finetune_api.finetunesweep.spec import MOST_TRIALS
from finetune_api.graders import ModelName
from finetune_api.lifecycle import KindStatus
from finetune_api.lifecycle.unreadable import UnreadableField, unknown_end

Phase = Literal["Running", "Suspended", "Succeeded", "Failed", "Cancelled"]
TrialState = Literal["Running", "Succeeded", "Pruned", "Failed", "Cancelled"]


class RungStatus(ApiModel):
    """A step at which trials are compared, and that a trial has reached."""

    step: int = Field(description="The step.")
    loss: FiniteNumber = Field(
        None, description="Validation loss of the first evaluation at it or after it; absent if that was missed."
    )


class TrialStatus(ApiModel):
    """A trial."""

    number: int = Field(description="Number within the run, counting from 1.")
    fine_tune_job_name: Name = Field(description="Name of its FineTuneJob.")
    values: dict[str, Any] = Field(default={}, description="Values of the searched fields, by path.")
    state: TrialState = Field(
        description="Running: not ended yet. Pruned: ended early, because others were better at the same step."
    )
    score: FiniteNumber = Field(None, description="Validation loss of its result, or the mean score from the grader.")
    low: FiniteNumber = Field(None, description="Lower bound of the mean score's 95 % confidence interval.")
    high: FiniteNumber = Field(None, description="Upper bound of it.")
    evaluation_name: Name | None = Field(None, description="Name of its Evaluation (objective).")
    model: ModelName | None = Field(None, description="SmallestModel: name of the model that it fine-tunes.")
    verdict: Line | None = Field(
        None, description="SmallestModel: Passed, GateFailed or Inconclusive, as its Evaluation has it."
    )
    outputs: OutputsStatus | None = Field(None, description="SmallestModel: what its outputs took.")
    rungs: list[RungStatus] = Field(
        default=[], max_length=32, description="The steps at which it was compared with others (prune)."
    )
    digest: Line | None = Field(None, description="SHA-256 of its result's manifest.")
    examples: int | None = Field(None, description="Number of training examples.")
    seconds: int | None = Field(None, description="Seconds that it trained.")
    attempt_seconds: int | None = Field(
        None, description="Of these, the seconds of the attempt that succeeded, if it was not the only one."
    )
    accelerators: int | None = Field(None, description="Its accelerators, by its class when it began.")
    accelerator_seconds: int | None = Field(
        None, description="`seconds`, multiplied by its accelerators; absent if its class could not be read."
    )
    reason: Line | None = Field(
        None,
        description="Failed: the diagnosis. Cancelled by the sweep itself: SmallerModelPassed. Pruned: Stopping until "
        "its FineTuneJob is known to be cancelled.",
    )

    @field_validator("rungs", mode="before")
    @classmethod
    def _forget_losses_of_unknown_steps(cls, rungs: Any) -> Any:
        """Once they were numbers, some of which were losses of much later steps: they are compared with nothing."""
        is_old = isinstance(rungs, list) and any(isinstance(one, int | float) for one in rungs)
        return [] if is_old else rungs


class BestTrial(ApiModel):
    """The trial with the best score, or one whose interval overlaps with its own and that takes a fifth less time.

    With mode SmallestModel: that of the smallest model that passes. With mode LearningCurve there is none.
    """

    number: int = Field(description="Number of the trial.")
    fine_tune_job_name: Name = Field(description="Name of its FineTuneJob.")
    score: float = Field(description="Its validation loss, or its mean score from the grader.")
    low: FiniteNumber = Field(None, description="Lower bound of the mean score's 95 % confidence interval.")
    high: FiniteNumber = Field(None, description="Upper bound of it.")
    digest: Line | None = Field(None, description="SHA-256 of its result's manifest: what a sweepRef stands for.")
    tied_with: list[int] | None = Field(
        None,
        max_length=MOST_TRIALS,
        description="Numbers of the other trials whose intervals overlap with that of the best score, and of the one "
        "with that score.",
    )
    values: dict[str, Any] = Field(default={}, description="Values of the searched fields, by path.")


class HoldoutScore(ApiModel):
    """The score of the best trial on examples that its choice did not depend on."""

    number: int = Field(description="Number of the trial.")
    evaluation_name: Name = Field(description="Name of the Evaluation.")
    score: FiniteNumber = Field(None, description="Mean score from the grader; absent until it is known.")
    low: FiniteNumber = Field(None, description="Lower bound of its 95 % confidence interval.")
    high: FiniteNumber = Field(None, description="Upper bound of it.")
    verdict: Line | None = Field(
        None, description="SmallestModel: Passed, GateFailed or Inconclusive by the same gates, on these examples."
    )
    reason: Line | None = Field(None, description="Why there is no score: the diagnosis of the Evaluation.")


class FineTuneSweepStatus(KindStatus):
    """Trials and the best of them."""

    phase: Phase | None = Field(None, description="Current phase of the run.")
    run_id: Line | None = Field(None, description="spec.runId of the run that this status describes.")
    run_number: int = Field(0, description="Number of the run, counting from 1; part of the names of its trials.")
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = Field(None, description="When the run ended, however it ended.")
    finished: int = Field(0, description="Trials that have ended, however they ended.")
    running: int = Field(0, description="Trials that have not ended, and are not suspended.")
    remaining: int = Field(0, description="Trials that may still be started.")
    recorded_time: Timestamp | None = Field(
        None, description="When ends of trials were recorded. Those of the next ten seconds are recorded together."
    )
    best: BestTrial | None = None
    holdout: HoldoutScore | None = None
    learning_curve: CurveStatus | None = None
    models: list[SizedModel] = Field(
        default=[], max_length=MOST_SIZES, description="SmallestModel: the candidates of the run, the smallest first."
    )
    trials: list[TrialStatus] = Field(
        default=[], max_length=MOST_TRIALS, description="Every trial of the run, in the order in which they began."
    )

    @classmethod
    def unknown_states(cls, stored: dict[str, Any]) -> list[UnreadableField]:
        """As for every kind. A run that is over must also have a final phase, or it would go on.

        Of a trial in a state that only another version knows it is unknown whether it runs.
        """
        trials = stored.get("trials")
        states = [
            UnreadableField(("trials", at, "state"), trial["state"], values=get_args(TrialState))
            for at, trial in enumerate(trials if isinstance(trials, list) else [])
            if isinstance(trial, dict) and isinstance(trial.get("state"), str)
            if trial["state"] not in get_args(TrialState)
        ]
        return [*(unknown_end(stored) or super().unknown_states(stored)), *states]
