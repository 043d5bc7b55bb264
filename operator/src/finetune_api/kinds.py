"""The kinds of the group: their names, models, and columns in kubectl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_api.base import ApiModel
from finetune_api.dataset import DatasetSpec, DatasetStatus
from finetune_api.evaluation import EvaluationSpec, EvaluationStatus
from finetune_api.finetuneclass import FineTuneClassSpec, FineTuneClassStatus
from finetune_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from finetune_api.finetunesweep import FineTuneSweepSpec, FineTuneSweepStatus
from finetune_api.modeldeployment import ModelDeploymentSpec, ModelDeploymentStatus

Column = tuple[str, str, str]
"""Name, OpenAPI type, JSON path."""

_READY = '.status.conditions[?(@.type=="Ready")]'
_AGE: Column = ("Age", "date", ".metadata.creationTimestamp")
_CLASS: Column = ("Class", "string", ".status.className")
_MESSAGE: Column = ("Message", "string", f"{_READY}.message")
_RUN: Column = ("Run", "string", ".status.runId")


@dataclass(frozen=True)
class Kind:
    """A kind of the group, and its columns in kubectl."""

    name: str
    plural: str
    short_name: str
    scope: Literal["Namespaced", "Cluster"]
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...] = field(default=())
    wide_columns: tuple[Column, ...] = field(default=())
    """Additional columns with `-o wide`."""
    subresources: Mapping[str, Any] = field(default_factory=dict)
    """In addition to the status."""


FINE_TUNE_CLASS = Kind(
    "FineTuneClass",
    "finetuneclasses",
    "ftc",
    "Cluster",
    FineTuneClassSpec,
    FineTuneClassStatus,
    (
        ("Ready", "string", f"{_READY}.status"),
        ("Bucket", "string", ".spec.storage.bucket"),
        ("Accelerator", "string", ".spec.accelerator.resourceName"),
        _AGE,
    ),
    (
        ("Per Node", "integer", ".spec.accelerator.countPerNode"),
        ("Nodes", "integer", ".spec.limits.nodes"),
        ("Endpoint", "string", ".spec.storage.endpoint"),
        ("Queue", "string", ".spec.scheduling.queueName"),
        ("Reclaim", "string", ".spec.reclaimPolicy"),
        _MESSAGE,
    ),
)
FINE_TUNE_JOB = Kind(
    "FineTuneJob",
    "finetunejobs",
    "ftj",
    "Namespaced",
    FineTuneJobSpec,
    FineTuneJobStatus,
    (
        ("Phase", "string", ".status.phase"),
        ("Reason", "string", f"{_READY}.reason"),
        ("Step", "integer", ".status.progress.step"),
        ("Of", "integer", ".status.progress.totalSteps"),
        ("Loss", "number", ".status.progress.loss"),
        ("Reward", "number", ".status.progress.reward"),
        ("ETA", "string", ".status.progress.estimatedRemaining"),
        _CLASS,
        _AGE,
    ),
    (
        _RUN,
        ("Attempt", "integer", ".status.attempt.number"),
        ("Retries", "integer", ".status.attempt.retries"),
        ("Disruptions", "integer", ".status.attempt.disruptions"),
        ("Method", "string", ".spec.method.type"),
        ("Model", "string", ".spec.model.uri"),
        ("From", "string", ".spec.model.fineTuneJobRef.name"),
        ("Dataset", "string", ".spec.dataset.training.uri"),
        ("Result", "string", ".status.result.uri"),
        _MESSAGE,
    ),
)
EVALUATION = Kind(
    "Evaluation",
    "evaluations",
    "eval",
    "Namespaced",
    EvaluationSpec,
    EvaluationStatus,
    (
        ("Phase", "string", ".status.phase"),
        ("Reason", "string", f"{_READY}.reason"),
        ("Percent", "integer", ".status.progress.percent"),
        ("ETA", "string", ".status.progress.estimatedRemaining"),
        ("Passed", "string", '.status.conditions[?(@.type=="Passed")].status'),
        ("Summary", "string", ".status.summary"),
        _CLASS,
        _AGE,
    ),
    (
        _RUN,
        ("Try", "integer", ".status.try"),
        ("Dataset", "string", ".spec.dataset.uri"),
        ("Report", "string", ".status.reportUri"),
        _MESSAGE,
    ),
)
MODEL_DEPLOYMENT = Kind(
    "ModelDeployment",
    "modeldeployments",
    "mdep",
    "Namespaced",
    ModelDeploymentSpec,
    ModelDeploymentStatus,
    (
        ("Phase", "string", ".status.phase"),
        ("Reason", "string", f"{_READY}.reason"),
        ("Ready", "integer", ".status.readyReplicas"),
        ("Model", "string", ".status.modelName"),
        ("URL", "string", ".status.url"),
        _CLASS,
        _AGE,
    ),
    (
        ("Replicas", "integer", ".spec.replicas"),
        ("Serves", "string", ".status.served.uri"),
        ("Adapter", "string", ".status.served.adapterUri"),
        ("Checkpoint", "string", ".status.served.checkpoint.uri"),
        ("Revision", "string", ".status.revision"),
        ("Gate", "string", ".spec.gate.evaluationRef.name"),
        _MESSAGE,
    ),
    {
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    },
)
FINE_TUNE_SWEEP = Kind(
    "FineTuneSweep",
    "finetunesweeps",
    "fts",
    "Namespaced",
    FineTuneSweepSpec,
    FineTuneSweepStatus,
    (
        ("Phase", "string", ".status.phase"),
        ("Reason", "string", f"{_READY}.reason"),
        ("Trials", "integer", ".status.finished"),
        ("Running", "integer", ".status.running"),
        ("Remaining", "integer", ".status.remaining"),
        ("Best", "number", ".status.best.score"),
        ("Best Trial", "string", ".status.best.fineTuneJobName"),
        _AGE,
    ),
    (
        _RUN,
        ("Mode", "string", ".spec.mode"),
        ("Class", "string", ".spec.template.spec.className"),
        ("Algorithm", "string", ".spec.search.algorithm"),
        ("Model", "string", ".spec.template.spec.model.uri"),
        ("Dataset", "string", ".spec.template.spec.dataset.training.uri"),
        _MESSAGE,
    ),
)
DATASET = Kind(
    "Dataset",
    "datasets",
    "ftds",
    "Namespaced",
    DatasetSpec,
    DatasetStatus,
    (
        ("Phase", "string", ".status.phase"),
        ("Reason", "string", f"{_READY}.reason"),
        ("Format", "string", ".status.revision.format"),
        ("Examples", "integer", ".status.revision.examples"),
        _CLASS,
        _AGE,
    ),
    (
        _RUN,
        ("Try", "integer", ".status.try"),
        ("Source", "string", ".spec.source.uri"),
        ("Revision", "string", ".status.revision.digest"),
        ("Files", "string", ".status.revision.uri"),
        _MESSAGE,
    ),
)
KINDS = (FINE_TUNE_CLASS, FINE_TUNE_JOB, EVALUATION, MODEL_DEPLOYMENT, FINE_TUNE_SWEEP, DATASET)
