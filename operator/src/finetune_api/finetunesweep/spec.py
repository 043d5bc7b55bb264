"""The spec of a FineTuneSweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import LARGEST_SEED, MOST_STEPS, ApiModel, cel
from finetune_api.finetunejob import Model, TrainingSpec
from finetune_api.finetunesweep.learning_curve import LearningCurve
from finetune_api.finetunesweep.objective import GraderScore, Objective
from finetune_api.finetunesweep.parameters import Parameter
from finetune_api.finetunesweep.smallest_model import SmallestModel
from finetune_api.kubernetes_types import keyed_by
from finetune_api.lifecycle import RunId, a_change_is_a_new_run
from finetune_api.unions import OneOf

MOST_TRIALS = 200
CHANGEABLE_WITHIN_A_SWEEP = frozenset({"suspend", "cancel", "parallel", "budget", "runId"})
"""The fields of a spec that may change while a sweep goes on."""


class TemplatedTraining(TrainingSpec):
    """What is trained, but for what differs between the trials."""

    model: Model | None = Field(  # type: ignore[assignment] # mode SmallestModel sets it
        None, description="The model to fine-tune. Required, but with mode SmallestModel, which chooses it."
    )


class Template(ApiModel):
    """The FineTuneJobs that are made."""

    spec: TemplatedTraining = Field(
        description="As in a FineTuneJob, without runId, suspend and cancel, and without the fields that are searched. "
        "No field may be changed during a run of the sweep, retryLimit included."
    )


class Search(ApiModel):
    """Which fields to vary, and how values are chosen."""

    algorithm: Literal["TPE", "Random", "Grid"] = Field(
        "TPE",
        description="TPE: values near those of good trials, and random ones until ten have succeeded or been pruned. "
        "Random: independent of other trials. Grid: every combination of values, in order.",
    )
    seed: int = Field(
        17, ge=0, le=LARGEST_SEED, description="With the same seed, spec and scores, the same values are tried."
    )
    parameters: list[Parameter] = Field(
        min_length=1, max_length=10, json_schema_extra=keyed_by("path"), description="Fields to vary."
    )


class ASHA(ApiModel):
    """Asynchronous successive halving: https://arxiv.org/abs/1810.05934."""

    minimum_steps: int = Field(
        ge=1,
        le=MOST_STEPS,
        description="Step at which trials are compared for the first time: one after which the validation loss is "
        "measured (checkpoints.everySteps).",
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        le=100,
        description="The best 1/reductionFactor of the trials continue at each rung; the next rung is at "
        "reductionFactor times as many steps.",
    )


class Median(ApiModel):
    """The median stopping rule: https://research.google/pubs/google-vizier-a-service-for-black-box-optimization."""

    minimum_steps: int = Field(
        ge=1,
        le=MOST_STEPS,
        description="Step at which a trial is compared for the first time, and after so many more each time: a "
        "multiple of checkpoints.everySteps.",
    )
    minimum_trials: int = Field(
        5, ge=1, le=MOST_TRIALS, description="Nothing is ended before so many trials have succeeded."
    )


class Prune(OneOf):
    """How trials that will not be the best are ended early, by the loss on template.spec.dataset.validation."""

    choices = ("asha", "median")

    asha: ASHA | None = Field(None, description="Only the best at each of a few steps go on.")
    median: Median | None = Field(
        None,
        description="Prunes a trial whose lowest loss so far is above the median of the succeeded trials' lowest "
        "losses up to the same step.",
    )


class Budget(ApiModel):
    """What the sweep may use."""

    trials: int = Field(20, ge=1, le=MOST_TRIALS, description="Number of trials, however they end.")
    accelerator_hours: float | None = Field(
        None,
        gt=0,
        le=10_000_000,
        description="Accelerators multiplied by the hours that trials train. A trial that would exceed it is not "
        "started, if it and those that run take as long as the mean of those that succeeded (before: as "
        "activeDeadlineSeconds; without it, one trial runs at a time until one has succeeded). Omitted: no limit.",
    )
    failures: int = Field(
        3,
        ge=1,
        le=MOST_TRIALS,
        description="Number of failed trials at which the sweep fails and its running trials are cancelled, unless it "
        "has its result by then. Raise it before: a failed sweep stays so.",
    )


def _rules_of_a_curve() -> Iterator[tuple[str, str, str]]:
    """CEL: what differs between the trials of a learning curve is the number of examples and the seed."""
    other, template = "self.mode != 'LearningCurve'", "self.template.spec"
    measured = "self.objective.evaluation"
    settings, dataset = f"{template}.hyperparameters", f"{template}.dataset"
    yield (
        "self.mode == 'LearningCurve' || !has(self.learningCurve)",
        "learningCurve is only allowed with mode LearningCurve",
        "learningCurve",
    )
    yield (
        f"{other} || (has({settings}.epochs) && has({settings}.batchSize) && has({settings}.maxLength))",
        "mode LearningCurve needs epochs, batchSize and maxLength: those omitted depend on the number of examples",
        "template.spec.hyperparameters",
    )
    yield (
        f"{other} || !has({dataset}.training.limit)",
        "mode LearningCurve sets dataset.training.limit itself",
        "template.spec.dataset.training.limit",
    )
    yield (
        f"{other} || !has({dataset}.validation) || !has({dataset}.validation.splitPercent)",
        "mode LearningCurve needs validation files: splitPercent holds out other examples for each seed",
        "template.spec.dataset.validation.splitPercent",
    )
    yield (
        f"{other} || !has(self.objective) || !has({measured}) || !has({measured}.holdout)",
        "mode LearningCurve chooses no trial that holdout would confirm",
        "objective.evaluation.holdout",
    )
    yield (
        f"{other} || !has({settings}.seed) || {settings}.seed + "
        f"(has(self.learningCurve) ? self.learningCurve.seeds : {LearningCurve().seeds}) <= {LARGEST_SEED + 1}",
        f"hyperparameters.seed and those of learningCurve.seeds after it are at most {LARGEST_SEED}",
        "template.spec.hyperparameters.seed",
    )
    yield (
        "self.mode == 'Search' || !has(self.prune)",
        "prune is only allowed with mode Search: trials of few examples or small models would lose",
        "prune",
    )


