"""The spec, and validation rules across its fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field

from finetune_api.base import ApiModel, LocalObjectReference, Name, cel
from finetune_api.finetunejob.adapter import Adapter
from finetune_api.finetunejob.checkpoints import Checkpoints
from finetune_api.finetunejob.dataset import Dataset, DatasetFormat
from finetune_api.finetunejob.hyperparameters import Hyperparameters
from finetune_api.finetunejob.method import SETTINGS, Method
from finetune_api.lifecycle import CHANGEABLE_WITHIN_A_RUN, RunId, RunLimits, RunSpec, a_change_is_a_new_run
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf

_REWARD = "ValidReward"


class Model(OneOf):
    """The model to fine-tune."""

    choices = ("uri", "fine_tune_job_ref")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(
        None, description="Start from the result that this FineTuneJob has when the run starts."
    )


class Parallelism(ApiModel):
    """One Pod per node; each runs processesPerNode ranks."""

    nodes: int = Field(
        1, ge=1, le=1024, description="Pods per attempt, each with the class's accelerator.countPerNode accelerators."
    )
    processes_per_node: int = Field(1, ge=1, le=64, description="Processes per Pod, one per accelerator.")
    strategy: Literal["DDP", "FSDP"] = Field(
        "DDP",
        description="DDP: each process holds the whole model. FSDP: weights, gradients and optimizer state are "
        "sharded (FSDP2).",
    )


def _rules_across_fields(schema: dict[str, Any]) -> None:
    """CEL rules for invalid combinations of fields."""
    schema |= cel(
        (
            "!has(self.checkpoints) || !has(self.checkpoints.best) || self.checkpoints.best.metric != 'EvalLoss' "
            "|| has(self.dataset.validation)",
            "checkpoints.best by EvalLoss needs dataset.validation",
            "checkpoints.best",
        ),
        (
            "!has(self.hyperparameters.batchSize) || "
            "self.hyperparameters.batchSize % (self.parallelism.nodes * self.parallelism.processesPerNode) == 0",
            "hyperparameters.batchSize must be a multiple of parallelism.nodes * parallelism.processesPerNode",
            "hyperparameters.batchSize",
        ),
        (
            "!has(self.hyperparameters.earlyStopping) || has(self.dataset.validation)",
            "hyperparameters.earlyStopping needs dataset.validation",
            "hyperparameters.earlyStopping",
        ),
        (
            "self.adapter.type != 'QLoRA' || self.parallelism.strategy != 'FSDP'",
            "adapter.type QLoRA needs parallelism.strategy DDP",
            "parallelism.strategy",
        ),
        (
            "(has(self.model) && has(self.model.fineTuneJobRef)) || "
            "(has(self.adapter.lora) ? !has(self.adapter.lora.inherited) "
            ": !has(self.adapter.qlora) || !has(self.adapter.qlora.inherited))",
            "inherited needs model.fineTuneJobRef: only another job's result can include an adapter",
            "adapter",
        ),
        *_rules_of_methods(),
    )


def _rules_of_methods() -> Iterator[tuple[str, str, str]]:
    """CEL rules for invalid combinations of fields with each method."""
    packs: list[str] = [kind for kind, settings in SETTINGS.items() if settings.rules.packs]
    rule = f"self.method.type in {packs} || !has(self.hyperparameters.packing) || !self.hyperparameters.packing"
    yield rule, f"hyperparameters.packing needs method.type {' or '.join(packs)}", "hyperparameters.packing"
    for kind, settings in SETTINGS.items():
        rules, other = settings.rules, f"self.method.type != '{kind}'"
        if not rules.shards and rules.distributes:
            rule = f"{other} || self.parallelism.strategy != 'FSDP'"
            yield rule, f"method.type {kind} needs parallelism.strategy DDP", "parallelism.strategy"
        if not rules.distributes:
            rule = f"{other} || self.parallelism.nodes * self.parallelism.processesPerNode == 1"
            yield rule, f"method.type {kind} trains in one process", "parallelism"
        if not rules.has_validation_loss:
            rule = f"{other} || !has(self.hyperparameters.earlyStopping)"
            message = f"method.type {kind} has no loss for earlyStopping"
            yield rule, message, "hyperparameters.earlyStopping"
        if rules.rewards:
            best = f"self.checkpoints.best.metric == '{_REWARD}' && self.checkpoints.best.goal == 'Maximize'"
            message = f"with method.type {kind}, checkpoints.best is by {_REWARD}, with goal Maximize"
            yield f"{other} || !has(self.checkpoints.best) || ({best})", message, "checkpoints.best"
            rule = f"{other} || has(self.dataset.validation)"
            yield rule, f"method.type {kind} needs dataset.validation", "dataset.validation"
    rewarding: list[str] = [kind for kind, settings in SETTINGS.items() if settings.rules.rewards]
    rule = (
        f"!has(self.checkpoints.best) || self.checkpoints.best.metric != '{_REWARD}' || self.method.type in {rewarding}"
    )
    message = f"checkpoints.best by {_REWARD} requires method {' or '.join(rewarding)}"
    yield rule, message, "checkpoints.best.metric"
    for name in get_args(DatasetFormat):
        fitting: list[str] = [kind for kind, settings in SETTINGS.items() if name in settings.rules.formats]
        rule = f"!has(self.dataset.format) || self.dataset.format != '{name}' || self.method.type in {fitting}"
        yield rule, f"dataset.format {name} requires method {' or '.join(fitting)}", "dataset.format"


class TrainingSpec(RunLimits):
    """What is trained, on what, and how."""

    model_config = ConfigDict(json_schema_extra=_rules_across_fields)

    class_name: Name | None = Field(
        None, description="Name of the FineTuneClass. Omitted: the default class at the time the run starts."
    )
    model: Model
    method: Method = Method()
    adapter: Adapter = Adapter()
    dataset: Dataset
    hyperparameters: Hyperparameters = Hyperparameters()
    parallelism: Parallelism = Parallelism()
    checkpoints: Checkpoints = Checkpoints()


def _rules_of_a_job(schema: dict[str, Any]) -> None:
    """CEL: within a run every field but the changeable ones stays what it was."""
    _rules_across_fields(schema)
    schema["x-kubernetes-validations"].insert(0, a_change_is_a_new_run(schema, CHANGEABLE_WITHIN_A_RUN))


class FineTuneJobSpec(TrainingSpec, RunSpec):
    """A fine-tuning run. Changing the model, data or training settings requires changing runId too."""

    model_config = ConfigDict(json_schema_extra=_rules_of_a_job)

    run_id: RunId = Field("1", description="Change it to run again, alone or together with other fields.")
