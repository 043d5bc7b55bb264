"""The state of a FineTuneSweep from which its plan is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from finetune_api.evaluation import OutputsStatus, Score
from finetune_api.finetunejob import Phase
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus, SizedModel
from finetune_operator.core.conditions import Readiness
from finetune_operator.core.ownership import Owner
from finetune_operator.core.plan import Decision, Plan

SweepPlan = Plan[FineTuneSweepStatus]
SweepDecision = Decision[FineTuneSweepStatus]


@dataclass(frozen=True)
class TrialJob:
    """The FineTuneJob of a trial that has not ended, or of a pruned one that is to be cancelled."""

    resource_version: str
    phase: Phase | Literal["Evaluating"] | None
    """That of its Evaluation once there is one; Succeeded: it has all that was asked for."""
    reason: str = ""
    message: str = ""
    """Of its condition Ready."""
    is_stalled: bool = False
    is_suspended: bool = False
    """spec.suspend."""
    is_cancelled: bool = False
    """spec.cancel."""
    eval_loss: float | None = None
    """Of its result, or else the most recent one."""
    eval_step: int | None = None
    """The step at which it was measured; None if that is not known."""
    eval_every: int | None = None
    """Steps between two evaluations; None if that is not known."""
    seconds: int = 0
    """How long the Pods of its attempts have run."""
    attempt_seconds: int | None = None
    """How long those of the attempt that succeeded have."""
    completed: datetime | None = None
    digest: str | None = None
    """Of its result."""
    examples: int | None = None
    """That it trains on."""
    score: Score | None = None
    """From the grader that counts."""
    verdict: str | None = None
    """On the gates, if there are some."""
    outputs: OutputsStatus | None = None
    """What its outputs took."""
    is_ours: bool = True
    """Whether it still does what the sweep made it for; else somebody has taken it over, and it is left alone."""
    has_trained: bool = False
    """Whether only its Evaluation is missing."""
    evaluation_name: str | None = None
    """Of the Evaluation, which all else is about then; None: there is none yet."""

    @property
    def may_be_cancelled(self) -> bool:
        """Whether it has not ended itself, and the sweep may end it."""
        return self.completed is None and self.may_be_changed and not self.is_cancelled

    @property
    def may_be_changed(self) -> bool:
        """Whether there is something to suspend or cancel."""
        return self.is_ours and (not self.has_trained or self.evaluation_name is not None)


@dataclass(frozen=True)
class ObservedFineTuneSweep:
    """The object, and the FineTuneJobs of the trials that its status has as running or pruned just now."""

    owner: Owner
    generation: int
    spec: FineTuneSweepSpec
    status: FineTuneSweepStatus
    jobs: Mapping[str, TrialJob] = field(default_factory=dict)
    """By name; a trial without one has not been created yet, or was deleted."""
    holdout: TrialJob | None = None
    """The Evaluation of status.holdout; None: there is none, yet or any more."""
    models: tuple[SizedModel, ...] | Readiness | None = None
    """Mode SmallestModel: what the class lists, the smallest first; None: it is in the status already."""
    refusal: Readiness | None = None
    """Why the search can't begin."""
    accelerators: int | Readiness | None = 0
    """Of each trial; None if that is not known and nothing limits their hours, and a Readiness if something does."""