def _rules_of_sizes() -> Iterator[tuple[str, str, str]]:
    """CEL: what differs between the trials of mode SmallestModel is the model, which the gates judge."""
    is_one, graders = "self.mode == 'SmallestModel'", "self.objective.evaluation.template.spec.graders"
    yield (
        f"({is_one}) == has(self.smallestModel)",
        "smallestModel is required with mode SmallestModel, and only allowed with it",
        "smallestModel",
    )
    yield (
        f"({is_one}) != has(self.template.spec.model)",
        "template.spec.model is required, but with mode SmallestModel, which chooses it",
        "template.spec.model",
    )
    yield (
        f"!({is_one}) || (has(self.objective) && has(self.objective.evaluation))",
        "mode SmallestModel needs objective.evaluation: gates judge what graders measure",
        "objective",
    )
    yield (
        "!has(self.smallestModel) || !has(self.objective) || !has(self.objective.evaluation) || "
        f"self.smallestModel.gates.all(gate, has(gate.grader) && {graders}.exists(one, one.name == gate.grader))",
        "each gate names one of the graders of objective.evaluation.template.spec",
        "smallestModel.gates",
    )


def _rules_of_a_sweep(schema: dict[str, Any]) -> None:
    """CEL: what is searched stays what it was within a run, and can be compared."""
    schema |= cel(
        (
            "has(self.template.spec.dataset.validation) || "
            "(has(self.objective) && self.objective.type == 'Evaluation' && !has(self.prune))",
            "trials are compared by the loss on template.spec.dataset.validation, which is missing",
            "template.spec.dataset.validation",
        ),
        (
            "!has(self.objective) || !has(self.objective.evaluation) || !has(self.objective.evaluation.holdout) || "
            "!has(self.objective.evaluation.holdout.uri) || ((!has(self.template.spec.dataset.training.uri) || "
            "self.objective.evaluation.holdout.uri != self.template.spec.dataset.training.uri) && "
            "(!has(self.template.spec.dataset.validation) || !has(self.template.spec.dataset.validation.uri) || "
            "self.objective.evaluation.holdout.uri != self.template.spec.dataset.validation.uri))",
            "the trials are trained and compared on template.spec.dataset: holdout has other examples",
            "objective.evaluation.holdout.uri",
        ),
        (
            "!has(self.search) || self.search.algorithm != 'Grid' || "
            "self.search.parameters.all(one, has(one.numbers) || has(one.texts))",
            "search.algorithm Grid needs numbers or texts, not a range, for each parameter",
            "search.parameters",
        ),
        (
            "(self.mode == 'Search') == has(self.search)",
            "search is required with mode Search, and only allowed with it",
            "search",
        ),
        *_rules_of_a_curve(),
        *_rules_of_sizes(),
    )
    schema["x-kubernetes-validations"].insert(0, a_change_is_a_new_run(schema, CHANGEABLE_WITHIN_A_SWEEP))


class FineTuneSweepSpec(ApiModel):
    """Many trainings, compared: for hyperparameters, for what more data would bring, for the smallest model."""

    model_config = ConfigDict(json_schema_extra=_rules_of_a_sweep)

    run_id: RunId = Field("1", description="Change it to search again. Earlier trials stay until the sweep is deleted.")
    suspend: bool = Field(
        False, description="true: suspend the trials, which save a checkpoint, and start none. false: go on."
    )
    cancel: bool = Field(
        False,
        description="true: cancel the trials and end the search as Cancelled, for good: only another runId (with "
        "cancel false) searches again. Checkpoints and results stay.",
    )
    template: Template
    mode: Literal["Search", "LearningCurve", "SmallestModel"] = Field(
        "Search",
        description="Search: for the best hyperparameters. LearningCurve: on parts of the training examples, to see "
        "what more of them would bring. SmallestModel: different models, the smallest first, until one passes.",
    )
    objective: Objective | None = Field(None, description="Omitted: EvalLoss.")
    search: Search | None = Field(None, description="Required with mode Search.")
    learning_curve: LearningCurve | None = Field(None, description="With mode LearningCurve. Omitted: the defaults.")
    smallest_model: SmallestModel | None = Field(None, description="Required with mode SmallestModel.")
    parallel: int | None = Field(
        None,
        ge=1,
        le=50,
        description="Trials that run at the same time. May be changed during a run. Omitted: 2, and with mode "
        "SmallestModel 1, so that no larger model is trained in vain.",
    )
    budget: Budget = Field(Budget(), description="Limits of the search. May be changed during a run.")
    prune: Prune | None = Field(None, description="Omitted: every trial trains to its end.")

    @property
    def width(self) -> int:
        """How many trials run at the same time."""
        return self.parallel or (1 if self.smallest_model is not None else 2)

    @property
    def measured(self) -> GraderScore | None:
        """The score that trials are compared by; None: the validation loss."""
        return None if self.objective is None else self.objective.evaluation

    @property
    def sign(self) -> int:
        """What a score is multiplied by, so that lower is better."""
        return -1 if self.measured is not None and self.measured.goal == "Maximize" else 1
