"""The Dataset kind: how the runtime observes and plans it."""

from __future__ import annotations

from functools import partial

from finetune_api.dataset import DatasetKindStatus
from finetune_operator.core.kind_definition import Kind, OwnedResource
from finetune_operator.core.references import class_reference
from finetune_operator.dataset.observe import observe
from finetune_operator.dataset.plan import FINISHED, plan
from finetune_operator.environment import Environment
from finetune_operator.kube.resources import DATASETS, JOBS, PODS
from finetune_operator.metrics.dataset_metrics import DatasetMetrics


def dataset(environment: Environment) -> Kind:
    """It owns Jobs and Pods."""
    return Kind(
        DATASETS,
        DatasetKindStatus,
        partial(observe, environment=environment),
        plan,
        owns=(OwnedResource(JOBS), OwnedResource(PODS)),
        references=class_reference,
        is_finished=lambda status: status.phase in FINISHED,
        metrics=(DatasetMetrics(),),
    )
