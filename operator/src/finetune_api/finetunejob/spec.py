"""The whole spec, and the rules between its parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finetune_api.base import LONGEST_SECONDS, ApiModel, LocalObjectReference, Name, cel
from finetune_api.finetunejob.adapter import Adapter
from finetune_api.finetunejob.checkpoints import Checkpoints
from finetune_api.finetunejob.dataset import Dataset
from finetune_api.finetunejob.hyperparameters import Hyperparameters
from finetune_api.finetunejob.method import Method
from finetune_api.sources import ModelUri
from finetune_api.unions import OneOf


class Model(OneOf):
    """The model to start from."""

    choices = ("uri", "fine_tune_job_ref")

    uri: ModelUri | None = Field(None, description="s3://bucket/folder, or hf://org/name@revision.")
    fine_tune_job_ref: LocalObjectReference | None = Field(
        None, description="Go on from the result of this FineTuneJob, as it is when the run starts."
    )


class Parallelism(ApiModel):
    """One Pod a node; each runs processesPerNode ranks."""

    nodes: int = Field(
        1, ge=1, le=1024, description="Pods of an attempt, each with accelerator.countPerNode of the class."
    )
    processes_per_node: int = Field(1, ge=1, le=64, description="Processes of each Pod, one an accelerator.")
    strategy: Literal["DDP", "FSDP"] = Field(
        "DDP", description="DDP: each process has the whole model. FSDP: weights and optimizer are sharded (FSDP2)."
    )


CHANGEABLE_WITHIN_A_RUN = frozenset(
    {"suspend", "retryLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "runId"}
)


def _a_change_is_a_new_run(schema: dict[str, Any]) -> None:
    """CEL: within a run every field but the changeable ones stays what it was."""
    unchanged = " && ".join(
        f"(has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field}))"
        for field in schema["properties"]
        if field not in CHANGEABLE_WITHIN_A_RUN
    )
    schema |= cel(
        (
            f"self.runId != oldSelf.runId || ({unchanged})",
            "a change of spec is a new run: change spec.runId too (only suspend, retryLimit, activeDeadlineSeconds and "
            "ttlSecondsAfterFinished may change within a run)",
        ),
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
            "self.method.type == 'SFT' || !has(self.hyperparameters.packing) || !self.hyperparameters.packing",
            "hyperparameters.packing needs method.type SFT",
            "hyperparameters.packing",
        ),
        (
            "self.method.type != 'DPO' || self.parallelism.strategy != 'FSDP'",
            "method.type DPO needs parallelism.strategy DDP",
            "parallelism.strategy",
        ),
        (
            "self.adapter.type != 'QLoRA' || self.parallelism.strategy != 'FSDP'",
            "adapter.type QLoRA needs parallelism.strategy DDP",
            "parallelism.strategy",
        ),
        (
            "has(self.model.fineTuneJobRef) || (has(self.adapter.lora) ? !has(self.adapter.lora.inherited) "
            ": !has(self.adapter.qlora) || !has(self.adapter.qlora.inherited))",
            "inherited needs model.fineTuneJobRef: only the result of another job may bring an adapter",
            "adapter",
        ),
        (
            "!has(self.dataset.format) || (self.method.type == 'DPO') == (self.dataset.format == 'Preference')",
            "method DPO learns from dataset.format Preference, and only it does",
            "dataset.format",
        ),
    )


class FineTuneJobSpec(ApiModel):
    """A fine-tuning run. A change of what it learns, from what or how, must change runId too."""

    model_config = ConfigDict(json_schema_extra=_a_change_is_a_new_run)

    class_name: Name | None = Field(
        None, description="FineTuneClass; omitted: the one that is the default when the run begins."
    )
    run_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63)] = (
        Field("1", description="Change it to run again, alone or together with anything else.")
    )
    suspend: bool = Field(False, description="true stops the Pods; false goes on from the newest checkpoint.")
    model: Model
    method: Method = Method()
    adapter: Adapter = Adapter()
    dataset: Dataset
    hyperparameters: Hyperparameters = Hyperparameters()
    parallelism: Parallelism = Parallelism()
    checkpoints: Checkpoints = Checkpoints()
    retry_limit: int = Field(
        3,
        ge=0,
        le=100,
        description="Failures of training; disruptions never count. May be changed within a run: it holds for the next "
        "failure.",
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=LONGEST_SECONDS,
        description="How long the run may take in all, at most what the class allows; suspended and queued time does "
        "not count. Omitted: what the class allows. May be changed within a run: it holds at once.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=LONGEST_SECONDS, description="Removes the Pods this long after the end; never this object."
    )
